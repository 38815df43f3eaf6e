//! What must hold of a state and its outputs after a power cut.

use super::{
    disk::Image,
    trace::{Event, Recording},
};
use futures_lite::future::block_on;
use lamplighter::store::{
    State,
    sqlite::{Sqlite, StateOptions},
};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
};

/// The folder of the state and that of the outputs below the root. Neither stands directly in it.
pub const STATE: &str = "var/state";
pub const OUT: &str = "var/out/nights";

/// All that a state knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of every row of every table; `None` when there is no state.
    pub digest: Option<String>,
    pub begun: u64,
    pub ended: u64,
    /// Terminal rows by run and stage.
    pub settled: BTreeMap<(i64, u16), u64>,
    /// Files that it calls written, with their hashes.
    pub outputs: Vec<(String, String)>,
}

/// What was seen while it was recorded.
pub struct Story {
    /// What was committed, in order.
    states: Vec<Seen>,
    /// By event: the last of `states` that was called done before, and the last that may be on the disk.
    bounds: Vec<(usize, usize)>,
    /// Whole files that had a name, in order, with the number of the event.
    versions: BTreeMap<String, Vec<(usize, Vec<u8>)>>,
}

impl Story {
    /// Looks at what every process saw whenever something was committed. `scratch` is a folder of its own.
    pub fn of(recording: &Recording, scratch: &Path) -> Story {
        let mut disk = recording.base.clone();
        let look = |image: Image| Seen::of(&image, scratch).unwrap_or_else(|error| panic!("{error}"));
        let mut states = vec![look(disk.now())];
        let mut versions: BTreeMap<String, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        for (path, bytes) in disk.now().below(OUT) {
            versions.entry(path.to_owned()).or_default().push((0, bytes.to_owned()));
        }
        let (mut acknowledged, mut bounds) = (0, Vec::new());
        for (number, event) in recording.events.iter().enumerate() {
            disk.apply(number, event);
            let of_the_state = |path: &String| path.starts_with(STATE) && !path.contains("/epochs/");
            let is_told = match event {
                Event::Acknowledged | Event::Ended => true,
                Event::Rename(_, path) | Event::Remove(path) => of_the_state(path),
                _ => false,
            };
            if is_told {
                let seen = look(disk.now());
                if states.last() != Some(&seen) {
                    states.push(seen);
                }
                // Until here what comes next may have been on the disk.
                bounds.resize(number, (acknowledged, states.len() - 1));
            }
            if *event == Event::Acknowledged {
                acknowledged = states.len() - 1;
            }
            if let Event::Rename(_, path) = event
                && let Some(name) = path.strip_prefix(OUT).and_then(|path| path.strip_prefix('/'))
            {
                let bytes = disk.now().files[path].clone();
                versions.entry(name.to_owned()).or_default().push((number, bytes));
            }
        }
        bounds.resize(recording.events.len(), (acknowledged, states.len() - 1));
        Story { states, bounds, versions }
    }

    /// What had been called done when event `number` was over, and what may be on the disk.
    pub fn bounds(&self, number: usize) -> RangeInclusive<usize> {
        let (from, to) = self.bounds[number];
        from..=to
    }

    /// The last thing that was called done when event `number` was over.
    pub fn acknowledged(&self, number: usize) -> &Seen {
        &self.states[self.bounds[number].0]
    }

    /// How many states there were.
    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// Which of the states that there were an image holds. `scratch` is a folder of its own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, image: &Image, scratch: &Path) -> Result<BTreeSet<usize>, String> {
        let seen = Seen::of(image, scratch)?;
        open_as_we_do(&seen, image, scratch)?;
        let same = |(place, state): (usize, &Seen)| (state.digest == seen.digest).then_some(place);
        let which: BTreeSet<usize> = self.states.iter().enumerate().filter_map(same).collect();
        if which.is_empty() {
            return Err(format!("the state is none that there was: {} runs, {:?}", seen.begun, seen.settled));
        }
        for (path, bytes) in image.below(OUT) {
            let is_temporary = path.rsplit('/').next().is_some_and(|name| name.starts_with(".lamplighter-"));
            let versions = self.versions.get(path).map_or(&[][..], Vec::as_slice);
            if !is_temporary && !versions.iter().any(|(_, whole)| whole == bytes) {
                return Err(format!("{path} is neither the old nor the new whole file: {} bytes", bytes.len()));
            }
        }
        let there: BTreeMap<&str, &[u8]> = image.below(OUT).collect();
        for (path, sha256) in &seen.outputs {
            let Some(bytes) = there.get(path.as_str()) else {
                return Err(format!("{path} is called written and is not there"));
            };
            // A later run may have written it anew.
            let versions = self.versions.get(path).map_or(&[][..], Vec::as_slice);
            let at = versions.iter().position(|(_, whole)| hex(&Sha256::digest(whole)) == *sha256);
            let is_as_new = |at: usize| versions[at..].iter().any(|(_, whole)| whole == bytes);
            if !at.is_some_and(is_as_new) {
                return Err(format!("{path} is called written and is an older one"));
            }
        }
        Ok(which)
    }
}

