//! The live picture of a run on a terminal: a title, and a line for each stage.
//!
//! Drawn by `run` and `demo` some times a second from a snapshot. What stands in it is a pure function of the snapshots so
//! far and the size of the terminal; [`super::screen`] puts it there.

use super::screen;
use lamplighter::{
    report::{Ink, Tone, cells, count},
    run::{Progress, StageProgress},
};
use std::{collections::VecDeque, time::Duration};

/// Cells of a bar, at most and at least.
const BAR: (usize, usize) = (26, 8);

/// The pace is that of so much time.
const WINDOW: Duration = Duration::from_secs(10);

/// Fewer items than this in the window tell no pace: that of the whole stage is shown.
const PACE_ITEMS: u64 = 3;

/// Draws the picture and remembers what it needs for the next one.
pub struct Picture {
    ink: Ink,
    paces: Vec<Pace>,
    widths: Vec<usize>,
    size: (usize, usize),
}

impl Picture {
    pub fn new() -> Picture {
        Picture { ink: screen::ink(&std::io::stderr()), paces: Vec::new(), widths: Vec::new(), size: (0, 0) }
    }

    /// Draws the run over the picture before.
    pub fn draw(&mut self, job: &str, progress: &Progress) {
        screen::draw(self.frame(job, progress, screen::size()));
    }

    /// The lines of the picture, none wider than the terminal, fewer than it has rows.
    fn frame(&mut self, job: &str, progress: &Progress, size: (usize, usize)) -> Vec<String> {
        if self.size != size {
            (self.size, self.widths) = (size, Vec::new());
        }
        self.paces.resize_with(progress.stages.len(), Pace::default);
        for (pace, stage) in self.paces.iter_mut().zip(&progress.stages) {
            pace.note(progress.elapsed, stage.counts.settled());
        }
        let rows: Vec<Row> =
            progress.stages.iter().zip(&self.paces).map(|(stage, pace)| self.row(stage, pace, progress)).collect();
        let (rows, above, below) = fold(rows, size.1.saturating_sub(4));
        let mut lines = vec![self.title(job, progress)];
        if above > 0 {
            lines.push(self.ink.paint(Tone::Faint, &format!("  {} ended", stages(above))));
        }
        lines.extend(self.align(&rows, size.0));
        if below > 0 {
            lines.push(self.ink.paint(Tone::Faint, &format!("  {}", stages(below))));
        }
        lines.iter().map(|line| cut(line, size.0)).collect()
    }

    fn title(&self, job: &str, progress: &Progress) -> String {
        let mut title = format!("{}  {}", self.ink.paint(Tone::Strong, job), clock(progress.elapsed));
        if let Some(left) = progress.left {
            let late = self.rest(progress).and_then(|rest| rest.checked_sub(left)).filter(|late| late.as_secs() > 0);
            let (tone, text) = match late {
                _ if left.is_zero() => (Tone::Bad, "past the deadline".to_owned()),
                Some(late) => (
                    Tone::Bad,
                    format!("{} to the deadline: at this pace it ends {} too late", clock(left), clock(late)),
                ),
                None => (Tone::Faint, format!("{} to the deadline", clock(left))),
            };
            title.push_str("  ");
            title.push_str(&self.ink.paint(tone, &text));
        }
        if progress.ending {
            title.push_str("  ");
            title.push_str(&self.ink.paint(Tone::Warn, "ending"));
        }
        title
    }

    /// The longest rest of all stages.
    fn rest(&self, progress: &Progress) -> Option<Duration> {
        self.paces.iter().zip(&progress.stages).filter_map(|(pace, stage)| pace.rest(stage)).max()
    }

