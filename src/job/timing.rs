//! When a job starts: from what was written to what the daemon asks.

use super::JobSpec;
use crate::{
    schedule::{
        BlackoutPolicySpec, CatchUp, CatchUpSpec, Lateness, Overlap, OverlapSpec, Priority, PrioritySpec, ScheduleSpec,
        Timing, Window,
    },
    units::Span,
};
use std::time::Duration;

/// When the job starts; what is wrong with it was found before.
pub fn of(spec: &JobSpec) -> Timing {
    let default = Timing::default();
    let span = |span: Option<Span>, default: Duration| span.map_or(default, Span::get);
    Timing {
        schedule: spec.schedule.clone().unwrap_or(ScheduleSpec::Manual),
        splay: span(spec.splay, default.splay),
        lateness: Lateness {
            start_window: span(spec.start_window, default.lateness.start_window),
            catch_up: match &spec.catch_up {
                Some(CatchUpSpec::All(all)) => CatchUp::All(all.max as usize),
                Some(CatchUpSpec::Never) => CatchUp::Never,
                Some(CatchUpSpec::Latest) | None => CatchUp::Latest,
            },
            catch_up_window: spec.catch_up_window.map(Span::get),
        },
        wait_window: span(spec.wait_window, default.wait_window),
        overlap: match &spec.overlap {
            Some(OverlapSpec::Queue) => Overlap::Queue,
            Some(OverlapSpec::Replace) => Overlap::Replace,
            Some(OverlapSpec::Allow(allow)) => Overlap::Allow(allow.max),
            Some(OverlapSpec::Skip) | None => Overlap::Skip,
        },
        blackout: spec.blackout.iter().flatten().filter_map(|(begin, end)| Window::read(begin, end)).collect(),
        blackout_delays: matches!(spec.blackout_policy, Some(BlackoutPolicySpec::Delay)),
        priority: match spec.priority {
            Some(PrioritySpec::High) => Priority::High,
            Some(PrioritySpec::Low) => Priority::Low,
            Some(PrioritySpec::Normal) | None => Priority::Normal,
        },
    }
}
