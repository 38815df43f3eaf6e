//! Any bytes as a job file: it is a job, or it is refused with a reason that can be shown.

#![no_main]

use lamplighter::{
    job::{Job, Surroundings},
    problem::{Level, Source, render, to_json},
};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("x.ron", String::from_utf8_lossy(bytes));
    // A folder that does not exist: what a file names beside it is never there.
    let (source, problems) = match Job::from_source("x", source, Path::new("/nowhere"), &Surroundings::default()) {
        Ok(checked) => (checked.source, checked.remarks),
        Err(problems) => {
            assert!(problems.problems.iter().any(|problem| problem.level == Level::Error), "refused without a reason");
            (problems.source, problems.problems)
        }
    };
    for problem in &problems {
        assert!(problem.span.start <= problem.span.end && problem.span.end <= source.text.len(), "{problem:?}");
        assert!(!problem.message.is_empty());
    }
    render(&problems, &source, true);
    to_json(&problems, &source);
});