    fn row(&self, stage: &StageProgress, pace: &Pace, progress: &Progress) -> Row {
        let (counts, ink) = (&stage.counts, self.ink);
        let begun = stage.began || counts.settled() > 0;
        let state = match (stage.ended, begun) {
            (true, _) => State::Ended,
            (false, true) => State::Runs,
            (false, false) => State::Waits,
        };
        let mark = match state {
            State::Ended if counts.missing() > 0 => ink.paint(Tone::Bad, "!"),
            State::Ended => ink.paint(Tone::Good, "✓"),
            State::Runs => ink.paint(Tone::Busy, spinner(progress.elapsed)),
            State::Waits => ink.paint(Tone::Faint, "·"),
        };
        let tone = if state == State::Waits { Tone::Faint } else { Tone::Strong };
        let mut row = Row { state, mark, name: (tone, stage.name.clone()), bar: Bar::None, cells: Default::default() };
        if state == State::Waits {
            return row;
        }
        row.bar = match (counts.items, stage.source && !stage.ended) {
            (_, true) => Bar::Pulse((progress.elapsed.as_millis() / 100) as usize),
            (0, _) => Bar::Parts { done: u64::from(stage.ended), missing: 0, all: 1 },
            (all, _) => Bar::Parts { done: counts.ok + counts.empty, missing: counts.missing(), all },
        };
        let done = count(counts.settled());
        row.cells[DONE] = match (stage.source, stage.total_known) {
            (true, _) => done,
            (false, true) => format!("{done}/{}", count(counts.items)),
            (false, false) => format!("{done}/{}+", count(counts.items)),
        };
        if state == State::Runs {
            row.cells[PACE] = pace.text(stage);
            row.cells[REST] = pace.rest(stage).map_or_else(String::new, |rest| {
                let late = progress.left.is_some_and(|left| rest > left);
                let text = format!("{} left", clock(rest));
                if late { ink.paint(Tone::Bad, &text) } else { text }
            });
            if !stage.source && stage.working > 0 {
                row.cells[FLIGHT] = format!("{} in flight", count(stage.working));
            }
            if stage.waiting > 0 && !stage.source {
                row.cells[WAITING] = ink.paint(Tone::Warn, &format!("{} waiting", count(stage.waiting)));
            }
        }
        if stage.closed {
            row.cells[WAITING] = ink.paint(Tone::Warn, "closed");
        }
        if counts.missing() > 0 {
            let word = if counts.failed == counts.missing() { "failed" } else { "missing" };
            row.cells[MISSING] = ink.paint(Tone::Bad, &format!("{} {word}", count(counts.missing())));
        }
        row
    }

    /// Rows in columns. What does not fit is left out, the least important first.
    fn align(&mut self, rows: &[Row], width: usize) -> Vec<String> {
        self.widths.resize(COLUMNS, 0);
        for row in rows {
            for (widest, cell) in self.widths.iter_mut().zip(&row.cells) {
                // Columns only grow: a picture that jumps cannot be read.
                *widest = (*widest).max(cells(cell));
            }
        }
        let name = rows.iter().map(|row| cells(&row.name.1)).max().unwrap_or(0).min((width / 3).max(8));
        let mut shown: Vec<usize> = (0..COLUMNS).filter(|at| self.widths[*at] > 0).collect();
        let taken = |shown: &[usize]| 4 + name + shown.iter().map(|at| 2 + self.widths[*at]).sum::<usize>() + 1;
        let mut bar = 0;
        // With all columns a bar may be short; with a short bar the columns go one after the other.
        for dropped in std::iter::once(None).chain([WAITING, PACE, FLIGHT, REST].map(Some)) {
            shown.retain(|at| Some(*at) != dropped);
            let room = width.saturating_sub(taken(&shown) + 2);
            if room >= BAR.1 {
                bar = room.min(BAR.0);
                break;
            }
        }
        rows.iter().map(|row| self.line(row, name, bar, &shown)).collect()
    }

    fn line(&self, row: &Row, name: usize, bar: usize, shown: &[usize]) -> String {
        let mut text: String = row.name.1.chars().take(name).collect();
        if cells(&row.name.1) > name {
            text.pop();
            text.push('…');
        }
        let mut line =
            format!("  {} {}{}", row.mark, self.ink.paint(row.name.0, &text), " ".repeat(name - cells(&text)));
        if bar > 0 {
            line.push_str("  ");
            line.push_str(&self.bar(row, bar));
        }
        for at in shown {
            let pad = " ".repeat(self.widths[*at].saturating_sub(cells(&row.cells[*at])));
            line.push_str("  ");
            line.push_str(&pad);
            line.push_str(&row.cells[*at]);
        }
        line.trim_end().to_owned()
    }

