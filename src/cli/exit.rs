//! Exit codes.

use lamplighter::item::RunOutcome;
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: succeeded, nothing to do, or only remarks.
    Done,
    /// 1: failed.
    Failed,
    /// 2: usage, or an invalid job file.
    Usage,
    /// 3: partial.
    Partial,
    /// 4: refused: the job runs already.
    Refused,
    /// 74: input or output of our own failed.
    Io,
    /// 75: another `serve` has the state.
    Held,
    /// 124: the deadline was exceeded.
    Deadline,
    /// 128 + a signal: cancelled by it.
    Signal(u8),
}

impl Exit {
    /// The exit of a run that ended so; `signal` cancelled it, if one did.
    pub fn of(outcome: RunOutcome, signal: Option<u8>) -> Exit {
        match outcome {
            RunOutcome::Succeeded => Exit::Done,
            RunOutcome::Partial => Exit::Partial,
            RunOutcome::Failed | RunOutcome::Quarantined | RunOutcome::Interrupted => Exit::Failed,
            RunOutcome::DeadlineExceeded => Exit::Deadline,
            RunOutcome::Cancelled => Exit::Signal(signal.unwrap_or(2)),
        }
    }

    /// This exit, unless all went well but for its printing.
    pub fn after(self, printed: Result<(), Exit>) -> Exit {
        match (self, printed) {
            (Exit::Done, Err(failed)) => failed,
            (exit, _) => exit,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Refused => 4,
            Exit::Io => 74,
            Exit::Held => 75,
            Exit::Deadline => 124,
            Exit::Signal(signal) => 128 + signal,
        })
    }
}
