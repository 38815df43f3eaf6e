//! Swarms: one simulation under many seeds, shared out over tests so that all cores have work. `LAMPLIGHTER_SEED` runs one seed
//! alone.

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
        let only: Option<u64> = std::env::var("LAMPLIGHTER_SEED").ok().and_then(|text| text.parse().ok());
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
