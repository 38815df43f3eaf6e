//! What changes beside a `serve` that runs: its job folder, the zone of the machine, the data of zones.

use super::{ask, place, serve, stop};
use crate::util::{Going, Place, found, until};
use lamplighter::api::{Answer, Request};
use std::fs;

#[test]
fn a_job_folder_that_is_replaced_is_watched_again() {
    let place = place();
    let text = |words: &str| format!(r#"Job(description: "{words}", schedule: Manual, run: [Log(message: "x")])"#);
    let told = |words: &str| {
        let Some(Answer::Overview(overview)) = ask(&place, &Request::Overview) else { return false };
        let all = overview.jobs.iter().filter_map(|job| job.description.as_deref());
        all.collect::<Vec<_>>().contains(&words)
    };
    let serving = serve(&place);
    // Another one is moved into its place.
    place.write("next/other.ron", &text("moved"));
    fs::rename(place.path("jobs"), place.path("before")).expect("a rename");
    fs::rename(place.path("next"), place.path("jobs")).expect("a rename");
    until("the new one is read", || told("moved"));
    place.write("jobs/other.ron", &text("edited"));
    until("an edit in it is noticed", || told("edited"));
    // It is removed, and comes back later.
    fs::remove_dir_all(place.path("jobs")).expect("removed");
    place.write("jobs/other.ron", &text("back"));
    until("the next one is read", || told("back"));
    place.write("jobs/other.ron", &text("edited again"));
    until("an edit in it is noticed", || told("edited again"));
    // A link that leads elsewhere from now on.
    place.write("second/other.ron", &text("linked"));
    std::os::unix::fs::symlink(place.path("second"), place.path("link")).expect("a link");
    fs::rename(place.path("jobs"), place.path("third")).expect("a rename");
    fs::rename(place.path("link"), place.path("jobs")).expect("a rename");
    until("what it leads to is read", || told("linked"));
    stop(serving);
}

#[test]
fn a_filter_that_is_mended_is_read_again_wherever_the_mistake_stood() {
    let place = place();
    // What is wrong with it; nothing where nothing is, or nobody answers.
    let problem = || match ask(&place, &Request::Overview) {
        Some(Answer::Overview(overview)) => overview.jobs.into_iter().find(|status| status.job == "other")?.problem,
        _ => None,
    };
    let is_broken = |why: &str| problem().is_some_and(|problem| problem.contains(why));
    let is_good = || ask(&place, &Request::Overview).is_some() && problem().is_none();
    let bad = ".x | nothing_of_this_name";
    place.write("jobs/shared/filter.jq", bad);
    place.write(
        "jobs/other.ron",
        r#"Job(schedule: Manual, stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a"])]),
            Stage(name: "work", run: [Jq(file: "shared/filter.jq"), Jq(file: "shared/later.jq")]),
        ])"#,
    );
    let serving = serve(&place);
    until("one filter is bad, one is not there", || is_broken("shared/later.jq"));
    place.write("jobs/shared/later.jq", ".");
    place.write("jobs/shared/filter.jq", ".");
    until("its filters are good", is_good);
    // What it named is remembered while it cannot be read itself.
    let text = fs::read_to_string(place.path("jobs/other.ron")).expect("its file");
    place.write("jobs/other.ron", "Job(");
    until("it is bad", || is_broken(""));
    place.write("jobs/shared/filter.jq", bad);
    place.write("jobs/other.ron", &text);
    until("its filter is", || is_broken("nothing_of_this_name"));
    place.write("jobs/shared/filter.jq", ".");
    until("its filter is good again", is_good);
    stop(serving);
}

/// The data of a zone that never changes its offset.
fn zone(rule: &str, seconds: i32) -> Vec<u8> {
    let mut part = b"TZif2".to_vec();
    part.extend([0; 15]);
    // No transition, one type, its name of four bytes.
    [0_u32, 0, 0, 0, 1, 4].iter().for_each(|count| part.extend(count.to_be_bytes()));
    part.extend(seconds.to_be_bytes());
    part.extend([0, 0]);
    part.extend(b"ABC\0");
    [part.clone(), part, format!("\n{rule}\n").into_bytes()].concat()
}

#[test]
fn a_change_of_the_zone_or_of_its_data_plans_times_anew() {
    let place = Place::new();
    place.write("lamplighter.ron", "Config(clock: Trusted)");
    let timing = "schedule: Cron(\"30 2 * * *\"), run: [Log(message: \"x\")]";
    place.write("jobs/machine.ron", &format!("Job({timing})"));
    place.write("jobs/named.ron", &format!("Job(timezone: \"Test/Here\", {timing})"));
    place.write("jobs/deep.ron", &format!("Job(timezone: \"Test/Deep/Here\", {timing})"));
    let folder = place.path("zoneinfo/Test");
    fs::create_dir_all(folder.join("Deep")).expect("a folder");
    let write = |name: &str, data: Vec<u8>| {
        fs::write(place.path("new"), data).expect("written");
        fs::rename(place.path("new"), folder.join(name)).expect("renamed");
    };
    write("Here", zone("ABC0", 0));
    write("Deep/Here", zone("ABC0", 0));
    write("There", zone("ABC-5", 5 * 3600));
    let localtime = place.path("localtime");
    let link = |name: &str| {
        std::os::unix::fs::symlink(folder.join(name), place.path("link")).expect("a link");
        fs::rename(place.path("link"), &localtime).expect("renamed");
    };
    link("Here");
    let mut command = place.command(&["serve"]);
    let going = Going::start(command.env("TZDIR", place.path("zoneinfo")).env("TZ", &localtime));
    let next = |job: &str| match ask(&place, &Request::Overview) {
        Some(Answer::Overview(overview)) => overview.jobs.into_iter().find(|status| status.job == job)?.next,
        _ => None,
    };
    let has = |job: &str, time: &str| next(job).filter(|next| next.ends_with(time)).map(drop);
    for job in ["machine", "named", "deep"] {
        found("its time by the first zone", || has(job, "T02:30:00+00:00"));
    }
    link("There");
    found("the zone of the machine is another one", || has("machine", "T02:30:00+05:00"));
    assert_eq!(has("named", "T02:30:00+00:00"), Some(()), "what names its zone stays in it");
    write("Here", zone("ABC3", -3 * 3600));
    found("the data of a zone are new", || has("named", "T02:30:00-03:00"));
    assert_eq!(has("machine", "T02:30:00+05:00"), Some(()));
    // As those of America/Argentina are.
    write("Deep/Here", zone("ABC4", -4 * 3600));
    found("so are those of a deeper one", || has("deep", "T02:30:00-04:00"));
    stop(going);
}
