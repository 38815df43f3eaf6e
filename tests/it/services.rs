//! What stages share: a service with one place in flight.

use super::util::{Act, Place, Scripted};

#[test]
fn two_stages_that_share_one_place_in_flight_never_wait_for_each_other() {
    // The items of the first stage give many values each, so that its worker waits for room before the second stage while
    // items of both wait for the one place.
    let vendor = Scripted::start(|_| Act::Answer(200, "{}".into()));
    let place = Place::with_job(
        "two",
        &format!(
            r#"Job(
                deadline: "2m",
                services: [Service(name: "v", base: "{}", max_in_flight: 1)],
                stages: [
                    Stage(name: "list", run: [Jq(filter: "range(20)")]),
                    Stage(name: "a", workers: 1, waiting: 4, buffer: 1, run: [
                        Http(via: "v", get: "/a"),
                        Jq(filter: "range(20)"),
                    ]),
                    Stage(name: "b", workers: 1, waiting: 4, buffer: 1, run: [Http(via: "v", get: "/b")]),
                ],
            )"#,
            vendor.base
        ),
    );
    let record = place.run(&["run", "two", "--format", "json"]).exits(0).json();
    assert_eq!(record["stages"][2]["ok"], 400);
}

#[test]
fn a_report_that_does_not_end_is_killed_when_its_grace_is_over() {
    let place = Place::with_job(
        "late",
        r#"Job(
            deadline: "1s",
            stages: [
                Stage(name: "list", run: [Jq(filter: "1")]),
                Stage(name: "work", on_deadline: Continue, run: [Exec(argv: ["sleep", "100"])]),
                Stage(name: "report", gather: All, run: [Exec(sh: "trap '' TERM; while test -d ../jobs; do sleep 1; done")]),
            ],
        )"#,
    );
    place.write("lamplighter.ron", r#"Config(grace_period: "2s")"#);
    let record = place.run(&["run", "late", "--format", "json"]).exits(124).json();
    // How long that takes is held where there is no machine to be slow:
    // `engine::deadlines::the_report_has_until_the_end_of_the_grace_period_and_then_it_is_cut`.
    assert_eq!(record["stages"][2]["timed_out"], 1);
}
