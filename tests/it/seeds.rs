//! Swarms: one simulation under many seeds, shared out over tests so that all cores have work. `LAMPLIGHTER_SEED` runs one seed
//! alone, `LAMPLIGHTER_BUG` plants one mistake alone.

#[cfg(feature = "plant")]
use lamplighter::world::plant::Bug;

/// The seed that the environment names, if any.
///
/// # Panics
/// When it is no number: a test that runs no seed would pass.
pub fn asked_for() -> Option<u64> {
    let text = std::env::var("LAMPLIGHTER_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("LAMPLIGHTER_SEED={text} is no seed: write a number")))
}

/// The planted mistakes that the environment names; all of them when it names none.
///
/// # Panics
/// When one has no such name: a test that plants nothing would pass.
#[cfg(feature = "plant")]
pub fn planted(all: &[Bug]) -> Vec<Bug> {
    let Ok(text) = std::env::var("LAMPLIGHTER_BUG") else { return all.to_vec() };
    let named = |name: &str| {
        let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        *bug.unwrap_or_else(|| panic!("LAMPLIGHTER_BUG={text}: there is no mistake {name:?}"))
    };
    text.split(',').map(named).filter(|bug| all.contains(bug)).collect()
}

/// A swarm.
pub struct Swarm {
    /// The module of its tests, as `cargo test` filters them.
    pub module: &'static str,
    /// Seeds in all.
    pub seeds: u64,
    /// Tests that share them.
    pub parts: u64,
    /// Neighbours that go to the same test.
    pub in_a_row: u64,
    /// Runs one; panics with the name of the oracle that was broken.
    pub seed: fn(u64),
}

impl Swarm {
    /// What was broken under a seed, if anything: the text begins with the name of the oracle.
    pub fn broken_by(&self, number: u64) -> Option<String> {
        let panic = std::panic::catch_unwind(|| (self.seed)(number)).err()?;
        let text = lamplighter::flow::panic_text(panic);
        Some(text.strip_prefix("oracle ").unwrap_or(&text).to_owned())
    }

    /// Runs the seeds of one part, or the one that the environment names.
    pub fn part(&self, part: u64) {
        let only = asked_for();
        let is_there = only.is_none_or(|only| only < self.seeds);
        assert!(is_there, "{} has {} seeds, from 0 on: there is none {only:?}", self.module, self.seeds);
        let is_of_part = |number: &u64| (number / self.in_a_row) % self.parts == part;
        let seeds = (0..self.seeds).filter(is_of_part).filter(|number| only.is_none_or(|only| only == *number));
        let found: Vec<(u64, String)> = seeds.filter_map(|number| Some((number, self.broken_by(number)?))).collect();
        for (number, what) in &found {
            let name = what.lines().next().unwrap_or_default();
            eprintln!("{name}\n    LAMPLIGHTER_SEED={number} cargo test --test it -- {}", self.module);
        }
        if let Some((_, what)) = found.first() {
            panic!("{} seeds, the first of them:\n{what}", found.len());
        }
    }
}

/// A test for each part of `SWARM`.
macro_rules! parts {
    ($($name:ident: $part:literal,)+) => {
        $(#[test]
        fn $name() {
            SWARM.part($part);
        })+
    };
}
pub(crate) use parts;
