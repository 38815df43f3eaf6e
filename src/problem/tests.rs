//! What people who write job files are told: exact messages for a small job format declared as the real one is.

use super::explain::explain;
use super::schema::Described;
use super::*;
use crate::units::{Rate, Size, Span, Tolerance};
use crate::{choice, spec};

spec! {
    /// A job.
    pub struct JobSpec as "Job" {
        /// For people.
        description: Option<String>, example "\"Nightly copy\"";
        /// When it is due.
        schedule: Option<Schedule>, default "Manual", example "Cron(\"30 2 * * *\")";
        /// Of a run.
        deadline: Option<Span>, default "24h", example "\"20m\"";
        /// Any values.
        params: Option<UniqueMap<Json>>, example "{\"ids\": [1, 2]}";
        /// The stages.
        stages: Option<Vec<StageSpec>>, example "[Stage(..)]";
        /// What to do.
        run: Option<Vec<Action>>, example "[Exec(argv: [\"/bin/true\"])]";
    }
}
spec! {
    /// A stage.
    pub struct StageSpec as "Stage" {
        /// Unique in the job.
        name: String, example "\"vitals\"";
        /// Where items come from.
        from: Option<Vec<String>>, example "[\"patients\"]";
        /// Items worked on at once.
        workers: Option<u32>, default "1", example "32";
        /// What may be missing.
        tolerate: Option<Tolerance>, default "\"0\"", example "\"2%\"";
        /// Ends the run at once.
        fail_fast: Option<bool>, default "false", example "true";
        /// How often an interval grows.
        multiplier: Option<f64>, default "2", example "1.5";
        /// Limits.
        rate: Option<Vec<Rate>>, example "[\"100/min\"]";
        /// Most memory.
        memory: Option<Size>, example "\"64MB\"";
        /// What to do with items that are done.
        order: Option<Order>, default "Arrival", example "Input";
        /// From and to.
        window: Option<(String, u32)>, example "(\"02:00\", 4)";
        /// What to do.
        run: Vec<Action>, example "[Nap]";
    }
}
choice! {
    /// In which order.
    pub enum Order as "Order" {
        /// As they come.
        Arrival,
        /// As they came in.
        Input,
    }
}
choice! {
    /// When.
    pub enum Schedule as "Schedule" {
        /// Only by hand.
        Manual,
        /// By a cron expression.
        Cron(String) example "Cron(\"30 2 * * *\")",
        /// Again and again.
        Every(Span) example "Every(\"15m\")",
        /// After another job.
        After { AfterSpec } example "After(job: \"nightly\")",
        /// Several.
        AnyOf(Vec<Schedule>) example "AnyOf([Manual])",
    }
}
spec! {
    /// After.
    pub struct AfterSpec as "After" {
        /// Which job.
        job: String, example "\"nightly\"";
    }
}
choice! {
    /// What to do.
    pub enum Action as "Action" {
        /// Nothing.
        Nap,
        /// A command.
        Exec { ExecSpec } example "Exec(argv: [\"true\"])",
        /// A call.
        Http { HttpSpec } example "Http(get: \"/x\")",
        /// A filter.
        Jq { JqSpec } example "Jq(filter: \".\")",
    }
}
spec! {
    /// A command.
    pub struct ExecSpec as "Exec" {
        /// The words of the command.
        argv: Option<Vec<String>>, example "[\"/bin/ls\", \"-l\"]";
        /// Its environment.
        env: Option<UniqueMap<String>>, example "{\"TZ\": \"UTC\"}";
        /// Its folder.
        cwd: Option<String>, example "\"/tmp\"";
    }
}
spec! {
    /// A call.
    pub struct HttpSpec as "Http" {
        /// The path.
        get: String, example "\"/v1/items\"";
        /// How long.
        timeout: Option<Span>, example "\"5s\"";
    }
}
spec! {
    /// A filter.
    pub struct JqSpec as "Jq" {
        /// The filter.
        filter: String, example "\".items[]\"";
    }
}

