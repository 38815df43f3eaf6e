//! `lamplighter demo`: nightly-vitals against a simulated vendor on this machine.

use super::{
    Format, Global,
    exit::Exit,
    run::{End, Start, follow, usage},
    runtime::{self, Signals},
    screen::{complain, ink, print},
    settings::Settings,
};
use async_executor::Executor;
use lamplighter::{
    action::Handlers,
    item::Value,
    job::{Job, JobSpec},
    lang::Secret,
    problem::{Source, load},
    report::{Look, Tone, classes, count, painted, title},
    vendor_sim::{DEMO_TOKEN, Faults, Options, bind},
};
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct DemoArguments {
    /// How many patients the vendor has
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=99_999))]
    patients: u32,
    /// Everything that the vendor decides follows from this
    #[arg(long, value_name = "S", default_value_t = 2026)]
    seed: u64,
    /// The night that is fetched: always the same one, so that two runs can be compared
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2026-11-22")]
    night: jiff::civil::Date,
    /// Patients worked on at once
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Factor of the vendor's latency; 0 for none
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    time_scale: f64,
    /// What goes wrong at the vendor: off, default, stats
    #[arg(long, default_value = "default")]
    faults: Faults,
    /// How the summary is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// The job and its files, compiled in.
const JOB: &str = include_str!("../../jobs/nightly-vitals.ron");
const SIDE_FILES: [(&str, &str); 3] = [
    ("assess.jq", include_str!("../../jobs/nightly-vitals/assess.jq")),
    ("summary.jq", include_str!("../../jobs/nightly-vitals/summary.jq")),
    ("report.html", include_str!("../../jobs/nightly-vitals/report.html")),
];

/// Runs the command.
pub fn main(global: &Global, arguments: &DemoArguments) -> Exit {
    let settings = match Settings::read(global) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let job = match job(arguments) {
        Ok(job) => Arc::new(job),
        Err(why) => {
            complain(&why);
            return Exit::Usage;
        }
    };
    let executor = Arc::new(Executor::new());
    let out = global.out.clone().unwrap_or_else(|| PathBuf::from("out"));
    let end =
        runtime::block_on(&executor.clone(), settings.threads(), night(executor, &settings, arguments, &job, &out));
    let end = match end {
        Ok(end) => end,
        Err(exit) => return exit,
    };
    let end = &end;
    let night = out.join(arguments.night.to_string());
    // A file of an earlier run says nothing about this one.
    let summary = end.record.outputs.iter().any(|output| output.path.ends_with("vitals.json"));
    let summary = summary.then(|| fs::read_to_string(night.join("vitals.json")).ok()).flatten();
    let summary = summary.and_then(|text| serde_json::from_str(&text).ok());
    let html = night.join("vitals.html");
    let printed = match arguments.format {
        Format::Json => print(&format!("{}\n", json(end, summary.as_ref(), &html))),
        Format::Human => print(&human(end, summary.as_ref(), &html)),
    };
    end.exit().after(printed)
}

/// The vendor and the run beside it.
async fn night(
    executor: Arc<Executor<'static>>,
    settings: &Settings,
    arguments: &DemoArguments,
    job: &Arc<Job>,
    out: &Path,
) -> Result<End, Exit> {
    let vendor = Options {
        seed: arguments.seed,
        patients: arguments.patients,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        time_scale: arguments.time_scale,
        faults: arguments.faults,
        ..Options::default()
    };
    let vendor = bind(executor.clone(), vendor).await.map_err(|error| {
        complain(&format!("the simulated vendor cannot start: {error}"));
        Exit::Usage
    })?;
    let address = vendor.address();
    let vendor = executor.spawn(vendor.run());
    let mut options = settings.run_options(job).map_err(usage)?;
    options.out = out.to_owned();
    options.due = Some(due(job, arguments.night)?);
    options.params.insert("vendor".into(), Value::String(format!("http://{address}")));
    options.secrets.insert("vendor_token".into(), Secret::new(DEMO_TOKEN));
    let mut signals = Signals::take()?;
    let end = follow(executor, job, options, Start::Unkept, &mut signals).await;
    vendor.cancel().await;
    end
}

