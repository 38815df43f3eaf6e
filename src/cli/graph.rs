//! `lamplighter graph`: the stages of a job as a drawing.

use super::{Global, exit::Exit, print, settings::Settings};
use lamplighter::job::{Job, Stage, StageKind};
use std::{collections::BTreeSet, fmt::Write as _};

/// Arguments of `graph`.
#[derive(clap::Args)]
pub struct GraphArguments {
    /// Name of a job in the job folder, or a file
    #[arg(value_name = "JOB|FILE")]
    job: String,
    /// What is printed
    #[arg(long, value_enum, default_value = "mermaid")]
    format: Drawing,
}

/// Languages of drawings.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Drawing {
    /// Mermaid, for Markdown
    Mermaid,
    /// DOT, for Graphviz
    Dot,
    /// SVG, for a browser
    Svg,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &GraphArguments) -> Exit {
    let job = match Settings::read(global).and_then(|settings| settings.job(&arguments.job)) {
        Ok(checked) => checked.job,
        Err(exit) => return exit,
    };
    Exit::Done.after(print(&match arguments.format {
        Drawing::Mermaid => mermaid(&job),
        Drawing::Dot => dot(&job),
        Drawing::Svg => svg(&job),
    }))
}

/// Stages that people wrote, with their places.
fn stages(job: &Job) -> impl Iterator<Item = (usize, &Stage)> {
    job.stages.iter().enumerate().filter(|(_, stage)| !stage.hidden)
}

/// From and to, by place.
fn arrows(job: &Job) -> Vec<(usize, usize)> {
    let into =
        |(to, stage): (usize, &Stage)| stage.from.iter().map(move |from| (usize::from(*from), to)).collect::<Vec<_>>();
    stages(job).flat_map(into).filter(|(from, _)| !job.stages[*from].hidden).collect()
}

/// What a stage does, in a few words.
fn words(stage: &Stage) -> String {
    let actions: Vec<&str> = stage.actions.iter().map(|action| action.kind).collect();
    let mut words = match stage.kind {
        StageKind::Source => "source".to_owned(),
        StageKind::Worker if stage.workers == 1 => "1 worker".to_owned(),
        StageKind::Worker => format!("{} workers", stage.workers),
        StageKind::GatherAll => "gather all".to_owned(),
        StageKind::GatherBy(_) => "gather by text".to_owned(),
    };
    let _ = write!(words, ": {}", actions.join(", "));
    words
}

fn mermaid(job: &Job) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (at, stage) in stages(job) {
        let label = format!("{}<br/>{}", stage.name, words(stage)).replace('"', "#quot;");
        let (open, close) = match stage.kind {
            StageKind::Source => ("([", "])"),
            StageKind::Worker => ("[", "]"),
            StageKind::GatherAll | StageKind::GatherBy(_) => ("[/", "\\]"),
        };
        let _ = writeln!(text, "    s{at}{open}\"{label}\"{close}");
    }
    for (from, to) in arrows(job) {
        let _ = writeln!(text, "    s{from} --> s{to}");
    }
    text
}

fn dot(job: &Job) -> String {
    let mut text = format!("digraph {:?} {{\n    rankdir=LR; node [shape=box, fontname=\"sans-serif\"];\n", &*job.name);
    for (at, stage) in stages(job) {
        let shape = match stage.kind {
            StageKind::Source => "cds",
            StageKind::Worker => "box",
            StageKind::GatherAll | StageKind::GatherBy(_) => "invtrapezium",
        };
        let label =
            format!("{}\n{}", stage.name, words(stage)).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(text, "    s{at} [label=\"{label}\", shape={shape}];");
    }
    for (from, to) in arrows(job) {
        let _ = writeln!(text, "    s{from} -> s{to};");
    }
    text.push_str("}\n");
    text
}

/// Size of a box and the room between boxes, in pixels.
const BOX: (usize, usize) = (230, 64);
const GAP: (usize, usize) = (64, 28);
const MARGIN: usize = 20;

