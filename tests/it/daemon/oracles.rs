//! What must hold of every machine that was simulated: from what the outside saw, and from what is kept.

use super::{
    lab::{Effect, HOUR, Lab, day},
    swarm::{Drawn, HEALING, Passed, Paused, firsts},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use lamplighter::{
    item::RunOutcome,
    limits::FIRINGS_KEPT_MAX,
    schedule::{Calendar, ScheduleSpec, Timing, Window, seed as seed_of},
    store::{FiringEnd, FiringRow, RunHead},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// All that happened under a seed.
#[derive(Default)]
pub struct Story {
    pub seed: u64,
    pub start: Timestamp,
    pub jobs: Vec<Drawn>,
    pub max_running: usize,
    pub passed: Vec<Passed>,
    pub paused: Vec<Paused>,
    /// The latest time that any process has seen.
    pub latest: Timestamp,
    /// From then on there were no faults.
    pub healed_from: Option<Timestamp>,
    /// From when on the times of each job count.
    pub watched_from: BTreeMap<String, i64>,
    /// How many processes had passed when each job had a mark: those behind have all watched it.
    pub watched_in: BTreeMap<String, usize>,
    /// How far each job was considered.
    pub marks: BTreeMap<String, (String, i64)>,
}

/// Every oracle, in the order of the rules that it holds.
pub const NAMES: &[&str] = &[
    "P1_recorded_before_it_starts",
    "P1_no_time_starts_twice",
    "P2_every_time_has_one_outcome",
    "P6_what_was_left_goes_first",
    "P8_a_stop_ends_in_time",
    "P12_the_watermark_moves_on",
    "P12_no_burst",
    "P12_catch_up_as_written",
    "P12_a_rhythm_goes_on",
    "P12_once_a_boot",
    "P18_overlap",
    "P18_places",
    "P18_priority",
    "P18_blackout",
    "P18_pause",
    "P2_after_every_end",
    "P19_it_heals",
];

/// Names the oracle, and fails.
pub fn broken(oracle: &str, seed: u64, what: &str) -> ! {
    assert!(NAMES.contains(&oracle), "{oracle} has no name");
    panic!("oracle {oracle}: seed {seed}: {what}");
}

/// The calendar of a job, where it has one.
fn calendar(drawn: &Drawn) -> Option<Calendar> {
    fn crons(text: &str) -> Vec<ScheduleSpec> {
        text.split("Cron(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(|cron| ScheduleSpec::Cron(cron.into()))
            .collect()
    }
    let all = crons(&drawn.schedule);
    let zone = TimeZone::get(&drawn.zone).expect("a zone");
    (!all.is_empty())
        .then(|| Calendar::of(&ScheduleSpec::AnyOf(all), zone, seed_of("a gateway", &drawn.name)).expect("good"))
}

/// After a process: what its marks say.
pub fn mark_holds(lab: &Lab, story: &mut Story) {
    story.latest = story.latest.max(lab.sim.world().wall());
    let marks = lab.look(async |state| state.marks().await.expect("it answers"));
    let far_back = story.passed.iter().any(|passed| passed.far_back);
    for mark in marks {
        let kept: serde_json::Value = serde_json::from_str(&mark.text).expect("JSON");
        let schedule = kept["schedule"].as_str().unwrap_or_default().to_owned();
        let considered = kept["considered_ms"].as_i64().expect("a number");
        let unsteady = story.jobs.iter().any(|drawn| drawn.name == mark.job && drawn.is_unsteady);
        if kept["unsure"].is_object() {
            continue;
        }
        story.watched_from.entry(mark.job.clone()).or_insert(considered);
        story.watched_in.entry(mark.job.clone()).or_insert(story.passed.len());
        if let Some((before, until)) = story.marks.get(&mark.job)
            && *before == schedule
            && considered < *until
            && !(far_back || unsteady)
        {
            broken(
                "P12_the_watermark_moves_on",
                story.seed,
                &format!("{}: {} before {}", mark.job, day(considered), day(*until)),
            );
        }
        story.marks.insert(mark.job, (schedule, considered));
    }
}

/// Looks at everything that is kept and was seen.
pub fn holds(lab: &Lab, story: &Story) {
    let (runs, rows, waiting, effects) = (lab.runs(), lab.rows(), lab.waiting(), lab.effects());
    let kept: BTreeMap<&str, &RunHead> = runs.iter().map(|head| (&*head.run, head)).collect();
    for effect in &effects {
        if !kept.contains_key(effect.run.as_str()) {
            broken("P1_recorded_before_it_starts", story.seed, &format!("{effect:?} has no run"));
        }
    }
    let by_hand = |head: &RunHead| ["api", "retry", "manual"].contains(&head.trigger.as_str());
    // P1, by what the outside saw.
    let mut started: BTreeMap<(&str, Timestamp, bool), BTreeSet<&str>> = BTreeMap::new();
    for effect in &effects {
        let head = kept[effect.run.as_str()];
        if by_hand(head) || head.trigger == "dependency" || head.trigger == "boot" {
            continue;
        }
        started.entry((&effect.job, effect.due, false)).or_default().insert(&effect.run);
    }
    for (what, runs) in &started {
        if runs.len() > 1 && story.jobs.iter().all(|drawn| drawn.name != what.0 || drawn.every.is_none()) {
            broken("P1_no_time_starts_twice", story.seed, &format!("{what:?}: {runs:?}"));
        }
    }
    for drawn in &story.jobs {
        let runs: Vec<&RunHead> = runs.iter().filter(|head| head.job == drawn.name && !by_hand(head)).collect();
        let rows: Vec<&FiringRow> = rows.iter().filter(|row| row.job == drawn.name).collect();
        let waiting: Vec<&FiringRow> = waiting.iter().filter(|row| row.job == drawn.name).collect();
        outcomes_hold(story, drawn, &runs, &rows, &waiting);
        catch_up_holds(story, drawn, &runs, &effects);
        after_holds(lab, story, drawn, &kept, &rows, &waiting);
        rhythm_holds(lab, story, drawn, &runs, &rows, &waiting);
    }
    starts_hold(story, &kept, &effects);
    // Nothing is left over from before.
    let end = lab.sim.world().wall();
    let old = |ms: i64| end.as_millisecond() - ms > 30 * 3_600_000;
    for head in runs.iter().filter(|head| head.outcome.is_none()) {
        if old(head.started_ms) {
            broken("P19_it_heals", story.seed, &format!("{} {} has not ended", head.job, head.run));
        }
    }
    if let Some(row) = waiting.iter().find(|row| old(row.told_ms)) {
        broken("P19_it_heals", story.seed, &format!("it waits for ever: {row:?}"));
    }
}

/// Until when, in milliseconds, times of a job that started no run may be let go: only the oldest rows are, of a job that has as
/// many as are kept. `rows` are those of the job, the oldest first.
fn let_go_until(story: &Story, rows: &[&FiringRow]) -> Option<i64> {
    let oldest = rows.first().filter(|_| rows.len() >= FIRINGS_KEPT_MAX as usize)?;
    // What is gone was written before this one, by a clock that may have been set back since.
    let is_far_back = story.passed.iter().any(|passed| passed.far_back);
    Some(if is_far_back { i64::MAX } else { oldest.told_ms + 24 * 3_600_000 })
}

/// P2: every time of the calendar that the clock has passed has one outcome.
fn outcomes_hold(story: &Story, drawn: &Drawn, runs: &[&RunHead], rows: &[&FiringRow], waiting: &[&FiringRow]) {
    let Some(calendar) = calendar(drawn).filter(|_| !drawn.is_unsteady) else { return };
    let healed_from = story.healed_from.expect("at the end");
    let until = healed_from.checked_add(SignedDuration::try_from(HEALING).expect("short")).expect("a time");
    let set_back = story.passed.iter().any(|passed| passed.far_back);
    let of_calendar = |trigger: &str| trigger == "schedule" || trigger == "catch_up";
    let mut ran: BTreeMap<i64, usize> = BTreeMap::new();
    for head in runs.iter().filter(|head| of_calendar(&head.trigger)) {
        *ran.entry(head.due_ms).or_default() += 1;
    }
    for row in waiting.iter().filter(|row| of_calendar(&row.trigger)) {
        *ran.entry(row.due_ms).or_default() += 1;
    }
    let let_go_until = let_go_until(story, rows);
    let mut dues = BTreeSet::new();
    let mut after = story.start;
    while let Some(firing) = calendar.next(after).filter(|firing| firing.at <= until) {
        after = firing.at;
        let ms = after.as_millisecond();
        dues.insert(ms);
        let covering = rows.iter().filter(|row| {
            of_calendar(&row.trigger)
                && row.due_ms <= ms
                && (ms < row.last_ms || ms == row.last_ms && row.count.is_some())
        });
        let covering: Vec<_> = covering.collect();
        let outcomes = ran.get(&ms).copied().unwrap_or(0) + covering.len();
        if outcomes == 0 && let_go_until.is_some_and(|until| ms <= until) {
            continue;
        }
        let must = story.watched_from.get(&drawn.name).is_some_and(|from| *from < ms);
        let is_wrong = if set_back || !must { must && outcomes == 0 } else { outcomes != 1 };
        // The very last one may be on its way.
        if is_wrong && (outcomes > 0 || until.duration_since(after) > SignedDuration::from_mins(1)) {
            let what = format!("{} {after} has {outcomes} outcomes: {covering:#?}", drawn.name);
            broken("P2_every_time_has_one_outcome", story.seed, &what);
        }
        let is_healed = after > healed_from && !set_back;
        if is_healed && covering.iter().any(|row| row.end == FiringEnd::Missed && row.reason.as_deref() != Some("busy"))
        {
            broken("P19_it_heals", story.seed, &format!("{} {after} is missed: {covering:?}", drawn.name));
        }
    }
    for ms in ran.keys() {
        let at = Timestamp::from_millisecond(*ms).expect("a time");
        // Times before the start come when the clock is set back to them.
        if at > story.start
            && drawn.every.is_none()
            && !dues.contains(ms)
            && at <= until
            && !drawn.schedule.contains("After")
        {
            broken("P2_every_time_has_one_outcome", story.seed, &format!("{} was never due at {at}", drawn.name));
        }
    }
}

/// P12: what was made up for was to be.
fn catch_up_holds(story: &Story, drawn: &Drawn, runs: &[&RunHead], effects: &[Effect]) {
    let firsts = firsts(effects);
    let mut in_process: BTreeMap<u64, u32> = BTreeMap::new();
    for head in runs.iter().filter(|head| head.trigger == "catch_up") {
        if drawn.catch_up == "Never" && !drawn.is_unsteady {
            broken(
                "P12_catch_up_as_written",
                story.seed,
                &format!("{} {} is made up for", drawn.name, day(head.due_ms)),
            );
        }
        if let Some(first) = firsts.get(&*head.run) {
            *in_process.entry(first.process).or_default() += 1;
        }
        let age = head.started_ms - head.due_ms;
        // Where all are made up for, their number is the bound.
        let window = match drawn.window {
            None if drawn.catch_up.starts_with("All") => continue,
            window => window.unwrap_or(HOUR * 24 * 7),
        };
        // It may wait for others, and sleep.
        let slack =
            if story.passed.iter().any(|passed| passed.sleeps > 0 || passed.steps > 0) { HOUR * 48 } else { HOUR * 24 };
        if age > i64::try_from((window + slack).as_millis()).expect("short")
            && story.passed.iter().all(|passed| passed.steps < 2)
        {
            let what = format!("{} {} is {}h old", drawn.name, day(head.due_ms), age / 3_600_000);
            broken("P12_catch_up_as_written", story.seed, &what);
        }
    }
    if drawn.catch_up == "Latest" {
        for (process, count) in in_process {
            let Some(passed) = story.passed.get(process as usize) else { continue };
            // One for each time that something happened to the clock; one may have waited before.
            if count > 2 + passed.steps + passed.sleeps {
                broken("P12_no_burst", story.seed, &format!("{}: {count} in process {process}", drawn.name));
            }
        }
    }
}

/// P2: every end of a run makes what waits for it due.
fn after_holds(
    lab: &Lab,
    story: &Story,
    drawn: &Drawn,
    kept: &BTreeMap<&str, &RunHead>,
    rows: &[&FiringRow],
    waiting: &[&FiringRow],
) {
    let Some(before) = drawn.after.as_deref().filter(|_| !drawn.is_unsteady) else { return };
    let end = lab.sim.world().wall().as_millisecond();
    let let_go_until = let_go_until(story, rows);
    for head in kept.values().filter(|head| head.job == before) {
        let good = matches!(head.outcome, Some(RunOutcome::Succeeded | RunOutcome::Partial));
        let Some(ended) = head.ended_ms.filter(|ended| good && end - ended > 1000) else { continue };
        let key = format!("after {before} {}", head.run);
        let runs = kept.values().filter(|run| run.job == drawn.name && run.fire_key.as_deref() == Some(&key)).count();
        let others = rows.iter().chain(waiting).filter(|row| row.key == key).count();
        if runs + others == 0 && let_go_until.is_some_and(|until| ended <= until) {
            continue;
        }
        if runs + others != 1 {
            let what = format!(
                "{} after {before} {} (ended {}): {runs} runs, {others} others",
                drawn.name,
                head.run,
                day(ended)
            );
            broken("P2_after_every_end", story.seed, &what);
        }
    }
}

/// P12: rhythms and starts of the machine.
fn rhythm_holds(
    lab: &Lab,
    story: &Story,
    drawn: &Drawn,
    runs: &[&RunHead],
    rows: &[&FiringRow],
    waiting: &[&FiringRow],
) {
    let boots = story.passed.last().map_or(1, |passed| passed.boot + 1);
    let watching = || {
        let from = story.watched_in.get(&drawn.name).copied().unwrap_or(story.passed.len());
        story.passed.iter().skip(from)
    };
    if drawn.on_boot && !drawn.is_unsteady {
        let of_boot = |trigger: &str| trigger == "boot";
        let outcomes = runs.iter().filter(|head| of_boot(&head.trigger)).count()
            + rows.iter().chain(waiting).filter(|row| of_boot(&row.trigger)).count();
        if outcomes as u64 > boots || outcomes == 0 {
            broken(
                "P12_once_a_boot",
                story.seed,
                &format!("{} was due {outcomes} times in {boots} starts", drawn.name),
            );
        }
        for boot in 0..boots {
            let key = format!("boot boot-{boot}");
            let outcomes = runs.iter().filter(|head| head.fire_key.as_ref() == Some(&key)).count()
                + rows.iter().chain(waiting).filter(|row| row.key == key).count();
            // It is due twenty minutes behind the start of a process at the latest.
            let must = watching().any(|passed| passed.boot == boot && passed.lived > HOUR / 2);
            if outcomes > 1 || must && outcomes == 0 {
                broken("P12_once_a_boot", story.seed, &format!("{}: {outcomes} times in start {boot}", drawn.name));
            }
        }
    }
    if let Some(period) = drawn.every.filter(|_| !drawn.is_unsteady) {
        let counted: u64 = rows.iter().map(|row| row.count.unwrap_or(1)).sum();
        let outcomes = runs.len() as u64 + counted + waiting.len() as u64;
        let real = lab.desk.real(&lab.sim);
        let most = (real.as_secs() / period.as_secs()) + 1 + boots;
        // While the machine is on nothing is lost of it, but for the one that was due when it went off.
        let mut lived: BTreeMap<u64, Duration> = BTreeMap::new();
        watching().for_each(|passed| *lived.entry(passed.boot).or_default() += passed.lived);
        let beats = lived.values().map(|lived| (lived.as_secs() / period.as_secs()).saturating_sub(1));
        let least = match let_go_until(story, rows) {
            // What is gone cannot be counted.
            Some(_) => 0,
            None => beats.sum::<u64>().max(HEALING.as_secs() / period.as_secs()),
        };
        if outcomes > most || outcomes < least {
            let what = format!(
                "{} came {outcomes} times in {}h, every {}h",
                drawn.name,
                real.as_secs() / 3600,
                period.as_secs() / 3600
            );
            broken("P12_a_rhythm_goes_on", story.seed, &what);
        }
    }
}

/// P18, P6: what was true when each run started.
fn starts_hold(story: &Story, kept: &BTreeMap<&str, &RunHead>, effects: &[Effect]) {
    let firsts = firsts(effects);
    for (run, first) in &firsts {
        let head = kept[run];
        let Some(drawn) = story.jobs.iter().find(|drawn| drawn.name == first.job) else { continue };
        let alive = |effect: &&Effect| {
            effect.began_seq < first.began_seq && first.began_seq < effect.ended_seq && effect.run != first.run
        };
        let by_schedule = !["api", "retry"].contains(&head.trigger.as_str());
        let of_job = effects.iter().filter(alive).filter(|effect| effect.job == first.job).count();
        let most = if drawn.overlap.starts_with("Allow") { 2 } else { 1 };
        if of_job + 1 > most {
            broken("P18_overlap", story.seed, &format!("{first:?} starts beside {of_job} of its job"));
        }
        // One that was begun by a process which died before the outside saw it goes on whatever the gates say.
        let is_resumed = (first.began.as_millisecond() - head.started_ms).abs() > 1000;
        if !by_schedule || is_resumed {
            continue;
        }
        let all = effects.iter().filter(alive).count();
        if all + 1 > story.max_running {
            broken("P18_places", story.seed, &format!("{first:?} starts beside {all}"));
        }
        if let Some((begin, end)) = drawn.blackout.filter(|_| !drawn.is_unsteady) {
            let timing = Timing { blackout: vec![Window::read(begin, end).expect("a window")], ..Timing::default() };
            if timing.blackout_end(first.began, &TimeZone::get(&drawn.zone).expect("a zone")).is_some() {
                broken("P18_blackout", story.seed, &format!("{first:?}"));
            }
        }
        let holds = |paused: &&Paused| {
            let in_time = paused.from < first.began_seq && first.began_seq < paused.to;
            paused.job == first.job && in_time && paused.until.is_none_or(|until| first.began < until)
        };
        if let Some(paused) = story.paused.iter().find(holds) {
            broken("P18_pause", story.seed, &format!("{first:?} starts in {paused:?}"));
        }
        // What an earlier process left, and is gone on with later, was to go first.
        let left =
            |effect: &&Effect| effect.job == first.job && effect.run != first.run && effect.process < first.process;
        for effect in effects.iter().filter(left) {
            let goes_on = effects.iter().any(|later| {
                later.run == effect.run && later.began_seq > first.began_seq && later.process == first.process
            });
            if goes_on && most == 1 {
                broken("P6_what_was_left_goes_first", story.seed, &format!("{first:?} before {effect:?}"));
            }
        }
        // Of two that wait for nothing but a place, the one before goes first.
        let passed = story.passed.get(first.process as usize);
        if !drawn.is_plain || head.trigger != "schedule" || passed.is_none_or(|passed| passed.steps + passed.sleeps > 0)
        {
            continue;
        }
        for other in &story.jobs {
            if !other.is_plain || other.is_unsteady || other.priority >= drawn.priority {
                continue;
            }
            let waits = firsts.values().find(|waits| {
                let head = kept[waits.run.as_str()];
                waits.job == other.name
                    && waits.process == first.process
                    && waits.began_boot > first.began_boot
                    && head.trigger == "schedule"
                    && waits.due <= first.began
                    && first.began.duration_since(waits.due) < SignedDuration::from_mins(59)
            });
            let is_free = |waits: &Effect| {
                !effects.iter().any(|effect| {
                    effect.job == waits.job && effect.began_seq < first.began_seq && first.began_seq < effect.ended_seq
                }) && effects.iter().all(|effect| effect.job != waits.job || effect.ended != Some(first.began))
            };
            if let Some(waits) = waits.filter(|waits| is_free(waits)) {
                broken("P18_priority", story.seed, &format!("{first:?} before {waits:?}"));
            }
        }
    }
}