    fn bar(&self, row: &Row, width: usize) -> String {
        let ink = self.ink;
        let empty = |n: usize| ink.paint(Tone::Faint, &"─".repeat(n));
        match row.bar {
            Bar::None => " ".repeat(width),
            Bar::Pulse(at) => {
                let long = width / 4;
                let from = at % (width - long + 1);
                let pulse = ink.paint(Tone::Busy, &"━".repeat(long));
                format!("{}{pulse}{}", empty(from), empty(width - long - from))
            }
            Bar::Parts { done, missing, all } => {
                let share = |n: u64| (u128::from(n) * width as u128 / u128::from(all.max(1))) as usize;
                let (all_done, good) = (share(done + missing).min(width), share(done).min(width));
                let tone = if row.state == State::Ended { Tone::Good } else { Tone::Busy };
                let (good, bad) = (ink.paint(tone, &"━".repeat(good)), "━".repeat(all_done - good));
                format!("{good}{}{}", ink.paint(Tone::Bad, &bad), empty(width - all_done))
            }
        }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        screen::clear();
    }
}

const DONE: usize = 0;
const PACE: usize = 1;
const REST: usize = 2;
const FLIGHT: usize = 3;
const WAITING: usize = 4;
const MISSING: usize = 5;
const COLUMNS: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Runs,
    Ended,
}

enum Bar {
    None,
    /// Goes on, nobody knows how far: a piece that wanders.
    Pulse(usize),
    Parts {
        done: u64,
        missing: u64,
        all: u64,
    },
}

struct Row {
    state: State,
    mark: String,
    name: (Tone, String),
    bar: Bar,
    cells: [String; COLUMNS],
}

/// So many rows that they fit: of the others, how many ended ones are above and how many are below.
fn fold(mut rows: Vec<Row>, room: usize) -> (Vec<Row>, usize, usize) {
    let room = room.max(1);
    let (mut above, mut below) = (0, 0);
    while rows.len() > room && rows.last().is_some_and(|row| row.state == State::Waits) {
        rows.pop();
        below += 1;
    }
    while rows.len() > room && rows.first().is_some_and(|row| row.state == State::Ended) {
        rows.remove(0);
        above += 1;
    }
    while rows.len() > room {
        rows.pop();
        below += 1;
    }
    (rows, above, below)
}

/// How fast a stage was of late.
#[derive(Default)]
struct Pace {
    samples: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// `done` items at this time of the run. A sample a second is enough.
    fn note(&mut self, at: Duration, done: u64) {
        while self.samples.len() > 1 && at.saturating_sub(self.samples[1].0) > WINDOW {
            self.samples.pop_front();
        }
        let recent =
            self.samples.len() > 1 && self.samples.back().is_some_and(|(before, _)| at.as_secs() == before.as_secs());
        if recent {
            self.samples.pop_back();
        }
        self.samples.push_back((at, done));
    }

    /// Items in a second; nothing while there is no telling.
    fn per_second(&self, stage: &StageProgress) -> Option<f64> {
        let done = stage.counts.settled();
        if stage.elapsed < Duration::from_secs(1) || done == 0 {
            return None;
        }
        let late = self.samples.front().zip(self.samples.back());
        let recent = late.map(|(first, last)| (last.1 - first.1.min(last.1), last.0.saturating_sub(first.0)));
        match recent {
            Some((n, time)) if n >= PACE_ITEMS && time >= Duration::from_secs(1) => Some(n as f64 / time.as_secs_f64()),
            _ => Some(done as f64 / stage.elapsed.as_secs_f64()),
        }
    }

    fn text(&self, stage: &StageProgress) -> String {
        let Some(pace) = self.per_second(stage) else { return String::new() };
        match pace {
            pace if pace >= 10.0 => format!("{}/s", count(pace.round() as u64)),
            pace if pace >= 1.0 => format!("{pace:.1}/s"),
            pace if pace * 60.0 >= 1.0 => format!("{:.0}/min", pace * 60.0),
            pace => format!("{:.0}/h", (pace * 3600.0).max(1.0)),
        }
    }

    /// How long the rest takes at this pace.
    fn rest(&self, stage: &StageProgress) -> Option<Duration> {
        let rest = stage.counts.items.saturating_sub(stage.counts.settled());
        if stage.source || stage.ended || !stage.total_known || rest == 0 {
            return None;
        }
        Duration::try_from_secs_f64(rest as f64 / self.per_second(stage)?).ok()
    }
}

/// Stages that are not shown.
fn stages(n: usize) -> String {
    if n == 1 { "1 more stage".to_owned() } else { format!("{n} more stages") }
}

fn spinner(elapsed: Duration) -> &'static str {
    const STEPS: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
    STEPS[(elapsed.as_millis() / 100) as usize % STEPS.len()]
}