const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";

impl Seen {
    /// Reads a state without the program.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of(image: &Image, scratch: &Path) -> Result<Seen, String> {
        if !image.files.contains_key(&format!("{STATE}/state.db")) {
            return Ok(Seen::default());
        }
        image.write(STATE, scratch);
        Seen::read(&scratch.join("state.db")).map_err(|error| format!("the state cannot be read: {error}"))
    }

    fn read(path: &Path) -> Result<Seen, Box<dyn std::error::Error>> {
        let db =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // Nothing is put in order here: that is what is tested.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        for check in ["PRAGMA integrity_check(1)", "PRAGMA foreign_key_check"] {
            let found = db.query_row(check, [], |row| row.get::<_, String>(0));
            match found {
                Ok(found) if found == "ok" => {}
                Err(rusqlite::Error::QueryReturnedNoRows) => {}
                other => return Err(format!("{check}: {other:?}").into()),
            }
        }
        let mut digest = Sha256::new();
        let tables: Vec<String> = db.prepare(TABLES)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for table in tables {
            let names = format!("SELECT 'quote(\"' || name || '\")' FROM pragma_table_info('{table}')");
            let columns: Vec<String> =
                db.prepare(&names)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let all =
                format!("SELECT coalesce(group_concat({}, x'0a'), '') FROM \"{table}\"", columns.join(" || '|' || "));
            digest.update(db.query_row(&all, [], |row| row.get::<_, String>(0))?);
            digest.update([0]);
        }
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        let settled = "SELECT run, stage, count(*) FROM item WHERE state >= 0 GROUP BY run, stage";
        let outputs = "SELECT path, sha256 FROM output ORDER BY run, path";
        Ok(Seen {
            digest: Some(hex(&digest.finalize())),
            begun: count("SELECT count(*) FROM head")?,
            ended: count("SELECT count(*) FROM head WHERE phase = 2")?,
            settled: db
                .prepare(settled)?
                .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?.unsigned_abs())))?
                .collect::<Result<_, _>>()?,
            outputs: db
                .prepare(outputs)?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Opens a state as every command does, and asks it what it knows.
fn open_as_we_do(seen: &Seen, image: &Image, scratch: &Path) -> Result<(), String> {
    if image.files.contains_key(&format!("{STATE}/state.db-journal")) || seen.digest.is_none() {
        // It was rolled back when it was read.
        image.write(STATE, scratch);
    }
    let options = StateOptions { dir: scratch, now_ms: 1_900_000_000_000, instance: "after", accept_new: false };
    let (store, _) = Sqlite::durable(&options).map_err(|error| error.to_string())?;
    let store = Arc::new(store);
    let state = State::new(store.clone());
    block_on(async {
        let told = |error: lamplighter::store::StoreError| error.to_string();
        let heads = state.history(None, None, 1000).await.map_err(told)?;
        let open = state.unfinished(None).await.map_err(told)?;
        if (heads.len() as u64, open.len() as u64) != (seen.begun, seen.begun.saturating_sub(seen.ended)) {
            return Err(format!("{} runs are told of, {} are in the tables", heads.len(), seen.begun));
        }
        if let Some(alive) = open.iter().find(|head| head.alive) {
            return Err(format!("{} is called alive", alive.run));
        }
        for head in &heads {
            state.details(&head.run).await.map_err(told)?.ok_or("a run has no details")?;
            let rows = state.rows(&head.run);
            for stage in 0..4 {
                rows.tally(stage).await.map_err(told)?;
            }
        }
        store.close().await;
        Ok(())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