pub(super) const GOOD: &str = r##"// A job.
Job(
    description: "Copy \"all\" of it",
    schedule: AnyOf([Cron("30 2 * * *"), Every("15m"), After(job: "x"), Manual]),
    deadline: "1h 30m",
    params: { "ids": [1, -2.5, 'c', None], "deep": (a: true, b: {"k": ("x", 1)}) },
    stages: [
        Stage(name: "list", from: [], workers: 4, tolerate: "2%", fail_fast: true, run: [
            Jq(filter: r#".a | test("\\d")"#), /* here */
            Nap,
        ]),
        Stage(name: "get", order: Input, multiplier: 1.5, rate: ["5/s"], memory: "64MB", window: ("2", 4),
            run: [Http(get: "/x", timeout: "5s"), Exec(argv: ["a", "b"], env: {"TZ": "UTC"}, cwd: "/tmp")]),
    ],
)
"##;

/// What RON accepts beside what we teach.
pub(super) const EXOTIC: &str = r###"/* a /* nested */ comment */
(
    schedule: Some(Every(r"15m",)), deadline: None, r#description: "\u{48}\x41\
        next", // end
    params: {"a": 0x1F, r#"b"#: -1_000, "c": [+1.5e3, .5, 1f32, 2u8, true, '\'', 'é'], "d": Some(None), "e": P(x: 1, r#y: 2),
             "f": (1, "two",), "g": {}, "h": []},
    stages: [(name: r##"a"#b"##, workers: Some(0b11), window: ("x", 1_0), run: [Exec(), Http( get : "x" ), Jq (filter: ""),],),],
) // the end"###;

pub(super) fn source(text: &str) -> Source {
    Source::new("a.ron", text)
}

/// Every problem as `line:column underlined | message | help`.
fn told(text: &str) -> Vec<String> {
    let source = source(text);
    let problems = load::<JobSpec>(&source).expect_err(text);
    let show = |p: &Problem| {
        let Position { line, column } = source.position(p.span.start);
        let shown = &source.text[p.span.clone()];
        format!("{line}:{column} {shown} | {} | {}", p.message, p.help.as_deref().unwrap_or("-"))
    };
    problems.iter().map(show).collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(told(text), expected, "{text}");
}

/// A job with one line in a stage's place.
fn in_stage(line: &str) -> String {
    format!("Job(stages: [Stage(name: \"a\", run: [Nap], {line})])")
}

#[test]
fn a_good_file_loads() {
    load::<JobSpec>(&source(EXOTIC)).expect("loads");
    let job = load::<JobSpec>(&source(GOOD)).expect("loads");
    assert_eq!(job.deadline.map(|span| span.to_string()).as_deref(), Some("1h 30m"));
    assert!(explain(GOOD, JobSpec::shape()).problems.is_empty());
}

#[test]
fn a_byte_order_mark_is_dropped() {
    assert!(load::<JobSpec>(&source("\u{feff}Job()")).is_ok());
    check(
        "\u{feff}Job(dedline: \"1h\")",
        &["1:5 dedline | `dedline` is not a field of `Job` | did you mean `deadline`?"],
    );
}

#[test]
fn some_and_none_are_read_as_ron_reads_them() {
    assert!(load::<JobSpec>(&source("Job(deadline: Some(\"1h\"), run: None)")).is_ok());
    check(
        "Job(run: [Http(get: Some(\"/x\"))], deadline: Some(\"1x\"))",
        &[
            "1:21 Some | `get` must be a text in quotes, not `Some(..)` | write the value itself, without `Some(..)`",
            "1:50 \"1x\" | `deadline`: \"x\" is no unit of time; write ms, s, m, h, d or w | write `deadline: \"20m\"`",
        ],
    );
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    check(
        "Job(\n  dedline: \"2x\",\n  schedule: Corn(\"x\"),\n  stages: [\n    Stage(run: [Http(timout: \"5s\")], workers: -1),\n    Stage(name: \"b\", name: \"c\", run: [Napp], tolerat: \"x\"),\n  ],\n)",
        &[
            "2:3 dedline | `dedline` is not a field of `Job` | did you mean `deadline`?",
            "2:12 \"2x\" | `deadline`: \"x\" is no unit of time; write ms, s, m, h, d or w | write `deadline: \"20m\"`",
            "3:13 Corn | `Corn` is not a kind of Schedule | did you mean `Cron`?",
            "5:5 Stage | `Stage` needs the field `name` | write `name: \"vitals\"`",
            "5:17 Http | `Http` needs the field `get` | write `get: \"/v1/items\"`",
            "5:22 timout | `timout` is not a field of `Http` | did you mean `timeout`?",
            "5:47 -1 | `workers` must be at least 0 | write `workers: 32`",
            "6:22 name | `name` is given twice | keep one of the two",
            "6:39 Napp | `Napp` is not a kind of Action | did you mean `Nap`?",
            "6:46 tolerat | `tolerat` is not a field of `Stage` | did you mean `tolerate`?",
            "6:55 \"x\" | `tolerate`: \"x\" is no count and no share; write a count such as \"5\" or a share such as \"2%\" | write `tolerate: \"2%\"`",
        ],
    );
}

#[test]
fn problems_say_their_path() {
    let text =
        "Job(params: {\"a b\": [NaN]}, stages: [Stage(name: \"a\", run: [Nap, Jq(filter: 5)], from: [\"x\", 3])])";
    let problems = load::<JobSpec>(&source(text)).expect_err("refused");
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["params[\"a b\"][0]", "stages[0].run[1].filter", "stages[0].from[1]"]);
}

#[test]
fn comments_of_other_languages() {
    check("# nightly\nJob()", &["1:1 # | `#` begins no comment here | begin a comment with `//`"]);
    check(
        "Job(\n  deadline: \"1h\", # an hour\n)",
        &["2:19 # | `#` begins no comment here | begin a comment with `//`"],
    );
    check("Job(/* x", &["1:5 /* | this comment is never closed | end it with `*/`"]);
    check(
        "#![enable(unwrap_newtypes)]\nJob()",
        &[
            "1:1 #![enable(unwrap_newtypes)] | job files have no `#!` lines | remove this line: everything that a job file needs is switched on",
        ],
    );
}

#[test]
fn single_quotes() {
    check(
        "Job(description: 'Copy it')",
        &["1:18 'Copy it' | a text stands in double quotes, not in single ones | write `description: \"Copy it\"`"],
    );
    check(
        "Job(run: [Exec(argv: ['ls', 'x y'])])",
        &[
            "1:23 'ls' | a text stands in double quotes, not in single ones | write `\"ls\"`",
            "1:29 'x y' | a text stands in double quotes, not in single ones | write `\"x y\"`",
        ],
    );
    check(
        "Job(params: {\"a\": 'two'})",
        &["1:19 'two' | a text stands in double quotes, not in single ones | write `\"a\": \"two\"`"],
    );
}

#[test]
fn typographic_quotes() {
    check(
        "Job(description: “Copy it”)",
        &[
            "1:18 “Copy it” | a text stands in double quotes, not in typographic ones | write `description: \"Copy it\"`",
        ],
    );
    check(
        "Job(description: „Copy“, deadline: ‘1h’)",
        &[
            "1:18 „Copy“ | a text stands in double quotes, not in typographic ones | write `description: \"Copy\"`",
            "1:36 ‘1h’ | a text stands in double quotes, not in typographic ones | write `deadline: \"1h\"`",
        ],
    );
    check(
        "Job(\n  description: \"Copy it”\n)",
        &["2:16 \"Copy it” | this text is never closed | end it with `\"`; the typographic quote in it does not count"],
    );
}

#[test]
fn odd_spaces_and_full_width_signs() {
    check(
        "Job(\n\u{a0}\u{a0}deadline: \"1h\",\n)",
        &["2:1 \u{a0}\u{a0} | there is a no-break space here | remove it, or write a plain space"],
    );
    check(
        "Job(deadline:\u{200b}\"1h\")",
        &["1:14 \u{200b} | there is an invisible character here | remove it, or write a plain space"],
    );
    check(
        "Job（deadline： \"1h\"，)",
        &[
            "1:4 （ | `（` is a full-width sign | write `(`",
            "1:13 ： | `：` is a full-width sign | write `:`",
            "1:19 ， | `，` is a full-width sign | write `,`",
        ],
    );
}

#[test]
fn wrong_brackets_and_wrong_case() {
    check(
        "Job{ deadline: \"1h\" }",
        &["1:4 { | `Job` takes round parentheses | write `Job(` … `)` instead of `Job{` … `}`"],
    );
    check(
        "{ \"deadline\": \"1x\" }",
        &[
            "1:1 { | `Job` takes round parentheses, not braces | write `Job(field: value)`, names without quotes",
            "1:15 \"1x\" | `deadline`: \"x\" is no unit of time; write ms, s, m, h, d or w | write `deadline: \"20m\"`",
        ],
    );
    check(
        "job(dedline: \"1h\")",
        &[
            "1:1 job | `job(..)` stands where `Job(..)` should | write `Job(..)`",
            "1:5 dedline | `dedline` is not a field of `Job` | did you mean `deadline`?",
        ],
    );
    check("Job(schedule: cron(\"x\"))", &["1:15 cron | `cron` is not a kind of Schedule | did you mean `Cron`?"]);
    check(
        "Job(run: [Exec[\"a\"]])",
        &[
            "1:15 [ | `Exec` takes round parentheses | write `Exec(` … `)` instead of `Exec[` … `]`",
            "1:16 \"a\" | a value of `Exec` has no name | write `field: value`; its fields are `argv`, `env` and `cwd`",
        ],
    );
    check(
        "Job(params: (a: 1))",
        &["1:13 ( | `params` must be a map, in braces | write `{\"name\": value}` with braces, and names in quotes"],
    );
    check(
        "Job(params: {a: 1, 2: 3})",
        &[
            "1:14 a | the names in a map stand in quotes | write `\"a\":`",
            "1:20 2 | the names in a map stand in quotes | write `\"2\":`",
        ],
    );
    check(
        "Job(stages: [Step(name: \"a\")])",
        &["1:14 Step | `Step(..)` stands where `Stage(..)` should | write `Stage(..)`"],
    );
}

#[test]
fn fields_as_in_json_yaml_and_toml() {
    check(
        "Job(\"description\": \"x\")",
        &["1:5 \"description\" | the name of a field stands without quotes | write `description:`"],
    );
    check("Job(description = \"x\")", &["1:17 = | `=` stands where a colon should | write `name: value`"]);
    check("Job(params: {\"a\" => 1})", &["1:18 => | `=>` stands where a colon should | write `name: value`"]);
    check(
        "Job(description: Copy all of it, deadline: \"1h\")",
        &["1:18 Copy all of it | `description` must stand in quotes | write `description: \"Copy all of it\"`"],
    );
    check("Job(deadline \"1h\")", &["1:5 deadline | a colon is missing after `deadline` | write `deadline: …`"]);
    check(
        "schedule: Cron(\"x\")\ndeadline: \"1h\"",
        &["1:1 schedule | the file does not begin with `Job(` | put all fields between `Job(` and `)`"],
    );
    check(
        "Job(deadline: , run: [Nap])",
        &["1:14  | a value is missing here | write a value, or remove the name before it"],
    );
    check("Job(deadline: \"1h\"; run: [Nap])", &["1:19 ; | `;` stands where a comma should | write `,`"]);
    check(
        "Job(params: [\"a\": 1])",
        &[
            "1:13 [ | `params` must be a map such as {\"key\": ..}, not a list | write `params: {\"ids\": [1, 2]}`",
            "1:17 : | `:` cannot stand here | a list has values only; names and values stand in `{\"name\": value}`",
        ],
    );
    check(
        "Job(run: [Http(get: http://x.y/z)])",
        &["1:21 http://x.y/z | `get` must stand in quotes | write `get: \"http://x.y/z\"`"],
    );
}

#[test]
fn a_forgotten_comma_is_shown_at_the_end_of_the_line_before() {
    check(
        "Job(\n  deadline: \"1h\"\n  run: [Nap Nap],\n  dscription: \"\",\n)",
        &[
            "2:17  | a comma is missing here | write `,` after it",
            "3:12  | a comma is missing here | write `,` after it",
            "4:3 dscription | `dscription` is not a field of `Job` | did you mean `description`?",
        ],
    );
    check("Job(run: [Exec(argv: [\"a\" \"b\"])])", &["1:26  | a comma is missing here | write `,` after it"]);
    check("Job(run: [Nap,, Nap])", &["1:15 , | there is one comma too many | remove it"]);
}

#[test]
fn texts_without_quotes() {
    check(
        "Job(schedule: Cron(30 2 * * *))",
        &["1:20 30 2 * * * | the value of `Cron` must stand in quotes | write `Cron(\"30 2 * * *\")`"],
    );
    check(
        "Job(schedule: Cron(*/5 0,12 * * MON))",
        &["1:20 */5 0,12 * * MON | the value of `Cron` must stand in quotes | write `Cron(\"*/5 0,12 * * MON\")`"],
    );
    check("Job(deadline: 20m)", &["1:15 20m | `deadline` must stand in quotes | write `deadline: \"20m\"`"]);
    check(
        "Job(deadline: 1h 30m, run: [Nap])",
        &["1:15 1h 30m | `deadline` must stand in quotes | write `deadline: \"1h 30m\"`"],
    );
    check(
        "Job(deadline: 20)",
        &["1:15 20 | `deadline` must stand in quotes | write `deadline: \"20s\"`, or with another unit"],
    );
    check(&in_stage("tolerate: 2%"), &["1:53 2% | `tolerate` must stand in quotes | write `tolerate: \"2%\"`"]);
    check(
        &in_stage("rate: [100/min]"),
        &["1:50 100/min | an element of `rate` must stand in quotes | write `\"100/min\"`"],
    );
    check(&in_stage("memory: 64MB"), &["1:51 64MB | `memory` must stand in quotes | write `memory: \"64MB\"`"]);
    check("Job(run: [Exec(cwd: /tmp/x)])", &["1:21 /tmp/x | `cwd` must stand in quotes | write `cwd: \"/tmp/x\"`"]);
    check(
        "Job(params: {\"a\": fast, \"b\": null, \"c\": 20m})",
        &[
            "1:19 fast | `fast` is no value | write `\"a\": \"fast\"`; `None` is nothing",
            "1:30 null | `null` is no value | write `None` for nothing",
            "1:41 20m | `20m` is neither a number nor a text in quotes | write `\"c\": \"20m\"`",
        ],
    );
}

#[test]
fn numbers_and_switches_in_quotes_and_other_mixups() {
    check(
        &in_stage("workers: \"4\""),
        &["1:52 \"4\" | `workers` must be a whole number, not a text | write `workers: 4`, without quotes"],
    );
    check(
        &in_stage("workers: \"many\""),
        &["1:52 \"many\" | `workers` must be a whole number, not a text | write `workers: 32`"],
    );
    check(&in_stage("workers: 4.5"), &["1:52 4.5 | `workers` must be a whole number, not 4.5 | write `workers: 32`"]);
    check(
        &in_stage("workers: 5000000000"),
        &["1:52 5000000000 | `workers` must be at most 4294967295 | write `workers: 32`"],
    );
    check(
        &in_stage("workers: 99999999999999999999"),
        &["1:52 99999999999999999999 | `workers` must be at most 4294967295 | write `workers: 32`"],
    );
    check(
        &in_stage("workers: four"),
        &["1:52 four | `workers` must be a whole number, not `four` | write `workers: 32`"],
    );
    check(
        &in_stage("multiplier: \"2\""),
        &["1:55 \"2\" | `multiplier` must be a number, not a text | write `multiplier: 2`, without quotes"],
    );
    check(
        &in_stage("multiplier: 2x"),
        &["1:55 2x | `multiplier` must be a number, not `2x` | write `multiplier: 1.5`"],
    );
    check(
        &in_stage("fail_fast: \"true\""),
        &["1:54 \"true\" | `fail_fast` must be true or false, not a text | write `fail_fast: true`, without quotes"],
    );
    check(
        &in_stage("fail_fast: yes"),
        &["1:54 yes | `fail_fast` must be true or false, not `yes` | write `fail_fast: true`"],
    );
    check(
        &in_stage("fail_fast: True"),
        &["1:54 True | `fail_fast` must be true or false, not `True` | write `fail_fast: true`"],
    );
    check(
        &in_stage("fail_fast: 0"),
        &["1:54 0 | `fail_fast` must be true or false, not the number 0 | write `fail_fast: false`"],
    );
    check(
        "Job(description: true)",
        &["1:18 true | `description` must stand in quotes | write `description: \"true\"`"],
    );
    check(
        &in_stage("window: (\"02:00\", \"4\")"),
        &["1:61 \"4\" | `window` must be a whole number, not a text | write `4`, without quotes"],
    );
    check(
        &in_stage("window: (\"02:00\")"),
        &["1:51 ( | `window` must be two values in parentheses, not 1 | write `window: (\"02:00\", 4)`"],
    );
}

#[test]
fn kinds_and_texts_mixed_up() {
    check(
        "Job(schedule: \"30 2 * * *\")",
        &[
            "1:15 \"30 2 * * *\" | `schedule` must be a kind of Schedule, not a text | write `schedule: Cron(\"30 2 * * *\")`",
        ],
    );
    check(
        "Job(schedule: \"15m\")",
        &["1:15 \"15m\" | `schedule` must be a kind of Schedule, not a text | write `schedule: Every(\"15m\")`"],
    );
    check(
        &in_stage("order: \"Input\""),
        &["1:50 \"Input\" | `order` must be a kind of Order, not a text | write `order: Input`"],
    );
    check(
        &in_stage("order: 5"),
        &["1:50 5 | `order` must be a kind of Order, not the number 5 | write one of `Arrival` and `Input`"],
    );
    check(
        "Job(schedule: [Cron(\"x\")])",
        &["1:15 [ | `schedule` must be a kind of Schedule, not a list | write `schedule: AnyOf([..])`"],
    );
    check(
        "Job(schedule: (\"x\"))",
        &[
            "1:15 ( | the kind of Schedule is missing before the parenthesis | write one of `Manual`, `Cron(..)`, `Every(..)`, `After(..)` and `AnyOf(..)`",
        ],
    );
    check(
        "Job(schedule: Lunar(\"x\"))",
        &[
            "1:15 Lunar | `Lunar` is not a kind of Schedule | write one of `Manual`, `Cron(..)`, `Every(..)`, `After(..)` and `AnyOf(..)`",
        ],
    );
}

#[test]
fn kinds_with_wrong_parentheses() {
    check("Job(schedule: Manual())", &["1:15 Manual | `Manual` is written without parentheses | write `Manual`"]);
    check("Job(schedule: Manual(\"x\"))", &["1:15 Manual | `Manual` takes no value | write `Manual`"]);
    check("Job(schedule: Cron)", &["1:15 Cron | `Cron` needs a value in parentheses | write `Cron(\"30 2 * * *\")`"]);
    check("Job(schedule: Cron())", &["1:15 Cron | `Cron` needs a value | write `Cron(\"30 2 * * *\")`"]);
    check(
        "Job(schedule: Cron(expr: \"x\"))",
        &["1:20 expr: \"x\" | `Cron(..)` takes a value, not fields | write `Cron(\"30 2 * * *\")`"],
    );
    check(
        "Job(schedule: After)",
        &["1:15 After | `After` needs its fields in parentheses | write `After(job: \"nightly\")`"],
    );
    check(
        "Job(schedule: After(\"x\"))",
        &[
            "1:15 After | `After` needs the field `job` | write `job: \"nightly\"`",
            "1:21 \"x\" | a value of `After` has no name | write `field: value`; its only field is `job`",
        ],
    );
    check(
        "Job(run: [Http((get: \"/x\", timout: \"5s\"))])",
        &[
            "1:16 ( | `Http` has one pair of parentheses too many | write `Http(field: value)` with one pair",
            "1:28 timout | `timout` is not a field of `Http` | did you mean `timeout`?",
        ],
    );
    check("Job", &["1:1 Job | `Job` needs its fields in parentheses | write `Job(..)`"]);
}

#[test]
fn one_element_without_brackets() {
    check(
        "Job(run: [Exec(argv: \"rsync -a x y\")])",
        &[
            "1:22 \"rsync -a x y\" | `argv` must be a list, also for one element | write `argv: [\"rsync\", \"-a\", \"x\", \"y\"]`",
        ],
    );
    check(
        "Job(run: Http(gt: \"x\"))",
        &[
            "1:10 Http | `run` must be a list, also for one element | write `run: [Http(..)]`",
            "1:15 gt | `gt` is not a field of `Http` | did you mean `get`?",
        ],
    );
    check("Job(run: Nap)", &["1:10 Nap | `run` must be a list, also for one element | write `run: [Nap]`"]);
    check(
        &in_stage("rate: \"100/min\""),
        &["1:49 \"100/min\" | `rate` must be a list, also for one element | write `rate: [\"100/min\"]`"],
    );
    check(
        &in_stage("from: patients"),
        &["1:49 patients | `from` must be a list, also for one element | write `from: [\"patients\"]`"],
    );
}

#[test]
fn escapes_that_mean_nothing() {
    check(
        r#"Job(run: [Jq(filter: "test(\"\d+\")")])"#,
        &[
            r###"1:30 \d | `\d` means nothing in a text | write the text as r#".."#, where a backslash is a backslash, or write `\\d`"###,
        ],
    );
}

#[test]
fn a_quote_left_open_is_shown_where_its_text_began() {
    check(
        "Job(\n  description: \"Copy,\n  deadline: \"1h\",\n  run: [Nap],\n)",
        &[
            "2:16 \"Copy, | this text does not end where it should | end it with `\"`; inside a text write a quote as `\\\"`, or the text as r#\"..\"#",
        ],
    );
    check(
        "Job(dedline: \"1h\", description: \"say \"hi\"\")",
        &[
            "1:5 dedline | `dedline` is not a field of `Job` | did you mean `deadline`?",
            "1:33 \"say \" | this text does not end where it should | end it with `\"`; inside a text write a quote as `\\\"`, or the text as r#\"..\"#",
        ],
    );
    check("Job(description: \"x)\n", &["1:18 \"x) | this text is never closed | end it with `\"`"]);
    check("Job(description: r#\"x\")", &["1:18 r#\"x\") | this text is never closed | end it with `\"#`"]);
}

#[test]
fn brackets_that_do_not_match() {
    check(
        "Job(\n  run: [Http(timeout: \"5x\", get: \"/x\"],\n)",
        &[
            "2:23 \"5x\" | `timeout`: \"x\" is no unit of time; write ms, s, m, h, d or w | write `timeout: \"5s\"`",
            "2:38 ] | `]` closes nothing here | write `)` first: `(` of line 2 is still open",
        ],
    );
    check(
        "Job(\n  stages: [Stage(run: [Nap])],\n",
        &[
            "1:4 ( | `Job(` is never closed | end it with `)`",
            "2:12 Stage | `Stage` needs the field `name` | write `name: \"vitals\"`",
        ],
    );
    check("Job())", &["1:6 ) | there is one `)` too many | a file holds one `Job(..)`; remove what follows it"]);
    check(
        "Job() Job()",
        &["1:7 J | nothing may stand after the end of `Job(..)` | a file holds one `Job(..)`; remove what follows it"],
    );
    check("", &["1:1  | the file is empty | write `Job(` … `)`"]);
    check("// nothing\n", &["2:1  | the file is empty | write `Job(` … `)`"]);
}

#[test]
fn keys_given_twice() {
    check(
        "Job(params: {\"a\": 1, \"a\": 2, \"b\": {\"c\": 1, \"c\": 2}})",
        &[
            "1:22 \"a\" | `a` is given twice | keep one of the two",
            "1:44 \"c\" | `c` is given twice | keep one of the two",
        ],
    );
}

#[test]
fn rules_of_ours_that_ron_does_not_know() {
    for text in ["inf", "NaN", "-inf", "1e999", "inff64"] {
        let problem = "`multiplier` must be finite | write `multiplier: 1.5`";
        check(&in_stage(&format!("multiplier: {text}")), &[&format!("1:55 {text} | {problem}")]);
    }
    assert!(load::<JobSpec>(&source(&in_stage("multiplier: 1e3"))).is_ok());
    check(
        "Job(description: \"a\\0b\")",
        &["1:18 \"a\\0b\" | there is a NUL character in this text | remove it: no command, file or service takes one"],
    );
    check(
        "Job(description: \"a\0b\")",
        &[
            "1:18 \"a\0b\" | there is a NUL character in this text | remove it: no command, file or service takes one",
            "1:20 \0 | there is a NUL character here | remove it",
        ][1..],
    );
    check(
        "Job(description: \"a\u{202e}b\")",
        &[
            "1:20 \u{202e} | there is an invisible character that turns the direction of writing here | remove it; in a text that needs it write `\\u{202e}`",
        ],
    );
    assert!(load::<JobSpec>(&source("Job(description: \"infer \\u{202e}\")")).is_ok());
}

#[test]
fn too_large_and_too_deep_files_are_refused() {
    let large = format!("Job(description: \"{}\")", "x".repeat(crate::limits::FILE_BYTES_MAX as usize));
    check(
        &large,
        &[
            "1:1  | the file has more than 1048576 bytes | move large data into a file of its own, and read it with `Read`",
        ],
    );
    for (open, close) in [("[", "]"), ("(a: ", ")"), ("{\"a\": ", "}"), ("Some(", ")")] {
        for depth in [128, 140, 20_000] {
            let text = format!("Job(params: {{\"x\": {}1{}}})", open.repeat(depth), close.repeat(depth));
            let told = told(&text);
            assert!(told.iter().all(|line| line.contains("this is nested too deeply")), "{told:?}");
        }
    }
}

#[test]
fn places_are_found_by_path() {
    let source = source(GOOD);
    for (path, shown) in [
        ("", "Job"),
        ("description", r#""Copy \"all\" of it""#),
        ("schedule", "AnyOf"),
        ("schedule[1]", "Every"),
        ("schedule[2].job", "\"x\""),
        ("stages", "["),
        ("stages[0]", "Stage"),
        ("stages[1].run[0].timeout", "\"5s\""),
        ("stages[1].run[1].argv[1]", "\"b\""),
        ("stages[1].run[1].env.TZ", "\"UTC\""),
        ("stages[1].run[1].env[\"TZ\"]", "\"UTC\""),
        ("stages[1].window[1]", "4"),
        ("params.deep.b.k[0]", "\"x\""),
        ("stages[1].workers", "Stage"),
        ("stages[7].name", "["),
        ("stages[0].run[1].filter", "Nap"),
        ("[[", "Job"),
    ] {
        assert_eq!(&GOOD[locate(&source, path)], shown, "{path}");
    }
    assert_eq!(&GOOD[locate_key(&source, "stages[0].workers")], "workers");
    assert_eq!(&GOOD[locate_key(&source, "stages[1].run[1].env.TZ")], "\"TZ\"");
    assert_eq!(&GOOD[locate_key(&source, "stages[0].run[1]")], "Nap");
    assert_eq!(locate(&self::source(""), "x"), 0..0);
}

#[test]
fn places_inside_a_text_are_found() {
    let source = source(GOOD);
    assert_eq!(&GOOD[locate_in_text(&source, "stages[0].run[0].filter", 5..9)], "test");
    assert_eq!(&GOOD[locate_in_text(&source, "description", 5..10)], r#"\"all\""#);
    assert_eq!(&GOOD[locate_in_text(&source, "stages[0].workers", 0..9)], "4");
    assert_eq!(locate_in_text(&source, "description", 900..999).len(), 0);
}

#[test]
fn a_missing_field_is_shown_at_its_group_with_its_file() {
    let source = source("Job(stages: [\n  Stage(run: []),\n])");
    let problems = load::<JobSpec>(&source).expect_err("refused");
    assert_eq!(
        render(&problems, &source, false),
        "\
error: `Stage` needs the field `name`
 --> a.ron:2:3
  |
2 |   Stage(run: []),
  |   ^^^^^
  |
  = help: write `name: \"vitals\"`

"
    );
}
