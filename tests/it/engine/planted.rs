//! Mistakes planted in the engine, each of which the seeds must find; and that docs/PROOF.md names them all.
//!
//! The table of docs/PROOF.md: `cargo test --features plant --test it -- planted --nocapture`; one bug alone with
//! `LAMPLIGHTER_BUG=GatherEarly` before it.

use lamplighter::world::plant::Bug;

#[test]
fn the_page_of_the_proof_names_every_oracle_and_every_planted_bug() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROOF.md");
    let page = std::fs::read_to_string(path).expect("docs/PROOF.md is there");
    let bugs = Bug::ALL.iter().map(|bug| format!("`{bug:?}`"));
    let oracles = super::oracles::names().chain(super::restarts::ORACLES).map(|name| format!("`{name}`"));
    let of_the_daemon = crate::daemon::oracles::NAMES.iter().map(|name| format!("`{name}`"));
    let missing: Vec<String> =
        bugs.chain(oracles).chain(of_the_daemon).filter(|name| !page.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/PROOF.md does not name {missing:?}");
}

#[cfg(feature = "plant")]
#[test]
fn every_planted_bug_is_found() {
    use super::{restarts, swarm};
    use crate::daemon::swarm as daemon;
    use crate::seeds::planted;
    use lamplighter::world::plant::with;
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    // What only a power cut shows is found by `power`.
    let of_the_engine: Vec<Bug> = Bug::ALL.iter().filter(|bug| !Bug::OF_THE_DISK.contains(bug)).copied().collect();
    let bugs = planted(&of_the_engine);
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Option<(u64, String)>>> = Mutex::new(vec![None; bugs.len()]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = bugs.get(place) else { return };
                    let swarm = match bug {
                        bug if bug.is_of_the_daemon() => &daemon::SWARM,
                        bug if bug.is_of_what_is_kept() => &restarts::SWARM,
                        _ => &swarm::SWARM,
                    };
                    let seen = (0..swarm.seeds).find_map(|seed| Some((seed, with(*bug, || swarm.broken_by(seed))?)));
                    found.lock().expect("nobody panics")[place] = seen;
                }
            });
        }
    });
    let found = found.into_inner().expect("nobody panics");
    println!("| bug | what happens then | first seed | oracle |\n| --- | --- | --- | --- |");
    for (bug, found) in bugs.iter().zip(&found) {
        let (seed, oracle) = found.as_ref().map_or(("none".to_owned(), "none"), |(seed, what)| {
            (seed.to_string(), what.split(':').next().unwrap_or_default())
        });
        println!("| `{bug:?}` | {} | {seed} | `{oracle}` |", bug.what());
    }
    let missed = bugs.iter().zip(&found).filter(|(_, found)| found.is_none());
    let missed: Vec<&Bug> = missed.map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "no seed finds {missed:?}");
}
