//! The sample jobs do what they say: on the simulated vendor, on real data, and when a branch fails.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched from real threads")]

use super::util::{Act, Done, Place, Scripted, Sim, repository};
use lamplighter::{item::Value, vendor_sim::decide::Script};
use std::{collections::BTreeSet, fs, thread};

const NIGHT: &str = "2026-11-22";

/// One night of the demo, and the bytes of its `vitals.json`.
fn night(patients: u32, workers: u32) -> (Done, String) {
    let place = Place::new();
    let (patients, workers) = (patients.to_string(), workers.to_string());
    let done = place.run(&[
        "demo",
        "--seed",
        "2026",
        "--night",
        NIGHT,
        "--time-scale",
        "0",
        "--patients",
        &patients,
        "--workers",
        &workers,
        "--format",
        "json",
    ]);
    let vitals = place.read(&format!("out/{NIGHT}/vitals.json"));
    (done, vitals)
}

fn keys(value: &Value, field: &str) -> Vec<String> {
    let list = value[field].as_array().unwrap_or_else(|| panic!("no list {field}"));
    list.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()).collect()
}

/// A night is what the vendor's script says, key by key.
fn is_the_truth(done: &Done, vitals: &str, patients: u32) {
    let truth = Script { seed: 2026, faults: true }.expected(NIGHT, patients, 4);
    let vitals: Value = serde_json::from_str(vitals).expect("JSON");
    assert_eq!(keys(&vitals, "failed"), truth.failed);
    assert_eq!(keys(&vitals, "anomalies"), truth.anomalous);
    assert_eq!(vitals["night"], NIGHT);
    assert_eq!(vitals["patients"], patients);
    assert_eq!(vitals["reached"], truth.outcome["ok"]);
    assert_eq!(vitals["no_data"], truth.no_data);
    let doubtful: BTreeSet<String> = keys(&vitals, "data_quality").into_iter().collect();
    assert!(truth.artefacts.iter().all(|key| doubtful.contains(key)), "artefacts are a matter of data quality");
    let summary = done.json();
    assert_eq!(summary["reached"], truth.outcome["ok"]);
    assert_eq!(summary["anomalies"], truth.anomalous.len());
    assert_eq!(summary["run"]["stages"][1]["failed"], truth.failed.len());
    assert_eq!(done.code, if truth.failed.is_empty() { 0 } else { 3 });
}

#[test]
fn nightly_vitals_tells_the_same_truth_at_any_number_of_workers() {
    let nights = [1, 32, 256].map(|workers| thread::spawn(move || night(600, workers)));
    let nights = nights.map(|night| night.join().expect("a night"));
    for (done, vitals) in &nights {
        is_the_truth(done, vitals, 600);
    }
    assert_eq!(nights[0].1, nights[1].1);
    assert_eq!(nights[0].1, nights[2].1);
}

/// Two minutes in a debug build: release builds have it, and `LAMPLIGHTER_TEST_5000=1` (`all`: with 1 and 256 workers too).
#[test]
fn nightly_vitals_of_5000_patients_is_what_the_reference_says() {
    let asked = std::env::var("LAMPLIGHTER_TEST_5000").unwrap_or_default();
    if cfg!(debug_assertions) && asked.is_empty() {
        return;
    }
    let text = fs::read_to_string(repository("tests/data/simulator/expected_2026_5000.json")).expect("the reference");
    let reference: Value = serde_json::from_str(&text).expect("JSON");
    let mut first = None;
    for workers in if asked == "all" { &[32, 1, 256][..] } else { &[32] } {
        let (done, vitals) = night(5000, *workers);
        is_the_truth(&done, &vitals, 5000);
        let read: Value = serde_json::from_str(&vitals).expect("JSON");
        assert_eq!(Value::from(keys(&read, "failed")), reference["failed"]);
        assert_eq!(Value::from(keys(&read, "anomalies")), reference["anomalous"]);
        assert_eq!(first.get_or_insert_with(|| vitals.clone()), &vitals, "{workers} workers");
    }
}

#[test]
fn every_sample_job_passes_the_check_without_a_remark() {
    let jobs = repository("jobs");
    let done = Place::new().run_with_token(&["check", "--strict", "--jobs", &jobs.to_string_lossy()]).exits(0);
    assert!(done.stdout.ends_with("0 errors, 0 remarks\n"), "{}", done.stdout);
    for name in
        ["batch-process", "epro-queue", "fitbit-night-by-night", "fitbit-nights", "nightly-vitals", "trial-report"]
    {
        assert!(done.stdout.contains(&format!("{name}.ron: ok")), "{}", done.stdout);
    }
}

/// Runs a sample job with outputs in the place.
fn sample(place: &Place, name: &str, arguments: &[&str]) -> Done {
    let jobs = repository("jobs");
    let jobs = jobs.to_string_lossy();
    let mut all = vec!["run", name, "--jobs", &jobs, "--out", "out", "--due", "2026-11-23", "--format", "json"];
    all.extend(arguments);
    place.run_with_token(&all)
}

#[test]
fn fitbit_nights_gives_the_reference_byte_for_byte() {
    let place = Place::new();
    let done = sample(&place, "fitbit-nights", &[]).exits(0);
    let reference = fs::read_to_string(repository("tests/data/fitbit_nights.csv")).expect("the reference");
    assert_eq!(place.read("out/fitbit-nights.csv"), reference);
    assert_eq!(done.json()["outputs_total"], 2);
    let page = place.read("out/fitbit-nights.html");
    assert!(page.contains("<svg") && page.contains("F08"));
    is_one_page(&page);
}