fn svg(job: &Job) -> String {
    let columns = columns(job);
    let lanes = lanes(job, &columns);
    let left = |column: usize| MARGIN + column * (BOX.0 + GAP.0);
    let place: Vec<_> =
        (0..job.stages.len()).map(|at| (left(columns[at]), MARGIN + lanes[at] * (BOX.1 + GAP.1))).collect();
    let (last, lowest) = stages(job).fold((0, 0), |(x, y), (at, _)| (x.max(place[at].0), y.max(place[at].1)));
    let (width, height) = (last + BOX.0 + MARGIN, lowest + BOX.1 + MARGIN);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#64748b\"/></marker></defs>\n",
        escape(&job.name)
    );
    for (from, to) in arrows(job) {
        let (x1, y1) = (place[from].0 + BOX.0, place[from].1 + BOX.1 / 2);
        let (x2, y2) = (place[to].0, place[to].1 + BOX.1 / 2);
        // Straight on in its lane, which is free, then over to the lane of its end.
        let turn = left(columns[to].saturating_sub(1)) + BOX.0;
        let middle = turn.midpoint(x2);
        let _ = writeln!(
            text,
            "<path d=\"M{x1} {y1}H{turn}C{middle} {y1} {middle} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#64748b\" \
             stroke-width=\"1.5\" marker-end=\"url(#tip)\"/>"
        );
    }
    for (at, stage) in stages(job) {
        let (x, y) = place[at];
        let (fill, line, round) = match stage.kind {
            StageKind::Source => ("#e0f2fe", "#0369a1", BOX.1 / 2),
            StageKind::Worker => ("#f1f5f9", "#475569", 8),
            StageKind::GatherAll | StageKind::GatherBy(_) => ("#fef3c7", "#b45309", 8),
        };
        let (center, name, what) = (x + BOX.0 / 2, y + 28, y + 47);
        let words: String = words(stage).chars().take(36).collect();
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"{round}\" fill=\"{fill}\" stroke=\"{line}\"/>\
             <text x=\"{center}\" y=\"{name}\" text-anchor=\"middle\" font-size=\"15\" font-weight=\"600\" \
             fill=\"#0f172a\">{}</text><text x=\"{center}\" y=\"{what}\" text-anchor=\"middle\" font-size=\"11\" \
             fill=\"#475569\">{}</text>",
            BOX.0,
            BOX.1,
            escape(&stage.name),
            escape(&words)
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Column of each stage: one behind the last of those that it reads.
fn columns(job: &Job) -> Vec<usize> {
    let mut columns = vec![0; job.stages.len()];
    // The relations have no cycle: after as many passes as there are stages nothing moves any more.
    for _ in 0..job.stages.len() {
        for (from, to) in arrows(job) {
            columns[to] = columns[to].max(columns[from] + 1);
        }
    }
    columns
}

/// Lane of each stage: that of the first one that it reads, or the nearest that is free. An arrow that passes a column
/// keeps its lane free there, so that none runs behind a box.
fn lanes(job: &Job, columns: &[usize]) -> Vec<usize> {
    let arrows = arrows(job);
    let mut lanes = vec![0; job.stages.len()];
    for column in 0..=columns.iter().copied().max().unwrap_or(0) {
        let passing = arrows.iter().filter(|(from, to)| columns[*from] < column && column < columns[*to]);
        let mut taken: BTreeSet<usize> = passing.map(|(from, _)| lanes[*from]).collect();
        for (at, _) in stages(job).filter(|(at, _)| columns[*at] == column) {
            let wanted = arrows.iter().find(|(_, to)| *to == at).map_or(0, |(from, _)| lanes[*from]);
            // As many lanes as there are stages are enough for all of them.
            let free = (wanted..).chain((0..wanted).rev()).take(2 * job.stages.len());
            lanes[at] = free.into_iter().find(|lane| !taken.contains(lane)).unwrap_or(wanted);
            taken.insert(lanes[at]);
        }
    }
    lanes
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamplighter::action::Handlers;

    #[test]
    fn an_arrow_that_passes_a_column_has_its_lane_for_itself() {
        let text = r#"Job(stages: [
            Stage(name: "a", run: [Items(list: ["1"])]),
            Stage(name: "b", run: [Log(message: "x")]),
            Stage(name: "c", from: ["a"], run: [Log(message: "x")]),
            Stage(name: "d", from: ["b"], run: [Log(message: "x")]),
            Stage(name: "z", from: [], run: [Items(list: ["1"])]),
            Stage(name: "e", from: ["a", "d", "c", "z"], gather: All, run: [Log(message: "x")]),
            Stage(name: "f", from: ["c"], run: [Log(message: "x")]),
        ])"#;
        let job = Job::from_ron("net", text, ".".as_ref(), &Handlers::new()).expect("a good job").job;
        let columns = columns(&job);
        let lanes = lanes(&job, &columns);
        for (from, to) in arrows(&job) {
            for (at, stage) in stages(&job).filter(|(at, _)| columns[from] < columns[*at] && columns[*at] < columns[to])
            {
                assert_ne!(lanes[at], lanes[from], "{} stands in the way", stage.name);
            }
        }
        for (one, _) in stages(&job) {
            for (other, _) in stages(&job).filter(|(other, _)| *other != one) {
                assert_ne!((columns[one], lanes[one]), (columns[other], lanes[other]));
            }
        }
    }
}
