//! Files with random slips: RON decides, and whatever it refuses is explained. Nothing panics.

use proptest::prelude::*;

use super::explain::explain;
use super::schema::Described;
use super::tests::{EXOTIC, GOOD, JobSpec, source};
use super::*;

/// Signs that an editor's slip may put in or leave out.
const SIGNS: [&str; 32] = [
    "", "\"", "'", "(", ")", "[", "]", "{", "}", ",", ":", "=", "#", "\\", "/", "*", "-", ".", "0", "9", "a", "Z", "_",
    " ", "\n", "r", "r#", "é", "\u{a0}", "“", ";", "//",
];

/// Whether the file is refused, and what the tolerant parser finds.
fn verdicts(text: &str) -> (bool, Vec<Problem>) {
    let refused = load::<JobSpec>(&source(text)).is_err();
    (refused, explain(text, JobSpec::shape()).problems)
}

/// A file with one slip: some bytes left out, some put in.
fn mutant(base: &str, at: usize, remove: usize, put: &str) -> String {
    let boundary = |at: usize| (0..=at.min(base.len())).rev().find(|at| base.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{put}{}", &base[..boundary(at)], &base[boundary(at + remove).max(boundary(at))..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_refused_is_always_explained(exotic: bool, at in 0..GOOD.len(), remove in 0..3usize, sign in 0..SIGNS.len()) {
        let text = mutant(if exotic { EXOTIC } else { GOOD }, at, remove, SIGNS[sign]);
        let (refused, problems) = verdicts(&text);
        prop_assert!(!refused || !problems.is_empty(), "nothing found in {text}");
    }

    #[test]
    fn nothing_makes_it_panic(pieces in proptest::collection::vec(0..SIGNS.len(), 0..60), at in 0..GOOD.len()) {
        let junk: String = pieces.into_iter().map(|piece| SIGNS[piece]).collect();
        for text in [mutant(GOOD, at, 0, &junk), junk.clone(), mutant(EXOTIC, 0, at, &junk)] {
            let source = source(&text);
            if let Err(problems) = load::<JobSpec>(&source) {
                prop_assert!(!problems.is_empty());
                render(&problems, &source, true);
            }
            locate_in_text(&source, &junk, 0..9);
        }
    }
}