/// A report is one file: nothing is loaded from elsewhere, nothing runs.
fn is_one_page(page: &str) {
    for outside in ["<script", "<link", "src=\"http", "url(", "@import", "<iframe"] {
        assert!(!page.contains(outside), "{outside} in a report");
    }
    assert!(page.starts_with("<!doctype html>"), "{}", &page[..page.len().min(80)]);
}

#[test]
fn trial_report_compiles_both_branches() {
    let (place, sim) = (Place::new(), Sim::start(150, &[]));
    let done = sample(&place, "trial-report", &["--set", &sim.set()]).exits(0);
    let report: Value = serde_json::from_str(&place.read("out/2026-11-22/trial-report.json")).expect("JSON");
    assert_eq!(report["zone"], "Europe/Berlin");
    assert_eq!(report["population"]["patients"], 150);
    assert_eq!(report["site"]["patients"], done.json()["stages"][1]["items"]);
    assert!(report["difference"].is_number(), "{report}");
    is_one_page(&place.read("out/2026-11-22/trial-report.html"));
}

#[test]
fn trial_report_of_a_vendor_without_statistics_fails_and_writes_nothing() {
    let (place, sim) = (Place::new(), Sim::start(150, &["--faults", "stats"]));
    let done = sample(&place, "trial-report", &["--set", &sim.set()]).exits(1);
    assert_eq!(done.json()["outcome"], "failed");
    assert!(done.json()["reason"].as_str().is_some_and(|why| why.contains("`statistics`")), "{}", done.stdout);
    assert_eq!(done.json()["outputs_total"], 0);
    assert_eq!(place.files(), [""; 0]);
}

/// Two patients of the site, and a vendor that does `act` where it is asked for nights or statistics.
fn vendor(nights: Act, statistics: Act) -> Scripted {
    let patient = |n: u32| format!(r#"{{"id":"P{n}","tz":"Europe/Berlin","hr_base":60,"hr_mad":2}}"#);
    let list = format!(r#"{{"data":[{},{}],"next_cursor":null}}"#, patient(1), patient(2));
    Scripted::start(move |path| match path {
        "/v1/patients" => Act::Answer(200, list.clone()),
        "/v1/statistics" => statistics.clone(),
        _ => nights.clone(),
    })
}

#[test]
fn statistics_that_fail_cancel_the_nights_at_once() {
    let place = Place::new();
    let vendor = vendor(Act::Silence, Act::Answer(500, "{}".into()));
    let done = sample(&place, "trial-report", &["--set", &format!("vendor={}", vendor.base)]).exits(1);
    let record = done.json();
    assert_eq!(record["outcome"], "failed");
    let why = "the listing of stage `statistics` failed: http_500: GET /v1/statistics answered 500 (fail_fast)";
    assert_eq!(record["reason"], why);
    assert_eq!(record["stages"][1]["cancelled"], 2, "{record}");
    assert_eq!(record["stages"][2]["complete"], false, "{record}");
    assert_eq!(vendor.requests("/v1/statistics"), 4);
    // The connections that hung are closed.
    assert!(vendor.next_closed().ends_with("/vitals"));
    assert!(vendor.next_closed().ends_with("/vitals"));
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn nights_that_fail_cancel_the_statistics_at_once() {
    let place = Place::new();
    let vendor = vendor(Act::Answer(404, "{}".into()), Act::Silence);
    let done = sample(&place, "trial-report", &["--set", &format!("vendor={}", vendor.base)]).exits(1);
    let record = done.json();
    assert_eq!(record["outcome"], "failed");
    let why = "stage `vitals` misses more than it tolerates (fail_fast); first: P";
    assert!(record["reason"].as_str().is_some_and(|reason| reason.starts_with(why)), "{record}");
    assert_eq!(record["stages"][2]["failed"], 0, "{record}");
    assert_eq!(vendor.next_closed(), "/v1/statistics");
    assert_eq!(record["outputs_total"], 0);
}

#[test]
fn batch_process_works_on_the_given_ids_and_tells_who_is_missing() {
    let (place, sim) = (Place::new(), Sim::start(50, &["--faults", "off"]));
    let ids = r#"ids=["P00001","P00002","P00001","P99999","P00003"]"#;
    let done = sample(&place, "batch-process", &["--set", &sim.set(), "--set", ids]).exits(1);
    let record = done.json();
    assert_eq!(record["outcome"], "failed");
    let failures = record["failures"].as_array().expect("a list");
    let told: Vec<_> = failures.iter().map(|failure| (&failure["stage"], &failure["key"], &failure["class"])).collect();
    assert_eq!(told.len(), 2, "{record}");
    assert_eq!(told[0], (&"ids".into(), &"P00001".into(), &"duplicate_key".into()));
    assert_eq!(told[1], (&"process".into(), &"P99999".into(), &"http_404".into()));
    let outcome: Value = serde_json::from_str(&place.read("out/2026-11-23/batch-process.json")).expect("JSON");
    assert_eq!(outcome["asked"], 5);
    let done: Vec<&str> =
        outcome["done"].as_array().expect("a list").iter().filter_map(|one| one["id"].as_str()).collect();
    let without = outcome["no_data"].as_u64().expect("a number") as usize;
    assert_eq!(done.len() + without, 3, "{outcome}");
    assert_eq!(keys(&outcome, "missing"), ["P00001", "P99999"]);

    let good = sample(&place, "batch-process", &["--set", &sim.set()]).exits(0);
    assert_eq!(good.json()["stages"][0]["items"], 8);
}
