//! A job that polls and mostly finds nothing is one line of the history (RUNS S13).

use super::lab::{HOUR, Lab, MINUTE, lock};
use lamplighter::{
    daemon::Jobs,
    item::{RunOutcome, StoredRecord},
};

/// A job that is due every minute, and lists so many items.
fn poll(lab: &Lab, items: &str) {
    poll_with(lab, &format!("run: [Items(list: [{items}])]"), "");
}

/// The same with another listing, and more stages.
fn poll_with(lab: &Lab, listing: &str, stages: &str) {
    let text = format!(
        r#"Job(schedule: Every("1m"), timezone: "UTC", stages: [
            Stage(name: "list", key: "{{{{ item }}}}", {listing}),
            Stage(name: "work", run: [Call(handler: "work", args: {{"due": "", "after": "", "ms": 0}})]),
            {stages}
        ])"#
    );
    lab.desk.write("poll", &text);
    if let Err(problems) = lab.desk.load("poll") {
        panic!("{problems}");
    }
}

/// The runs of the job, the oldest first: for how many each stands, and since when.
fn folded(lab: &Lab) -> Vec<String> {
    let runs = lab.runs();
    lab.look(async |state| {
        let mut told = Vec::new();
        for head in runs {
            let details = state.details(&head.run).await.expect("it answers").expect("it is there");
            let stored: StoredRecord = serde_json::from_str(&details.record.expect("it has ended")).expect("a record");
            told.push(match stored.folded {
                Some(folded) => format!("{} x{}", super::lab::day(folded.first_ms), folded.runs),
                None => format!("{} alone", super::lab::day(head.started_ms)),
            });
        }
        told
    })
}

#[test]
fn polls_that_find_nothing_are_one_run_and_those_that_find_something_stay() {
    let mut lab = Lab::new(1);
    poll(&lab, "");
    lab.serve(async |p| p.until("2026-11-22T12:30:30Z").await);
    assert_eq!(folded(&lab), ["22 12:01 x30"]);
    // Another process goes on with it.
    lab.serve(async |p| p.until("2026-11-22T12:40:30Z").await);
    assert_eq!(folded(&lab), ["22 12:01 x40"]);
    poll(&lab, "\"a\"");
    lab.serve(async |p| p.until("2026-11-22T12:42:30Z").await);
    poll(&lab, "");
    lab.serve(async |p| {
        p.until("2026-11-22T12:50:30Z").await;
        // Started by hand: somebody wants to see what became of it.
        p.run("poll").await.expect("it runs");
        p.pass(5 * MINUTE).await;
    });
    let expected = ["22 12:01 x40", "22 12:41 alone", "22 12:42 alone", "22 12:43 x8", "22 12:50 alone", "22 12:51 x5"];
    assert_eq!(folded(&lab), expected);
}

#[test]
fn polls_far_apart_are_not_folded() {
    let mut lab = Lab::new(2);
    poll(&lab, "");
    lab.serve(async |p| p.until("2026-11-22T12:05:30Z").await);
    lab.down(2 * HOUR);
    lab.serve(async |p| p.pass(3 * MINUTE).await);
    let told = folded(&lab);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], "22 12:01 x5");
}

#[test]
fn a_poll_that_failed_or_wrote_something_stays_and_none_is_folded_across_it() {
    let mut lab = Lab::new(5);
    let out = tempfile::tempdir().expect("a folder");
    lock(&lab.desk.run_options).out = out.path().to_owned();
    poll(&lab, "");
    lab.serve(async |p| p.until("2026-11-22T12:02:30Z").await);
    poll_with(&lab, "min_items: 1, run: [Items(list: [])]", "");
    lab.serve(async |p| p.until("2026-11-22T12:03:30Z").await);
    poll(&lab, "");
    lab.serve(async |p| p.until("2026-11-22T12:05:30Z").await);
    poll_with(&lab, "run: [Items(list: [])]", r#"Stage(name: "end", gather: All, run: [Write(json: "end.json")])"#);
    lab.serve(async |p| p.until("2026-11-22T12:06:30Z").await);
    assert!(out.path().join("end.json").is_file());
    poll(&lab, "");
    lab.serve(async |p| p.until("2026-11-22T12:08:30Z").await);
    let expected = ["22 12:01 x2", "22 12:03 alone", "22 12:04 x2", "22 12:06 alone", "22 12:07 x2"];
    assert_eq!(folded(&lab), expected);
    let outcomes: Vec<Option<RunOutcome>> = lab.runs().into_iter().map(|head| head.outcome).collect();
    let failed = outcomes.iter().position(|outcome| *outcome != Some(RunOutcome::Succeeded));
    assert_eq!((failed, outcomes[1]), (Some(1), Some(RunOutcome::Failed)));
}

#[test]
fn a_job_that_does_its_work_where_others_list_is_never_folded() {
    let mut lab = Lab::new(3);
    let text =
        r#"Job(schedule: Every("1m"), timezone: "UTC", stages: [Stage(name: "all", run: [Log(message: "done")])])"#;
    lab.desk.write("poll", text);
    lab.serve(async |p| p.until("2026-11-22T12:03:30Z").await);
    let alone = ["22 12:01 alone", "22 12:02 alone", "22 12:03 alone"];
    assert_eq!(folded(&lab), alone);
    // Nor is one of several that may run at a time.
    let mut lab = Lab::new(3);
    poll(&lab, "");
    let text = lab.desk.text("poll").replace("stages:", "overlap: Allow(max: 2), stages:");
    lab.desk.write("poll", &text);
    lab.serve(async |p| p.until("2026-11-22T12:03:30Z").await);
    assert_eq!(folded(&lab), alone);
}

#[test]
fn a_poll_that_somebody_waits_for_stays() {
    let mut lab = Lab::new(4);
    poll(&lab, "");
    let waits = "blackout: [(\"12:00\", \"12:08\")], blackout_policy: Delay, overlap: Allow(max: 9)";
    lab.write("b", &format!("schedule: After(job: \"poll\"), {waits}"), MINUTE);
    lab.serve(async |p| p.until("2026-11-22T12:10:30Z").await);
    let after: Vec<String> = lab.effects().into_iter().map(|effect| effect.after).collect();
    assert!(after.len() >= 3 && after.iter().all(|after| after == "poll succeeded"), "{after:?}");
}

/// Eight are due, and a death takes none of them away and makes none twice: whatever of a run was on the disk, the next process
/// goes on with it or begins it.
#[test]
fn a_death_at_any_poll_counts_every_run_once() {
    for seed in 0..4 {
        let mut polls = 0;
        let mut is_dead = true;
        while is_dead {
            polls += 1;
            let mut lab = Lab::new(seed);
            poll(&lab, "");
            lab.serve(async |p| p.until("2026-11-22T12:03:30Z").await);
            is_dead = lab.serve_until_poll(polls, async |p| p.until("2026-11-22T12:05:30Z").await);
            lab.serve(async |p| p.until("2026-11-22T12:08:30Z").await);
            assert_eq!(folded(&lab), ["22 12:01 x8"], "seed {seed}, died at {polls}");
        }
        assert!(polls > 20, "seed {seed}: it could die at {polls} polls only");
    }
}
