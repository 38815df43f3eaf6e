//! Children that will not end, and processes that they leave behind.

use super::bench::{Night, skip};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A run of this script as the only child, with a grace period of 300 ms; `stage` are further fields of its stage.
fn script(script: &str, stage: &str) -> Night {
    let night = Night::of(&json!([{"k": "0"}]), &format!("{stage} run: [Exec(sh: {}, stdout: Text)]", json!(script)));
    fs::write(night.dir.path().join("lamplighter.ron"), r#"Config(grace_period: "300ms")"#).expect("a file");
    night
}

/// What does not end by itself: deaf to TERM, stopped, waiting for a child of its own, and both at once.
const OBSTINATE: [&str; 4] = [
    "trap '' TERM HUP INT; while test -d ../jobs; do sleep 0.05; done",
    "kill -STOP $$; sleep 1000",
    "sleep 1000 & wait",
    "trap '' TERM; sh -c 'trap \"\" TERM; kill -STOP $$' & kill -STOP $$",
];

/// Waits until the file `left` is there.
const UNTIL_LEFT: &str = "while ! test -e ../left; do sleep 0.02; done";

/// Faults 29 and 30.
#[test]
fn a_child_that_is_deaf_or_stopped_ends_with_each_of_its_bounds() {
    for text in OBSTINATE {
        script(text, "timeout: \"200ms\",").run().is(1, "failed").fails("0", "timeout the attempt worked longer");
        let ended = script(text, "item_deadline: \"200ms\",").run();
        assert_eq!((ended.code, ended.count("w", "timed_out")), (Some(1), 1), "{text}: {}", ended.record);
        let ended = script(text, "deadline: \"200ms\",").run();
        assert_eq!(ended.is(124, "deadline_exceeded").count("w", "timed_out"), 1, "{text}");
        let ended = script(text, "").run_with(&["--deadline", "2s"]);
        assert_eq!(ended.is(124, "deadline_exceeded").count("w", "timed_out"), 1, "{text}");
    }
}

/// Fault 33: in its own session, behind a daemon's double fork, deaf to TERM, stopped; with the pipe and without.
#[test]
fn what_leaves_its_group_is_ended_with_the_run_and_counted() {
    for text in [
        "setsid sh -c 'touch ../left; exec sleep 1000' >/dev/null 2>&1 & echo hi",
        "setsid sh -c 'touch ../left; exec sleep 1000' & echo hi",
        "(setsid sh -c 'sleep 1000 & touch ../left; sleep 1001' >/dev/null 2>&1 &) ; echo hi",
        "setsid sh -c 'trap \"\" TERM HUP; touch ../left; while test -d ../jobs; do sleep 0.1; done' >/dev/null 2>&1 & echo hi",
        "setsid sh -c 'touch ../left; kill -STOP $$' >/dev/null 2>&1 & echo hi",
        "setsid sh -c 'touch ../left; cd /; exec sleep 1000' >/dev/null 2>&1 & echo hi",
    ] {
        // The one that leaves has done so before the child ends.
        let ended = script(&format!("{text}; {UNTIL_LEFT}"), "").run();
        ended.is(0, "succeeded");
        assert!(ended.record["leaked"].as_u64() > Some(0), "{text}: {}", ended.record);
        assert!(ended.stderr.contains("leaked: "), "{text}: {}", ended.stderr);
    }
}

/// Fault 33, in a run that is cut: nothing that left its group outlives the deadline by more than the grace period.
#[test]
fn what_leaves_its_group_is_ended_with_a_run_that_is_cut() {
    for text in OBSTINATE {
        let text = format!("setsid sh -c {} & sleep 0.2; {text}", json!(text).to_string().replace('$', "\\$"));
        script(&text, "").run_with(&["--deadline", "2s"]).is(124, "deadline_exceeded");
    }
}

/// Faults 31 and 32: who holds the pipe, and who floods it, costs the item 200 ms or a second, and is counted.
#[test]
fn a_grandchild_that_holds_or_floods_the_pipe_is_counted_as_leaked() {
    let leaked = |text: &str| script(text, "").run().is(0, "succeeded").record["leaked"].clone();
    for text in ["sleep 1000 & echo hi", "yes >&2 & echo hi"] {
        assert_eq!(leaked(text), 1, "{text}");
    }
    // One that ends by itself in time is none; on a machine that is busy it may be late.
    assert!((0..20).any(|_| leaked("sleep 0.01 & echo hi") == 0), "who ends by itself is counted");
}

/// A cgroup that is delegated to whoever stands in it, as systemd does for a unit with `Delegate=yes`.
struct Delegated(PathBuf);

impl Delegated {
    /// `None` where there is none to be had: it needs root and version 2 with `cgroup.kill`.
    fn new(name: &str) -> Option<Delegated> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let path = Path::new(root).join(format!("lamplighter-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Delegated(path);
        let mark = rustix::fs::setxattr(&group.0, "user.delegate", b"1", rustix::fs::XattrFlags::empty());
        (mark.is_ok() && group.0.join("cgroup.kill").exists()).then_some(group)
    }

    fn processes(&self) -> String {
        fs::read_to_string(self.0.join("cgroup.procs")).expect("a list")
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let _ = fs::remove_dir(&self.0);
    }
}

/// Fault 33: in a delegated cgroup not even a process that took away the mark of its run outlives it.
#[test]
fn what_hides_from_its_run_is_killed_where_a_cgroup_is_delegated() {
    let Some(group) = Delegated::new("hides") else {
        return skip("to delegate a cgroup needs root, cgroups of version 2 and Linux 5.14");
    };
    for (text, leaked) in [
        ("env -i setsid sh -c 'touch ../left; cd /; exec sleep 1000' >/dev/null 2>&1 &", 1),
        ("env -i setsid sh -c 'trap \"\" TERM; sleep 1000 & touch ../left; cd /; kill -STOP $$' >/dev/null 2>&1 &", 2),
        ("touch ../left;", 0),
    ] {
        let mut night = script(&format!("{text} {UNTIL_LEFT}; echo hi"), "");
        night.before = format!("echo $$ > {}/cgroup.procs", group.0.display());
        let ended = night.run();
        assert_eq!(ended.is(0, "succeeded").record["leaked"], leaked, "{text}: {}", ended.stderr);
        assert_eq!(group.processes(), "", "{text}");
        let inside = fs::read_dir(&group.0).expect("a folder").flatten();
        assert_eq!(inside.filter(|entry| entry.path().is_dir()).count(), 0, "its cgroup is gone");
    }
}
