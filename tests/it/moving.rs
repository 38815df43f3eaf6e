//! Moving in from cron, making up for past days, and what is left of old ones; the files of `docs/` that make a service of
//! the program.

use super::{
    hostile::bench::{skip, there_is, with_no_word_of_the_clock},
    util::{Done, Going, PROGRAM, Place, finish, repository},
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use lamplighter::item::Value;
use std::{
    fs,
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

/// Makes jobs of this crontab.
fn moved(place: &Place, crontab: &str, arguments: &[&str]) -> Done {
    place.write("tab", crontab);
    let mut all = vec!["new", "--from-crontab", "tab"];
    all.extend(arguments);
    place.run(&all)
}

#[test]
fn every_line_becomes_a_job_that_says_the_same() {
    let place = Place::new();
    let crontab = r#"
# m h  dom mon dow   command
SHELL=/bin/sh
PATH = "/usr/bin:/bin"
MAILTO=ops@example.org, night@example.org
CRON_TZ=Europe/Berlin
RANDOM_DELAY=06

# Rotate the logs of the lab devices.
# Asked for by the lab.
10 3 * * * /usr/local/bin/rotate-lab-logs --keep 14
MAILTO=""
#0 5 * * 1 switched off
0~30 2 * * Mon-fri /bin/true
@daily cd /srv && ./poll.sh
@reboot /usr/bin/python3 /opt/collect.py 2>&1
@every 15m /bin/true
@fortnightly nohup /bin/true &
0 0 31 2 * /bin/never
"#;
    let done = moved(&place, crontab, &[]).exits(0);
    let written = |name: &str| place.read(&format!("jobs/{name}.ron"));
    let rotate = written("rotate-lab-logs");
    let home = std::env::var("HOME").map(|home| format!("            cwd: \"{home}\",\n")).unwrap_or_default();
    let expected = format!(
        r#"// From tab:11:
//     10 3 * * * /usr/local/bin/rotate-lab-logs --keep 14
Job(
    description: "Rotate the logs of the lab devices. Asked for by the lab.",
    schedule: Cron("10 3 * * *"),
    timezone: "Europe/Berlin",
    splay: "6m",
    // cron had none: say how long a run may take
    deadline: "24h",
    run: [
        Exec(
            sh: "/usr/local/bin/rotate-lab-logs --keep 14",
            env: {{"PATH": "/usr/bin:/bin"}},
{home}        ),
    ],
    // MAILTO: cron mailed all that was printed; this mails when a run has failed
    on_finish: [
        Notify(run: [Exec(argv: ["mail", "-s", "{{{{ run.summary }}}}", "ops@example.org", "night@example.org"], stdin: "{{{{ run.report }}}}")]),
    ],
)
"#
    );
    assert_eq!(rotate, expected);
    // What is above a line that is switched off is not its description, nor that of the next.
    assert!(!written("true").contains("description") && written("true").contains("on_finish: []"));
    assert!(written("true").contains(r#"Cron("H(0-30) 2 * * Mon-fri")"#));
    assert!(written("poll").contains(r#"Cron("@daily")"#) && written("poll").contains(r#"sh: "cd /srv && ./poll.sh""#));
    assert!(written("collect").contains("OnBoot("));
    assert!(written("true-2").contains(r#"Every("15m")"#));
    assert!(written("true-3").contains("schedule: Manual"));
    assert!(
        written("never")
            .contains("// Unlike there: this never fires: none of the months has such a day; it is due only when")
    );
    let done = done.says("tab:14: true: `0~30`").says("tab:18: true-3: @fortnightly is not known here");
    done.says("tab:18: true-3: what it leaves running in the background is ended with its run");
    assert!(written("true-3").contains("// Unlike there: @fortnightly is not known here"));
    let done = place.run(&["check"]).exits(0);
    assert!(done.stdout.contains("7 files, 0 errors"), "{}", done.stdout);
    // Nothing is written over.
    moved(&place, crontab, &[]).exits(2).says("is there already: nothing was written");
    place.write("jobs2/true-2.ron.off", "");
    moved(&place, crontab, &["--jobs", "jobs2"]).exits(2).says("true-2.ron.off is there already");
    assert!(!place.files().iter().any(|file| file.starts_with("jobs2/") && file.ends_with(".ron")));
}

#[test]
fn commands_do_what_they_did() {
    let place = Place::new();
    let out = place.path("said");
    let out = out.display();
    let crontab = format!(
        r#"HOME={home}
BRACES = "a {{{{ b }}}} {{% c %}}"
0 0 * * * cat >> {out}%one \% two%%{{{{ three }}}}
0 0 * * * echo "100\% of '{{{{ item.x }}}}'" "$BRACES" >> {out}; false; echo $unset after >> {out}; pwd >> {out}
SHELL=/bin/bash
0 0 * * * [[ -n "$BRACES" ]] && echo bash {{a,b}} {{#a >> {out}
"#,
        home = place.path("").display(),
    );
    moved(&place, &crontab, &[]).exits(0);
    place.run(&["check"]).exits(0);
    for job in ["cat", "echo", "echo-2"] {
        let code = if job == "cat" { 0 } else { i32::from(!place.path(&format!("jobs/{job}.ron")).exists()) };
        place.run(&["run", job, "--no-state"]).exits(code);
    }
    let home = fs::canonicalize(place.path("")).expect("a folder");
    let expected = format!(
        "one % two\n\n{{{{ three }}}}\n100% of '{{{{ item.x }}}}' a {{{{ b }}}} {{% c %}}\nafter\n{}\nbash a b {{#a\n",
        home.display()
    );
    assert_eq!(place.read("said"), expected);
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_written() {
    let place = Place::new();
    let crontab = "5 * * * * /bin/true\n61 * * * * x\n* * * *\n0 22-4 * * * y\n5 5 * * *\nCRON_TZ=Europe/Berln\n\
                   \u{e4} 0 0 * FOO * z\n@every x y\n0 0 * * * root /bin/true\nLAMPLIGHTER_X=1\n0 0 * * * %x\n";
    let done = moved(&place, crontab, &[]).exits(2);
    for line in [
        "tab:2:1: 61 is no minute",
        "tab:3:8: the line ends before",
        "tab:4:3: the range `22-4` runs backwards",
        "tab:5:10: the line ends before its command",
        "tab:6:1: CRON_TZ: there is no time zone",
        "tab:7:1: ",
        "tab:8:8: \"x\" is no duration",
        "tab:9:11: the command is `root`: a system crontab has a user before the command: say `--system`",
        "tab:10:1: the variable LAMPLIGHTER_X",
        "tab:11:13: the line ends before its command",
        "nothing was written",
    ] {
        assert!(done.stderr.contains(line), "no {line:?} in\n{}", done.stderr);
    }
    assert_eq!(place.files(), ["tab"]);
    place.run(&["new", "--from-crontab", "absent"]).exits(2).says("absent cannot be read");
    fs::write(place.path("latin"), b"0 0 * * * echo \xe9\n").expect("a file");
    place.run(&["new", "--from-crontab", "latin"]).exits(2).says("byte 15 is no UTF-8");
    moved(&place, "# nothing\n\n", &[]).exits(0).says("has no line that starts something");
    place.run(&["new"]).exits(2);
    place.run(&["new", "x", "--from-crontab", "tab"]).exits(2);
}

#[test]
fn a_line_of_another_user_is_switched_off() {
    let place = Place::new();
    let id = Command::new("id").arg("-un").output().expect("id starts");
    let me = String::from_utf8(id.stdout).expect("a name");
    let crontab = format!(
        "17 * * * * {} cd / && run-parts --report /etc/cron.hourly\n25 6 * * * nobody-here /bin/date\n",
        me.trim()
    );
    moved(&place, &crontab, &["--system"]).exits(0).says("tab:2: date: cron ran it as nobody-here");
    assert_eq!(place.files(), ["jobs/date.ron.off", "jobs/run-parts-cron-hourly.ron", "tab"]);
    place.run(&["check"]).exits(0).prints("ok");
    // By standard input.
    let mut command = place.command(&["new", "--from-crontab", "-", "--jobs", "piped", "--system"]);
    let done = finish(command.stdin(fs::File::open(place.path("tab")).expect("the file")));
    done.exits(0).prints("piped/run-parts-cron-hourly.ron is written");
}

/// The times of a crontab line by the manual: every minute of some days is looked at.
fn by_the_manual(line: &str, from: DateTime, minutes: i64) -> Vec<DateTime> {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let fields: Vec<&str> = line.split_whitespace().take(5).collect();
    let number = |text: &str| -> i64 {
        let name = NAMES.iter().position(|name| text.eq_ignore_ascii_case(name));
        name.map_or_else(|| text.parse().expect("a number"), |at| at as i64)
    };
    let matches = |field: &str, value: i64, last: i64| {
        field.split(',').any(|member| {
            let (range, step) = member.split_once('/').map_or((member, 1), |(range, step)| (range, number(step)));
            let (low, high) = match range.split_once('-') {
                _ if range == "*" => (if last == 31 || last == 12 { 1 } else { 0 }, last),
                Some((low, high)) => (number(low), number(high)),
                None => (number(range), if member.contains('/') { last } else { number(range) }),
            };
            (low..=high).contains(&value) && (value - low) % step == 0
        })
    };
    let is_due = |at: &DateTime| {
        let weekday = i64::from(at.weekday().to_sunday_zero_offset());
        let day = matches(fields[2], i64::from(at.day()), 31);
        let week = matches(fields[4], weekday, 6) || (weekday == 0 && matches(fields[4], 7, 7) && fields[4] != "*");
        // cron(8): where a field begins with a star it restricts together with the other, else either is enough.
        let both = fields[2].starts_with('*') || fields[4].starts_with('*');
        matches(fields[0], i64::from(at.minute()), 59)
            && matches(fields[1], i64::from(at.hour()), 23)
            && matches(fields[3], i64::from(at.month()), 12)
            && if both { day && week } else { day || week }
    };
    let every = (1..=minutes).map(|minute| from.checked_add(jiff::Span::new().minutes(minute)).expect("a time"));
    every.filter(is_due).collect()
}

#[test]
fn a_job_is_due_when_its_line_was() {
    const LINES: [&str; 11] = [
        "30 2 * * *",
        "*/7 3-5 * * *",
        "0 0 1,15 * mon",
        "0 12 13 * 5",
        "15 1 */2 * 1",
        "45 23 1-7 * */3",
        "5 4 * 12,1 sun",
        "10-50/20 22 * * 6,7",
        "0 6 31 * *",
        "1 1 * * 5-7",
        "59 23 29-31 1-3/2 *",
    ];
    let from: DateTime = "2026-11-23T00:00".parse().expect("a time");
    // Days without a change of the clocks in these zones: what those do is tested elsewhere.
    for zone in ["Europe/Berlin", "Asia/Shanghai", "America/St_Johns", "Australia/Lord_Howe"] {
        let place = Place::new();
        let lines = LINES.iter().enumerate().map(|(at, line)| format!("{line} /bin/job-{at}\n"));
        moved(&place, &format!("CRON_TZ={zone}\n{}", lines.collect::<String>()), &[]).exits(0);
        let zone = TimeZone::get(zone).expect("a zone");
        let begin = from.to_zoned(zone.clone()).expect("an instant").timestamp().to_string();
        let listed = place.run(&["next", "-n", "100", "--from", &begin, "--format", "json"]).exits(0).json();
        for (at, line) in LINES.iter().enumerate() {
            let name = format!("job-{at}");
            let of = listed.as_array().expect("a list").iter().filter(|next| next["job"] == *name);
            let found: Vec<DateTime> = of
                .map(|next| next["at"].as_str().expect("an instant").parse::<Timestamp>().expect("an instant"))
                .map(|at| at.to_zoned(zone.clone()).datetime())
                .collect();
            let expected = by_the_manual(line, from, 75 * 24 * 60);
            assert!(expected.len() > 1, "{line}");
            let length = found.len().min(expected.len());
            assert!(length > 1);
            assert_eq!(found[..length], expected[..length], "{line}");
        }
    }
}

/// Notes each day that it is run for; fails where there is a file `bad-DAY`.
const NIGHTLY: &str = r#"Job(
    schedule: Cron("30 2 * * *"),
    timezone: "Europe/Berlin",
    run: [Exec(sh: "echo $DAY >> ../days; test ! -e ../bad-$DAY", env: {"DAY": "{{ run.date }}"})],
)"#;

#[test]
fn the_firings_of_past_days_are_run_one_after_the_other() {
    let place = Place::with_job("nightly", NIGHTLY);
    place.write("bad-2026-03-28", "");
    // A day on which 02:30 does not exist is among them.
    let span = "2026-03-27..2026-03-30";
    let done = place.run(&["run", "nightly", "--due", span]).exits(1);
    let done = done.prints("4 firings: 4 ran (1 failed, 3 succeeded)").says("as if due 2026-03-29T03:00:00+02:00");
    assert_eq!(done.stdout.matches("nightly succeeded").count(), 3, "{}", done.stdout);
    assert_eq!(done.stderr.matches("stage ended").count(), 4, "{}", done.stderr);
    assert!(!done.stderr.contains("left out"), "each run has its own lines: {}", done.stderr);
    let days = "2026-03-27\n2026-03-28\n2026-03-29\n2026-03-30\n";
    assert_eq!(place.read("days"), days);
    fs::remove_file(place.path("bad-2026-03-28")).expect("removed");
    let done = place.run(&["run", "nightly", "--due", span]).exits(0);
    done.prints("4 firings: 1 ran (1 succeeded), 3 skipped: they had succeeded (`--again` runs them too)");
    assert_eq!(place.read("days"), format!("{days}2026-03-28\n"));
    place.run(&["run", "nightly", "--due", span]).exits(0).prints("4 firings: 0 ran, 4 skipped");
    let again =
        place.run(&["run", "nightly", "--due", "2026-03-27T02:30..2026-03-28T02:30", "--again", "--format", "json"]);
    let again = again.exits(0).says("2 firings: 2 ran (2 succeeded)");
    let records: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(records.len() == 2 && records.iter().all(|record| record["outcome"] == "succeeded"));
    let history = place.run(&["history", "nightly", "--format", "json"]).exits(0);
    assert_eq!(history.stdout.matches("\"manual\"").count(), 7, "{}", history.stdout);
}

#[test]
fn a_signal_ends_the_backfill_with_its_run() {
    let place = Place::with_job(
        "slow",
        r#"Job(schedule: Cron("0 1 * * *"), run: [Exec(sh: "echo begun >&2; while test -d ../jobs; do sleep 1; done")])"#,
    );
    let mut going =
        Going::start(place.command(&["run", "slow", "--due", "2026-03-01..2026-03-05"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("begun");
    going.signal(rustix::process::Signal::INT);
    going.end().exits(130).prints("5 firings: 1 ran (1 cancelled), 4 not begun");
}

#[test]
fn a_signal_between_two_firings_ends_the_backfill_too() {
    let place = Place::with_job("quick", r#"Job(schedule: Cron("0 1 * * *"), run: [Exec(argv: ["true"])])"#);
    // Nobody reads what is printed behind the first firing: that is where it stands.
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let full = rustix::pipe::fcntl_getpipe_size(&write).expect("its size");
    rustix::io::write(&write, &vec![b' '; full]).expect("it is filled");
    let mut command = place.command(&["run", "quick", "--due", "2026-03-01..2026-03-05"]);
    let mut going = Going::start_as_it_is(command.stdout(write).env("LAMPLIGHTER_LOG", "info"));
    drop(command);
    going.until_it_says("run ended");
    going.signal(rustix::process::Signal::INT);
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut fs::File::from(read), &mut printed).expect("all is read");
    going.end().exits(130);
    assert!(printed.contains("5 firings: 1 ran (1 succeeded), 4 not begun"), "{printed}");
}

/// Runs each half hour, also of the night whose hour from two to three comes twice.
#[test]
fn each_time_of_a_night_with_an_hour_twice_is_made_up_for_once() {
    let text = NIGHTLY.replace("30 2 * * *", "*/30 0-4 * * *").replace("{{ run.date }}", "{{ run.due }}");
    let place = Place::with_job("nightly", &text);
    let days = |span: &str| {
        let _ = fs::remove_file(place.path("days"));
        place.run(&["run", "nightly", "--due", span, "--no-state"]).exits(0);
        place.read("days").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = days("2025-10-26..2025-10-26");
    let mut once = whole.clone();
    once.sort();
    once.dedup();
    assert_eq!((whole.len(), once.len()), (12, 12), "{whole:?}");
    assert_eq!(days("2025-10-26..2025-10-26T02:30"), whole[..6], "an hour that comes twice is meant as its first");
}

#[test]
fn a_backfill_that_means_nothing_is_refused() {
    let place = Place::with_job("nightly", NIGHTLY);
    place.write("jobs/often.ron", r#"Job(schedule: Cron("* * * * *"), run: [Exec(argv: ["true"])])"#);
    place.write("jobs/rhythm.ron", r#"Job(schedule: Every("1h"), run: [Exec(argv: ["true"])])"#);
    let refused = |job: &str, span: &str, why: &str| drop(place.run(&["run", job, "--due", span]).exits(2).says(why));
    refused("rhythm", "2026-03-01..2026-03-02", "has no times of its own to go back to");
    refused("often", "2026-03-01..2026-03-02", "is due more than 1000 times");
    refused("nightly", "2026-03-02..2026-03-01", "write the earlier one first");
    refused("nightly", "2026-03-02..soon", "\"soon\" is no time");
    refused("nightly", "..", "\"\" is no time");
    place.run(&["run", "nightly", "--due", "2026-03-02", "--again"]).exits(2).says("`--again` goes with");
    place.run(&["run", "nightly", "--due", "2999-01-01..2999-01-03"]).exits(0).says("was not due in");
    assert!(!place.path("days").exists());
}

/// Writes a page into the folder of its date.
fn dated(keep_out: &str, schedule: &str) -> String {
    format!(
        r#"Job(schedule: {schedule}, timezone: "UTC", keep_out: "{keep_out}", stages: [
    Stage(name: "pages", key: "{{{{ item }}}}", run: [Items(list: ["a", "b"])]),
    Stage(name: "write", run: [Write(json: "{{{{ run.date }}}}/sub/{{{{ key }}}}.json")]),
    Stage(name: "report", gather: All, run: [Write(json: "{{{{ run.date }}}}/all.json")]),
])"#
    )
}

/// Makes what was written for a day as old as that.
fn age(place: &Place, day: &str, job: &str) {
    let then: Timestamp = format!("{day}T12:00:00Z").parse().expect("an instant");
    let seconds = then.as_second();
    let notes = format!("out/{day}/.lamplighter-wrote-{job}");
    let mut noted: Value = serde_json::from_str(&place.read(&notes)).expect("notes");
    for (path, note) in noted.as_object_mut().expect("an object") {
        let file = fs::File::options().write(true).open(place.path(&format!("out/{day}/{path}"))).expect("a file");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds as u64)).expect("a time");
        note[1] = seconds.into();
        note[2] = 0.into();
    }
    place.write(&notes, &noted.to_string());
}

#[test]
fn dated_folders_that_are_over_go_after_a_run() {
    for state in [&[][..], &["--no-state"]] {
        let place = Place::with_job("pages", &dated("30d", "Manual"));
        let run = |due: &str, more: &[&str]| {
            let mut all = vec!["run", "pages", "--due", due];
            all.extend(more);
            all.extend(state);
            place.run(&all).exits(0)
        };
        run("2020-01-01", &[]);
        run("2020-01-02", &[]);
        let wrote = ["sub/a.json", "sub/b.json", "all.json", ".lamplighter-wrote-pages"];
        let has = |day: &str| wrote.map(|file| place.path(&format!("out/{day}/{file}")).exists());
        // Backfilled a moment ago.
        assert_eq!([has("2020-01-01"), has("2020-01-02")], [[true; 4]; 2]);
        age(&place, "2020-01-01", "pages");
        age(&place, "2020-01-02", "pages");
        place.write("out/2020-01-02/by-hand", "");
        place.write("elsewhere/2020-01-01/x", "");
        // A trial takes nothing away.
        place.run(&["run", "pages", "--limit", "1"]).exits(0);
        place.run(&["run", "pages", "--dry-run"]).exits(0);
        assert_eq!([has("2020-01-01"), has("2020-01-02")], [[true; 4]; 2]);
        let done = finish(place.command(&["run", "pages"]).args(state).env("LAMPLIGHTER_LOG", "info")).exits(0);
        done.says("dated folders that are over were removed: 2, 2020-01-01 to 2020-01-02");
        assert!(!place.path("out/2020-01-01").exists());
        assert_eq!(has("2020-01-02"), [false; 4]);
        assert!(place.path("out/2020-01-02/by-hand").exists() && place.path("elsewhere/2020-01-01/x").exists());
    }
}

#[test]
fn the_daemon_removes_them_too_once_it_believes_its_clock() {
    for (clock, goes) in [("Trusted", true), ("WaitForSync(max_wait: \"1000d\")", false)] {
        let place = Place::with_job("pages", &dated("30d", "OnBoot(\"1s\")"));
        place.write("lamplighter.ron", &format!("Config(clock: {clock})"));
        place.write(
            "jobs/then.ron",
            r#"Job(schedule: After(job: "pages"), run: [Exec(sh: "echo the other has ended")])"#,
        );
        place.run(&["run", "pages", "--due", "2020-01-01"]).exits(0);
        age(&place, "2020-01-01", "pages");
        let Some(mut serve) = with_no_word_of_the_clock(&place.command(&["serve"])) else { return };
        let mut going = Going::start(serve.env("LAMPLIGHTER_LOG", "info"));
        going.until_it_says("the other has ended");
        going.signal(rustix::process::Signal::TERM);
        going.end().exits(0);
        assert_eq!(place.path("out/2020-01-01/all.json").exists(), !goes, "{clock}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = fs::read_to_string(repository("docs/systemd/lamplighter.service")).expect("the unit");
    for line in
        ["Type=notify", "KillMode=mixed", "Delegate=yes", "WatchdogSec=60", "DynamicUser=yes", "NoNewPrivileges=yes"]
    {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    let grace = lamplighter::limits::GRACE_PERIOD_DEFAULT + lamplighter::limits::LEFTOVER_UNKILLABLE_AFTER;
    assert!(value("TimeoutStopSec=").parse::<u64>().expect("seconds") > grace.as_secs());
    // The command is one that this program takes.
    let command: Vec<&str> = value("ExecStart=/usr/local/bin/lamplighter ").split(' ').collect();
    let place = Place::new();
    place.run(&[&command[..], &["--help"]].concat()).exits(0).prints("Start every job of the folder");
    if !there_is("systemd-analyze") {
        return skip("the unit needs `systemd-analyze`");
    }
    place.write("lamplighter.service", &unit.replace("/usr/local/bin/lamplighter", PROGRAM));
    let unit = place.path("lamplighter.service");
    let verified = finish(
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).env("SYSTEMD_LOG_LEVEL", "warning"),
    );
    let about: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("lamplighter.service")).collect();
    assert!(about.is_empty() && verified.code == 0, "{}", verified.stderr);
}

#[test]
fn the_scripts_are_ones_that_a_shell_takes() {
    for script in ["docs/openwrt/lamplighter.init", "docs/openwrt/ntpd-hotplug"] {
        let checked = finish(Command::new("sh").arg("-n").arg(repository(script)));
        assert!(checked.code == 0 && checked.stderr.is_empty(), "{script}: {}", checked.stderr);
    }
    // What the daemon looks for is what the hook leaves.
    let hook = fs::read_to_string(repository("docs/openwrt/ntpd-hotplug")).expect("the hook");
    assert!(hook.contains("/run/lamplighter/clock-synchronized"));
    let init = fs::read_to_string(repository("docs/openwrt/lamplighter.init")).expect("the script");
    let command =
        init.split("lamplighter serve").nth(1).and_then(|rest| rest.split("\n\tprocd").next()).expect("a command");
    let command: Vec<&str> =
        ["serve"].into_iter().chain(command.split_whitespace().filter(|word| *word != "\\")).collect();
    Place::new().run(&[&command[..], &["--help"]].concat()).exits(0);
}
