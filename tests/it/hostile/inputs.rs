//! Files to read that are broken, huge, or no files at all.

use super::bench::Night;
use serde_json::json;
use std::{fs, os::unix::ffi::OsStrExt, os::unix::fs::symlink, path::Path};

fn csv(key: &str) -> Night {
    let source = format!(r#"Stage(name: "s", {key} run: [Read(csv: "rows.csv")])"#);
    let gather = r#"Stage(name: "g", gather: All, run: [Jq(filter: "[items]"), Write(json: "all.json")])"#;
    Night::new(&format!(r#"Job(stages: [{source}, Stage(name: "w", run: [Jq(filter: ".")]), {gather}])"#))
}

fn all(night: &Night) -> serde_json::Value {
    serde_json::from_str(&night.read("all.json")).expect("JSON")
}

#[test]
fn each_bad_row_of_a_csv_file_is_one_failed_item() {
    let night = csv(r#"key: "{{ item.id }}","#);
    let mut text =
        b"\xef\xbb\xbfid;name\r\na;x\r\nb;\"q\r\nuoted \"\"1\"\"\"\r\nc;y;z\r\n\r\nd\r\ne;\"bad\"x\r\nf;\xff\xfe\r\n"
            .to_vec();
    text.extend_from_slice(b"g;\0nul\r\na;again\r\n;none\r\n../x;climbs\r\n");
    text.extend_from_slice(format!("{};long\r\n\u{1b}[2J;steers\r\nx/y;path\r\nh;last", "k".repeat(300)).as_bytes());
    night.file("rows.csv", text);
    let ended = night.run();
    ended.is(1, "failed");
    assert_eq!((ended.count("s", "items"), ended.count("s", "ok"), ended.count("w", "ok")), (14, 6, 6));
    ended.fails("#3", "data rows.csv:5: 3 fields, the header has 2").fails("#4", "data rows.csv:7: 1 fields");
    ended.fails("#5", "data rows.csv:8: text stands behind a closing quote");
    ended.fails("#6", "data rows.csv:9: it is not UTF-8");
    ended.fails("a", "duplicate_key item 8 of the listing has the key `a` of item 1");
    ended.fails("#9", "data `key`: the key, or a part of it between `/`, is empty");
    ended.fails("#11", "a part of the key has more than 256 bytes").fails("#12", "control character");
    let names: Vec<_> = all(&night).as_array().expect("a list").iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["x", "q\r\nuoted \"1\"", "\0nul", "climbs", "path", "last"]);
}

#[test]
fn a_quote_that_is_never_closed_does_not_swallow_the_rest_in_silence() {
    let night = csv("");
    night.file("rows.csv", "id,name\na,1\nb,\"never\nc,2\nd,3\n");
    let ended = night.run();
    ended.is(1, "failed");
    assert_eq!((ended.count("s", "ok"), ended.complete("s")), (1, false));
    assert!(ended.reason().contains("line 3: a quote is opened and never closed"), "{}", ended.reason());
    // On the last line nothing can be lost.
    night.file("rows.csv", "id,name\na,1\nb,\"never\n");
    let ended = night.run();
    ended.is(1, "failed").fails("#2", "data rows.csv:3: a quote is opened and never closed");
    assert!(ended.complete("s"));
}

#[test]
fn a_file_without_a_usable_header_is_refused_before_anything_runs() {
    for (text, says) in [
        (&b""[..], "it has no header"),
        (b"\xef\xbb\xbf", "it has no header"),
        (b"id,id\n1,2\n", "two columns are named \"id\""),
        (b"id,\xff\na,x\n", "its header is not UTF-8"),
        (&[0; 1000], "its header has a NUL character"),
        (b"name\na\n", "`item` has no field `id`"),
    ] {
        let night = csv(r#"key: "{{ item.id }}","#);
        night.file("rows.csv", text);
        night.run().refused(says);
    }
}

#[test]
fn header_only_is_a_night_without_items_and_min_items_says_so() {
    let night = csv("");
    night.file("rows.csv", "id,name\n");
    night.run().is(0, "succeeded");
    assert_eq!(all(&night), json!([]));
    let night = csv("min_items: 1,");
    night.file("rows.csv", "id,name\n");
    let ended = night.run();
    assert!(ended.is(1, "failed").reason().contains("too_few_items"), "{}", ended.reason());
}

#[test]
fn a_row_of_fifty_megabytes_is_one_failed_item_in_flat_memory() {
    let mut night = csv("");
    night.before = "ulimit -v 400000".into();
    let mut text = b"id,name\na,".to_vec();
    text.resize(50_000_000, b'z');
    text.extend_from_slice(b"\nb,ok\n");
    night.file("rows.csv", text);
    let ended = night.run();
    ended.is(1, "failed").fails("#1", "too_large rows.csv:2: the row has more than 1000000 bytes");
    assert_eq!(all(&night), json!([{"id": "b", "name": "ok"}]));
}

#[test]
fn each_bad_line_of_ndjson_is_one_failed_item() {
    let gather = r#"Stage(name: "g", gather: All, run: [Jq(filter: "[items]"), Write(json: "all.json")])"#;
    let night = Night::new(&format!(r#"Job(stages: [Stage(name: "s", run: [Read(ndjson: "r")]), {gather}])"#));
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let texts = [r#"{"a":1}"#, r#"{"a":"#, "", "NaN", "1e999", "123456789012345678901234567890", r#"{"a":1,"a":2}"#];
    lines.extend(texts.map(|text| text.as_bytes().to_vec()));
    lines.extend([nested(10_000), nested(128), nested(120), r#""\ud800""#.into()].map(String::into_bytes));
    lines.push(b"\"\xff\"".to_vec());
    lines.push(b"\"last\"".to_vec());
    night.file("r", lines.join(&b'\n'));
    let ended = night.run();
    ended.is(1, "failed");
    assert_eq!((ended.count("s", "items"), ended.count("s", "ok")), (12, 5));
    ended.fails("#2", "data r:2: column 5: this is no JSON").fails("#3", "data r:4").fails("#4", "data r:5");
    ended.fails("#7", "data r:8: the value is nested deeper than 127 levels").fails("#8", "deeper than 127 levels");
    ended.fails("#10", "data r:11").fails("#11", "data r:12");
    assert_eq!(all(&night)[2], json!({"a": 2}));
}

#[test]
fn a_json_file_that_breaks_off_fails_the_listing_and_what_came_before_is_done() {
    for (text, ok, says) in [
        (r#"[1, {"a": tru}, 3]"#, 1, "line 1, column 10: this is no JSON"),
        ("[1,\n2, {\"a\"", 2, "line 2: the file ends inside its array"),
        ("[1,,2]", 1, "a value is missing"),
        ("[1, {]}, 2]", 1, "closes nothing"),
        ("[1] x", 1, "something stands behind the array"),
        ("", 0, "the file is empty"),
    ] {
        let worker = r#"Stage(name: "w", run: [Log(message: "x")])"#;
        let night = Night::new(&format!(r#"Job(stages: [Stage(name: "s", run: [Read(json: "r")]), {worker}])"#));
        night.file("r", text);
        let ended = night.run();
        assert!(ended.is(1, "failed").reason().contains(says), "{text}: {}", ended.reason());
        assert_eq!((ended.count("w", "ok"), ended.complete("s"), ended.complete("w")), (ok, false, false), "{text}");
    }
}

#[test]
fn an_element_that_is_too_deep_or_too_large_harms_only_itself() {
    let worker = r#"Stage(name: "w", run: [Log(message: "x")])"#;
    let night = Night::new(&format!(r#"Job(stages: [Stage(name: "s", run: [Read(json: "r")]), {worker}])"#));
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    night.file("r", format!("[1, {deep}, \"{}\", \"a]\\\"\", 2]", "x".repeat(2_000_000)));
    let ended = night.run();
    ended.is(1, "failed").fails("#2", "data r:1: the value is nested deeper than 127 levels");
    ended.fails("#3", "too_large");
    assert_eq!((ended.count("w", "ok"), ended.complete("s")), (3, true));
}

const LIST: &str = r#"Job(stages: [
    Stage(name: "s", run: [Read(glob: "PATTERN", digest: true)]),
    Stage(name: "g", gather: All, run: [Jq(filter: "[items.name]"), Write(json: "all.json")]),
])"#;

#[test]
fn a_folder_of_odd_names_is_listed_and_what_cannot_be_is_named() {
    for (pattern, more) in [("d/*.csv", 0), ("d/**/*.csv", 1)] {
        let night = Night::new(&LIST.replace("PATTERN", pattern));
        for name in ["a", "new\nline", " ", "-rf", ".hidden", "q\"'", "\u{1b}[2J", "sub/b"] {
            night.file(&format!("d/{name}.csv"), "x");
        }
        let folder = night.jobs().join("d");
        fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.csv")), "x").expect("a file");
        let fifo = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, folder.join("fifo.csv"), rustix::fs::FileType::Fifo, fifo, 0)
            .expect("fifo");
        fs::create_dir(folder.join("folder.csv")).expect("a folder");
        for (target, name) in [("loop.csv", "loop.csv"), (".", "self"), ("/nope", "lost.csv"), ("a.csv", "link.csv")] {
            symlink(target, folder.join(name)).expect("a symlink");
        }
        let ended = night.run();
        ended.is(1, "failed");
        assert_eq!((ended.count("s", "ok"), ended.count("s", "failed")), (7 + more, 3), "{pattern}");
        let failures = ended.record["failures"].to_string();
        for says in ["not UTF-8", "loop.csv: Too many levels", "lost.csv: No such file"] {
            assert!(failures.contains(says), "{says}: {failures}");
        }
    }
}

#[test]
fn a_pattern_that_fits_nothing_is_an_empty_night() {
    Night::new(&LIST.replace("PATTERN", "nothing/**/*.csv")).run().is(0, "succeeded");
    Night::new(&LIST.replace("PATTERN", "d/[*.csv")).run().refused("this pattern cannot be read");
}

#[test]
fn what_is_no_file_is_never_read() {
    let job = r#"Job(stages: [Stage(name: "s", run: [Read(lines: "f")]), Stage(name: "w", run: [Log(message: "x")])])"#;
    let night = Night::new(job);
    let path = night.jobs().join("f");
    night.run().refused("is not there");
    symlink("/dev/zero", &path).expect("a symlink");
    assert!(night.run().is(1, "failed").reason().contains("is no regular file"));
    fs::remove_file(&path).expect("removed");
    symlink("f", &path).expect("a symlink");
    night.run().refused("is not there");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    assert!(night.run().is(1, "failed").reason().contains("is no regular file"));
    if Path::new("/proc/self/mem").exists() {
        let night = Night::new(&job.replace("\"f\"", "\"/proc/self/mem\""));
        assert!(night.run().is(1, "failed").reason().contains("cannot read on in `/proc/self/mem`"));
    }
}

#[test]
fn a_file_that_one_item_names_and_that_is_not_there_fails_that_item() {
    let items = json!([{"k": "a"}, {"k": "b"}, {"k": "c"}]);
    let night =
        Night::of(&items, r#"run: [Read(lines: "{{ item.k }}.txt", into: "x"), Write(json: "{{ key }}.json")]"#);
    night.file("a.txt", "1\n2");
    night.file("c.txt", b"ok\n\xff");
    let ended = night.run();
    ended.is(1, "failed").fails("b", "listing cannot open").fails("c", "data c.txt:2: it is not UTF-8");
    assert_eq!(night.outputs(), ["a.json"]);
}