/// 02:30 after the night, in the job's zone.
fn due(job: &Job, night: jiff::civil::Date) -> Result<jiff::Timestamp, Exit> {
    let due = night.tomorrow().and_then(|morning| morning.at(2, 30, 0, 0).to_zoned(job.zone.clone()));
    due.map(|due| due.timestamp()).map_err(|error| {
        complain(&format!("--night {night} has no morning: {error}"));
        Exit::Usage
    })
}

/// The job as it is compiled in, with as many workers as were asked for.
fn job(arguments: &DemoArguments) -> Result<Job, String> {
    let mut spec: JobSpec =
        load(&Source::new("nightly-vitals.ron", JOB)).map_err(|_| "the compiled-in job is broken")?;
    if let Some(workers) = arguments.workers {
        for stage in spec.stages.iter_mut().flatten().filter(|stage| stage.workers.is_some()) {
            stage.workers = Some(workers);
        }
        for service in spec.services.iter_mut().flatten() {
            service.max_in_flight = Some(workers);
        }
    }
    // The check reads side files from a folder: a private one, for as long as it takes.
    let folder = std::env::temp_dir().join(format!("lamplighter-demo-{}", std::process::id()));
    let files = folder.join("nightly-vitals");
    let written = fs::create_dir_all(&files)
        .and_then(|()| SIDE_FILES.iter().try_for_each(|(name, text)| fs::write(files.join(name), text)));
    let checked = written.map_err(|error| format!("{} cannot be written: {error}", files.display())).and_then(|()| {
        Job::new("nightly-vitals", &spec, &folder, &Handlers::new())
            .map_err(|problems| format!("the compiled-in job cannot run like that:\n{problems}"))
    });
    let _ = fs::remove_dir_all(&folder);
    checked.map(|checked| checked.job)
}

/// One number of the summary, or nothing where there is no report.
fn number(summary: Option<&Value>, name: &str) -> Option<u64> {
    summary?.get(name)?.as_u64()
}

fn listed(summary: Option<&Value>, name: &str) -> Option<u64> {
    summary?.get(name)?.as_array().map(|list| list.len() as u64)
}

fn human(end: &End, summary: Option<&Value>, html: &Path) -> String {
    let (record, ink) = (&end.record, ink(&std::io::stdout()));
    if summary.is_none() {
        return painted(record, Look { ink, ..Look::default() });
    }
    let mut text = title(record, Look { ink, ..Look::default() });
    text.push('\n');
    let mut line = |name: &str, tone: Option<Tone>, value: Option<String>| {
        let value = value.unwrap_or_else(|| "-".to_owned());
        let value = tone.filter(|_| value != "0").map_or(value.clone(), |tone| ink.paint(tone, &value));
        text.push_str(&format!("  {} {value}\n", ink.paint(Tone::Faint, &format!("{name:<13}"))));
    };
    line("patients", None, number(summary, "patients").map(count));
    line("reached", Some(Tone::Good), number(summary, "reached").map(count));
    line("no data", None, number(summary, "no_data").map(count));
    let failed = failed(end);
    let classes: Vec<String> = failed.iter().map(|(class, n)| format!("{} {class}", count(*n))).collect();
    let all = failed.values().sum::<u64>();
    let told = if all == 0 { "0".to_owned() } else { format!("{}: {}", count(all), classes.join(", ")) };
    line("failed", Some(Tone::Bad), Some(told));
    line("anomalies", Some(Tone::Warn), listed(summary, "anomalies").map(count));
    line("data quality", None, listed(summary, "data_quality").map(count));
    line("report", Some(Tone::Strong), summary.map(|_| html.display().to_string()));
    text
}

/// Missing items by class, of all stages.
fn failed(end: &End) -> BTreeMap<String, u64> {
    let mut failed = BTreeMap::new();
    for ((_, class), n) in classes(&end.record) {
        *failed.entry(class).or_default() += n;
    }
    failed
}

fn json(end: &End, summary: Option<&Value>, html: &Path) -> Value {
    serde_json::json!({
        "outcome": end.record.outcome.name(),
        "patients": number(summary, "patients"),
        "reached": number(summary, "reached"),
        "no_data": number(summary, "no_data"),
        "failed": failed(end),
        "anomalies": listed(summary, "anomalies"),
        "data_quality": listed(summary, "data_quality"),
        "report": summary.map(|_| html.display().to_string()),
        "run": serde_json::to_value(&end.record).unwrap_or_default(),
    })
}