/// Hours, minutes, seconds: `1:02:03`, `2:03`.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Cuts a line at the terminal's width; escape sequences take no place.
pub fn cut(line: &str, width: usize) -> String {
    let mut cut = String::new();
    let (mut used, mut escape) = (0, false);
    for c in line.chars() {
        if escape {
            escape = c != 'm';
        } else if c == '\x1b' {
            escape = true;
        } else if used + 1 >= width {
            if cut.contains('\x1b') {
                cut.push_str("\x1b[0m");
            }
            break;
        } else {
            used += 1;
        }
        cut.push(c);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamplighter::item::{Class, Counts, Outcome};

    fn stage(name: &str, items: u64, ok: u64, failed: u64) -> StageProgress {
        let mut counts = Counts { items, complete: true, ..Counts::default() };
        (0..ok).for_each(|_| counts.settle(Outcome::Ok, 1));
        (0..failed).for_each(|_| counts.settle(Outcome::Failed(Class::Timeout), 4));
        StageProgress {
            name: name.into(),
            source: false,
            counts,
            total_known: true,
            working: 32,
            waiting: 4,
            began: ok > 0,
            closed: false,
            ended: false,
            elapsed: Duration::from_secs(4),
        }
    }

    fn progress() -> Progress {
        let listed = StageProgress { source: true, ended: true, ..stage("patients", 1200, 1200, 0) };
        Progress {
            elapsed: Duration::from_secs(4),
            left: Some(Duration::from_secs(3600)),
            ending: false,
            stages: vec![listed, stage("vitals", 1200, 598, 2), stage("report", 0, 0, 0)],
        }
    }

    fn picture() -> Picture {
        Picture { ink: Ink::default(), paces: Vec::new(), widths: Vec::new(), size: (0, 0) }
    }

    #[test]
    fn stages_stand_in_columns() {
        assert_eq!(
            picture().frame("nightly", &progress(), (100, 24)),
            [
                "nightly  0:04  1:00:00 to the deadline",
                "  ✓ patients  ━━━━━━━━━━━━━━━━━━━━━      1,200",
                "  ⠋ vitals    ━━━━━━━━━━───────────  600/1,200  150/s  0:04 left  32 in flight  4 waiting  2 failed",
                "  · report",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_what_matters_most_stays() {
        for width in 20..140 {
            let frame = picture().frame("a-job-with-a-very-long-name", &progress(), (width, 24));
            assert!(frame.iter().all(|line| cells(line) < width), "{width}: {frame:#?}");
            assert!(frame[2].contains("600/1"), "{width}: {frame:#?}");
            if width >= 40 {
                assert!(frame[2].contains("2 failed"), "{width}: {frame:#?}");
            }
        }
    }

    #[test]
    fn more_stages_than_rows_are_folded_and_the_running_ones_stay() {
        let mut progress = progress();
        let done = StageProgress { ended: true, ..stage("done", 1, 1, 0) };
        progress.stages = (0..30).map(|_| done.clone()).collect();
        progress.stages.push(stage("now", 10, 5, 0));
        progress.stages.extend((0..30).map(|_| stage("later", 0, 0, 0)));
        let frame = picture().frame("big", &progress, (80, 10));
        assert!(frame.len() < 10, "{frame:#?}");
        assert!(frame.iter().any(|line| line.contains("now")), "{frame:#?}");
        assert!(frame.iter().any(|line| line.contains("25 more stages ended")), "{frame:#?}");
        assert!(frame.iter().any(|line| line.contains("30 more stages")), "{frame:#?}");
    }

    #[test]
    fn a_pace_that_misses_the_deadline_is_told() {
        let mut progress = progress();
        progress.left = Some(Duration::from_secs(2));
        let frame = picture().frame("nightly", &progress, (120, 24));
        assert_eq!(frame[0], "nightly  0:04  0:02 to the deadline: at this pace it ends 0:02 too late");
    }

    #[test]
    fn the_pace_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        for second in 0..60 {
            pace.note(Duration::from_secs(second), if second < 40 { second * 100 } else { 4000 + (second - 40) * 2 });
        }
        let stage = stage("slow", 9000, 4038, 0);
        assert_eq!(pace.text(&StageProgress { elapsed: Duration::from_secs(59), ..stage }), "2.0/s");
    }
}
