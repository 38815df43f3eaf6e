//! Named points at which a process that our own tests have armed dies, as by a kill.
//!
//! They stand before and behind everything that a crash could leave half done. Without the feature `plant`, which only our
//! own tests turn on, [`pass`] is empty and nothing of it is built; with it a process dies only when its command line was
//! told to (`LAMPLIGHTER_FAILPOINT`). `tests/it/failpoints.rs` walks them all.

listed! {
    /// A point that a process passes; see each for where it stands.
    pub enum Point {
        /// A new state is whole, and has not its name yet.
        StateMade,
        /// A new state has its name.
        StateNamed,
        /// An epoch that died was found, and its file was not looked through yet.
        DeadEpochFound,
        /// An epoch that died is over.
        DeadEpochOver,
        /// This process has its epoch.
        EpochBegun,
        /// Something is written and not committed.
        CommitBegins,
        /// A transaction is committed, and nobody was told.
        Committed,
        /// A run is to be begun.
        ClaimBegins,
        /// A run has begun, and nothing of it runs.
        Claimed,
        /// A run is to be taken over.
        TakeOverBegins,
        /// A run was taken over, and nothing of it runs.
        TakenOver,
        /// What a dead process left running has ended.
        StrangersEnded,
        /// Temporary files of a dead process are gone.
        Swept,
        /// What earlier passes left is taken up.
        Restored,
        /// Rows of a listing are accepted and not committed.
        ListedBegins,
        /// Rows of a listing are committed, and their items do not flow yet.
        Listed,
        /// A listing has ended, and its end is not written.
        ListingDoneBegins,
        /// The end of a listing is accepted.
        ListingDone,
        /// An item that must not be repeated is to be marked.
        HoldBegins,
        /// An item that must not be repeated is marked, and not begun.
        Held,
        /// An attempt begins.
        EffectBegins,
        /// The actions of an attempt are done, and nobody knows.
        EffectDone,
        /// A value of `Keep` is accepted, and the row of its item is not.
        ValueKept,
        /// The row of an item is accepted.
        ItemSettled,
        /// An item is to wait in the store.
        DeferBegins,
        /// An item waits in the store.
        Deferred,
        /// An item that waited in the store begins again.
        Returned,
        /// All of a stage is joined, and its readers are not told.
        StageEnds,
        /// The readers of a stage are told.
        StageEnded,
        /// All that a gather reads is committed, and it has not begun.
        GatherBegins,
        /// A temporary file is there, and empty.
        FileMade,
        /// A temporary file is written and not synced.
        FileWritten,
        /// A temporary file is synced and has not its name.
        FileSynced,
        /// A file has its name, and its folder is not synced.
        FileNamed,
        /// A file is recorded.
        FileRecorded,
        /// All stages have ended, and the end of the run is not written.
        SettleBegins,
        /// The end of a run is committed, and no notice is sent.
        Settled,
        /// A notice is to be sent.
        NoticeBegins,
        /// A notice is sent, and nobody knows.
        NoticeSent,
        /// A notice is known to be sent.
        NoticeDone,
        /// A run that nobody goes on with is to be settled.
        GiveUpBegins,
        /// A run that nobody goes on with is settled, and what it left may run.
        GivenUp,
        /// A run that crashed too often is to be settled.
        QuarantineBegins,
        /// A run that crashed too often is settled, and what it left may run.
        Quarantined,
        /// A run is to be repeated.
        CopyBegins,
        /// What a repetition takes over is written and not committed.
        CopyWritten,
        /// A repetition has begun, and nothing of it runs.
        Copied,
        /// What is not kept any longer is to go.
        RetainBegins,
        /// Everything is committed, and the epoch is not over.
        EpochEnds,
        /// The epoch is over, and its lock is still held.
        EpochOver,
    }
}

/// Dies here, as by a kill, when the process was armed with this point and passes it for the time that was asked for.
#[cfg(feature = "plant")]
pub fn pass(point: Point) {
    use std::sync::atomic::Ordering;
    let Some(armed) = ARMED.get().filter(|armed| armed.point == point) else { return };
    if armed.left.fetch_sub(1, Ordering::AcqRel) == 1 {
        // Nothing of it can fail, and no code of ours runs behind it.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, without the feature `plant`.
#[cfg(not(feature = "plant"))]
pub const fn pass(_: Point) {}

#[cfg(feature = "plant")]
static ARMED: std::sync::OnceLock<Armed> = std::sync::OnceLock::new();

#[cfg(feature = "plant")]
struct Armed {
    point: Point,
    left: std::sync::atomic::AtomicI64,
}

/// Arms this process, once, by a text such as `Committed:3`: it dies when it passes that point for the third time. False when
/// there is no such point.
#[cfg(feature = "plant")]
pub fn arm(text: &str) -> bool {
    let (name, times) = text.split_once(':').unwrap_or((text, "1"));
    let point = Point::ALL.iter().find(|point| format!("{point:?}") == name);
    let armed = point
        .zip(times.parse::<u32>().ok())
        .map(|(point, times)| Armed { point: *point, left: i64::from(times).into() });
    armed.is_some_and(|armed| ARMED.set(armed).is_ok())
}
