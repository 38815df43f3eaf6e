//! Bugs that our own tests plant, to show that the simulation finds them.
//!
//! Each is a small mistake that one line of the engine makes while it is planted. Without the feature `plant`, which only
//! our own tests turn on, [`planted`] is a constant `false` and nothing of it is built. `docs/PROOF.md` lists what finds
//! each of them.

/// An enum with a list of its variants and what is said of each.
macro_rules! listed {
    ($(#[doc = $head:literal])+ pub enum $list:ident { $($(#[doc = $doc:literal])+ $name:ident,)+ }) => {
        $(#[doc = $head])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $list {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $list {
            /// All of them.
            pub const ALL: &[$list] = &[$($list::$name),+];

            /// What is said of it.
            pub const fn what(self) -> &'static str {
                match self {
                    $($list::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

listed! {
    /// A mistake that can be planted; see each for what the engine does then.
    pub enum Bug {
        /// Inboxes stay open in a cancelled run, as if somebody kept a spare receiver: senders wait for room for ever.
        SpareReceiver,
        /// An item whose send finds the inbox closed is forgotten instead of settled.
        SendForgets,
        /// A stage ends with its own workers and does not wait for those who still send to it.
        JoinByMessages,
        /// A worker of an ordered stage that waits for its turn never returns its work permit.
        PermitNotReturned,
        /// An item that waits for its retry holds its work permit.
        RetryHoldsPermit,
        /// A gather does not wait for the first of the stages that it reads.
        GatherEarly,
        /// A closed stage stops pulling instead of settling what still comes.
        ClosedStopsPulling,
        /// What a closed stage did not reach gets no row, and so no name in the report.
        NotReachedUnnamed,
        /// A second reason to cancel a run takes the place of the first.
        LaterReasonWins,
        /// An item that is timed out is counted twice.
        SettledTwice,
        /// The longest of an item's own, its stage's and the run's deadline bounds its waits, not the earliest.
        ChildLengthens,
        /// The timeout of an attempt goes on while the item waits without a work permit.
        TimeoutCountsWaiting,
        /// In an ordered stage an item leaves when the one before it is the only one that has not gone.
        OrderSkips,
        /// When a later action fails on one of several values, those before it flow all the same.
        FanOutLeaks,
        /// A worker that panics ends alone, and nobody is told.
        PanicNotJoined,
        /// A cancel does not reach an item that waits without a work permit.
        CancelMissesParked,
        /// The run's deadline stands on the clock that stands still while the machine sleeps.
        DeadlineAwake,
        /// Each attempt is counted twice.
        AttemptsTwice,
        /// An item that leaves memory for a long wait is not written into the store.
        DeferredRowLost,
        /// The counts that a gather sees hold stages that still run.
        CountsOfRunning,
        /// Fail-fast compares a share before the number of items is known.
        FailFastEarly,
        /// An idle worker whose permit is taken away stays listed as one that waits for a hand-over.
        TokenNotTakenBack,
        /// A worker that waits for room behind it keeps its work permit.
        DeliveryKeepsPermit,
        /// An item that gave nothing counts as missing in the list of failures.
        EmptyIsMissing,
        /// A key that is listed twice is accepted.
        DuplicateKey,
        /// A stage is closed, and the items in flight are not told.
        CloseUnheard,
        /// The stage's retry repeats what was given up.
        RetriesGivenUp,
        /// An item that waits in the store comes back before its time.
        DeferredEarly,
        /// The item deadline begins anew when an item comes back from the store.
        DeadlineForgotten,
        /// One missing item less is tolerated than was said.
        ToleranceOffByOne,
        /// A run that ends after its deadline is judged as if it had not.
        LateIsFine,
        /// A worker goes on to a new item although one that comes back from a wait wants its permit.
        NewBeforeReturning,
        /// A stage opens as many items as come, whatever `waiting` says.
        OpenUnbounded,
        /// What reads a listing that ended before its end is not told so.
        IncompleteForgotten,
        /// Of the senders that wait for room, the one that came last goes in first.
        SendersOvertake,
        /// Nothing of the state is synced (`synchronous=OFF`).
        StateUnsynced,
        /// The log of the state is synced before it is copied into the file, not with each commit (`synchronous=NORMAL`).
        StateSyncedLate,
        /// An output gets its name before its bytes are synced.
        OutputUnsynced,
        /// The folder of an output is not synced when the output has its name.
        OutputNameUnsynced,
        /// A new folder is used before the folder that its name stands in is synced.
        FolderNameUnsynced,
        /// The beginning of a run is answered before it is on the disk.
        ClaimNotDurable,
        /// A flush is answered before what it waits for is on the disk.
        AcknowledgedEarly,
        /// A resumed run works once more on what one of several values of an item came to.
        ResumeRunsDone,
        /// The attempts that an item had before it waited in the store are forgotten by a resume.
        AttemptsForgotten,
        /// What must not be repeated after a crash is begun before the disk knows of it.
        HoldNotCommitted,
        /// A listing is marked as ended before its items are on the disk.
        ListedEarly,
        /// Every crash counts towards the quarantine, whatever was done since the one before.
        EveryCrashCounts,
        /// A repetition takes over what has failed as if it were done.
        RetryCopiesFailed,
        /// `state` shows what a run with the same due has kept.
        OwnStateSeen,
        /// The idempotency keys of a resumed run are those of the pass, not of the chain.
        KeyOfThePass,
        /// Items that wait in the store are not taken up by a resume.
        DeferredNotResumed,
        /// The deadline of a stage begins anew in a resumed run.
        StageTimeAnew,
        /// The deadline of the run begins anew in a resumed run.
        RunTimeAnew,
        /// The notices that follow an end are not written with it.
        NoticesUnwritten,
        /// The notices are sent before the end of the run is on the disk.
        ToldEarly,
        /// What a source missed stays when its listing is read again.
        RelistKeepsMissing,
        /// A process whose lock is held is taken for dead.
        LockNotAsked,
        /// One row of a key that is forgotten stays.
        ForgetLeavesRow,
        /// A firing that has begun is begun again.
        BegunTwice,
        /// The daemon begins the run of a firing without its identity: it may begin once more.
        FiringUnnamed,
        /// Times that became due are not written down, only that they were considered.
        MarkBeforeFirings,
        /// A time that was missed is made up for, however old it is.
        WindowIgnored,
        /// The identity of a firing has the time at which it was looked at.
        IdentityOfNow,
        /// When the wall clock is set back, what was considered is considered again.
        BackAgain,
        /// Firings that waited when the process ended are forgotten.
        WaitingForgotten,
        /// A job that is read again counts from now, as if its schedule had changed.
        ReloadCountsFromNow,
        /// The start of the machine for which `OnBoot` was due is not kept.
        BootForgotten,
        /// An end that came right before a crash is not heard of.
        AfterLostInCrash,
        /// One run more of a job at once than it allows.
        OverlapTooMany,
        /// Firings go in the order of their times, whatever their priority.
        PriorityIgnored,
        /// A run that an earlier process left is gone on with when there is nothing else to start.
        ResumeLast,
        /// Pauses are not kept over an end of the process.
        PauseForgotten,
        /// A blackout ends an hour early.
        BlackoutShort,
        /// More runs than places: the last place is given away twice.
        PlaceTooMany,
        /// Each `Every` is due when the program starts.
        RhythmAtStart,
        /// Every time that was missed is made up for.
        Burst,
        /// A stop waits for the ends of the runs.
        StopWaits,
        /// Each `Every` counts from the start of the program.
        RhythmAnew,
    }
}

impl Bug {
    /// It is made by what is kept of runs, over crashes, and not by the engine of one run.
    pub const fn is_of_what_is_kept(self) -> bool {
        self as usize >= Bug::ClaimNotDurable as usize && !self.is_of_the_daemon()
    }

    /// It is one of the daemon, not of a run.
    pub const fn is_of_the_daemon(self) -> bool {
        self as usize >= Bug::FiringUnnamed as usize
    }
}

impl Bug {
    /// Those that only a power cut shows: the simulation has no disk.
    pub const OF_THE_DISK: &[Bug] = &[
        Bug::StateUnsynced,
        Bug::StateSyncedLate,
        Bug::OutputUnsynced,
        Bug::OutputNameUnsynced,
        Bug::FolderNameUnsynced,
    ];
}

#[cfg(feature = "plant")]
static PLANTED_EVERYWHERE: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// True while this mistake is planted, on this thread or in the whole process.
#[cfg(feature = "plant")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug) || PLANTED_EVERYWHERE.get() == Some(&bug)
}

/// True while this mistake is planted: never, without the feature `plant`.
#[cfg(not(feature = "plant"))]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Plants the bug of this name in the whole process, for good. False when there is none, or one is planted.
#[cfg(feature = "plant")]
pub fn everywhere(name: &str) -> bool {
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    bug.is_some_and(|bug| PLANTED_EVERYWHERE.set(*bug).is_ok())
}

/// What is planted on this thread, for one that it starts.
#[cfg(feature = "plant")]
pub fn planted_here() -> Option<Bug> {
    PLANTED.get()
}

/// What is planted on this thread: nothing, without the feature `plant`.
#[cfg(not(feature = "plant"))]
pub const fn planted_here() -> Option<Bug> {
    None
}

/// Plants what [`planted_here`] gave on the thread that was started.
#[cfg(feature = "plant")]
pub fn plant_here(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Does nothing, without the feature `plant`.
#[cfg(not(feature = "plant"))]
pub const fn plant_here(_: Option<Bug>) {}

/// Runs `work` while `bug` is planted on this thread, also when it panics.
#[cfg(feature = "plant")]
pub fn with<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
    struct Pulled;
    impl Drop for Pulled {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(bug));
    let _pulled = Pulled;
    work()
}
