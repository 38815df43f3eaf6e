//! A job between its runs: what its schedule needs, and its texts, packed. Ten thousand of them fit into a small box; a job is
//! whole only while it starts.

use crate::{
    job::{CheckedJob, Job, JobProblems, Surroundings},
    limits::PACK_BYTES,
    problem::Source,
    schedule::{Overlap, Timing},
};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use jiff::tz::TimeZone;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// A job that sleeps.
pub(super) struct Dormant {
    pub name: Arc<str>,
    pub description: Option<Box<str>>,
    pub timing: Box<Timing>,
    pub zone: TimeZone,
    pub deadline: Duration,
    /// Somebody is told of times at which nothing was started.
    pub tells_missed: bool,
    base_dir: Arc<Path>,
    texts: Packed,
}

/// Its file, and the files that it names, as JSON.
enum Packed {
    Plain(Box<[u8]>),
    Deflated(Box<[u8]>),
}

impl Dormant {
    /// Packs a job. `base_dir` is kept once for all that share it.
    pub fn of(job: &Job, base_dir: Arc<Path>) -> Dormant {
        Dormant {
            name: job.name.clone(),
            description: job.description.as_deref().map(Into::into),
            timing: Box::new(job.timing.clone()),
            zone: job.zone.clone(),
            deadline: job.deadline,
            tells_missed: !job.notices_of_missed().is_empty(),
            base_dir,
            texts: Packed::of(&(&job.text, &job.side_files)),
        }
    }

    /// The folder of its file.
    pub fn base_dir(&self) -> &Arc<Path> {
        &self.base_dir
    }

    /// How many runs of it there may be at a time.
    pub fn overlap(&self) -> Overlap {
        self.timing.overlap
    }

    /// What makes it whole: it takes as long as a check.
    pub fn wake(&self) -> impl FnOnce(&Surroundings) -> Result<CheckedJob, JobProblems> + Send + 'static {
        let (name, base_dir, texts) = (self.name.clone(), self.base_dir.clone(), self.texts.unpacked());
        move |surroundings| {
            let (text, side_files): (String, BTreeMap<String, String>) =
                serde_json::from_slice(&texts).unwrap_or_default();
            let surroundings = Surroundings { side_files: Some(side_files), ..surroundings.clone() };
            Job::from_source(&name, Source::new(format!("{name}.ron"), text), &base_dir, &surroundings)
        }
    }
}

impl Packed {
    fn of(texts: &(&String, &BTreeMap<String, String>)) -> Packed {
        let plain = serde_json::to_vec(texts).unwrap_or_default();
        if plain.len() > PACK_BYTES {
            let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
            // Memory takes what it is given.
            if packer.write_all(&plain).is_ok()
                && let Ok(packed) = packer.finish()
            {
                return Packed::Deflated(packed.into());
            }
        }
        Packed::Plain(plain.into())
    }

    fn unpacked(&self) -> Vec<u8> {
        match self {
            Packed::Plain(plain) => plain.to_vec(),
            Packed::Deflated(packed) => {
                let mut plain = Vec::new();
                // It was packed here.
                let _ = ZlibDecoder::new(&**packed).read_to_end(&mut plain);
                plain
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Handlers;

    #[test]
    fn a_job_wakes_up_as_it_was_whatever_became_of_its_files() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("keep.jq"), "select(.n > 1)").expect("written");
        for padding in [0, 4096] {
            let text = format!(
                "// {}\nJob(description: \"d\", schedule: Cron(\"30 2 * * *\"), timezone: \"Europe/Berlin\", deadline: \"1h\", run: [
                    Items(list: [1]), Jq(file: \"keep.jq\")])",
                "x".repeat(padding)
            );
            let job = Job::from_ron("nightly", &text, dir.path(), &Handlers::new()).expect("a job").job;
            let dormant = Dormant::of(&job, dir.path().into());
            std::fs::write(dir.path().join("keep.jq"), "not jq (").expect("written");
            let woken = dormant.wake()(&Surroundings::default()).expect("what it was").job;
            std::fs::write(dir.path().join("keep.jq"), "select(.n > 1)").expect("written");
            assert_eq!((&woken.text, &woken.side_files), (&job.text, &job.side_files));
            assert_eq!((woken.deadline, &*woken.name), (dormant.deadline, &*dormant.name));
            assert_eq!(matches!(dormant.texts, Packed::Deflated(_)), padding > 0);
        }
    }
}
