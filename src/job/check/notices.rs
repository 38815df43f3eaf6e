//! The check of what is told of a run: its notices, and the pings of its beginning and end.

use super::{ActionPlace, Check};
use crate::{
    action::{self, Checked},
    item::RunOutcome,
    job::{
        plan::Notice,
        spec::{JobSpec, NotifySpec, PingSpec},
    },
    lang::Scope,
    schedule::EndSpec,
};
use std::collections::BTreeSet;

impl Check<'_> {
    pub(super) fn on_finish(&mut self, spec: &JobSpec, services: &[String]) -> Vec<Notice> {
        match (spec.on_finish.as_deref(), self.surroundings.on_finish.as_deref()) {
            (Some(own), _) => self.notices(own, services),
            (None, Some(shared)) => {
                let before = self.findings.len();
                let notices = self.notices(shared, services);
                self.of_the_configuration(before, "`on_finish`");
                notices
            }
            (None, None) => Vec::new(),
        }
    }

    pub(super) fn notices(&mut self, notices: &[NotifySpec], services: &[String]) -> Vec<Notice> {
        let mut checked = Vec::new();
        for (place, notice) in notices.iter().enumerate() {
            if notice.when.as_ref().is_some_and(Vec::is_empty) {
                let help = "name at least one end, as in `when: [Failed]`; `on_finish: []` switches notices off";
                self.remark(format!("on_finish[{place}].when"), "this notice is never sent", Some(help));
            }
            let action_place = ActionPlace { gather: false, source: false, services };
            let path = format!("on_finish[{place}].run");
            let actions = self.actions(&notice.run, &path, Scope::on_finish(self.params.clone()), &action_place, false);
            if let Some((actions, _)) = actions {
                let field = format!("on_finish[{place}]").into();
                checked.push(Notice { field, when: when(notice), missed: wants_missed(notice), actions });
            }
        }
        checked
    }

    /// What is asked at the beginning of a run, and what after it.
    pub(super) fn ping(&mut self, spec: &JobSpec) -> (Vec<Checked>, Vec<Notice>) {
        match (&spec.ping, &self.surroundings.ping) {
            (Some(own), _) => self.pings(own),
            (None, Some(shared)) => {
                let before = self.findings.len();
                let pings = self.pings(shared);
                self.of_the_configuration(before, "`ping`");
                pings
            }
            (None, None) => Default::default(),
        }
    }

    pub(super) fn pings(&mut self, spec: &PingSpec) -> (Vec<Checked>, Vec<Notice>) {
        let start = self.asked("ping.start", spec.start.as_deref(), Scope::source(self.params.clone()));
        let mut ends = Vec::new();
        for (field, url, good) in [("ping.success", &spec.success, true), ("ping.failure", &spec.failure, false)] {
            let actions = self.asked(field, url.as_deref(), Scope::on_finish(self.params.clone()));
            if !actions.is_empty() {
                let ended_well = |end: &RunOutcome| matches!(end, RunOutcome::Succeeded | RunOutcome::Partial);
                let when = RunOutcome::ALL.into_iter().filter(|end| ended_well(end) == good).collect();
                ends.push(Notice { field: field.into(), when, missed: !good, actions });
            }
        }
        (start, ends)
    }

    /// The GET of a whole URL: it is tried again as any call.
    fn asked(&mut self, field: &str, url: Option<&str>, scope: Scope) -> Vec<Checked> {
        let Some(url) = url else { return Vec::new() };
        let checked = self.with_checker(scope, |checker| action::check_ping(field, url, checker));
        checked.into_iter().collect()
    }
}

/// The ends of a run after which a notice is sent.
fn when(notice: &NotifySpec) -> BTreeSet<RunOutcome> {
    let default = [EndSpec::Failed, EndSpec::DeadlineExceeded, EndSpec::Interrupted, EndSpec::Quarantined];
    notice.when.as_deref().unwrap_or(&default).iter().filter_map(EndSpec::outcome).collect()
}

/// Whether it is sent of a time at which no run was started: by default it is.
fn wants_missed(notice: &NotifySpec) -> bool {
    notice.when.as_ref().is_none_or(|when| when.iter().any(|end| end.outcome().is_none()))
}
