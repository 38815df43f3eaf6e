//! Weeks, and years, of a machine under random faults: jobs of all kinds, crashes at any poll, stops, new starts of the machine, clocks
//! that are set, sleep, job files that change, commands, a state that fails. Then the faults stop, and everything must be well.
//!
//! One seed alone: `LAMPLIGHTER_SEED=1234 cargo test --test it -- daemon::swarm`.

use super::{
    lab::{Effect, HOUR, Lab, MINUTE, Process, at, job, lock},
    oracles::{self, Story},
};
use crate::seeds::{Swarm, asked_for, parts};
use jiff::Timestamp;
use lamplighter::daemon::{ClockPolicy, ClockSigns, Which};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Seeds from this one on tell of a whole year, those before of weeks.
const YEARS_FROM: u64 = 4_980;
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// How long the machine is well at the end.
pub const HEALING: Duration = Duration::from_secs(40 * 3600);

/// A job that was drawn.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    pub name: String,
    pub timing: String,
    /// Its schedule alone.
    pub schedule: String,
    pub zone: String,
    pub after: Option<String>,
    pub every: Option<Duration>,
    pub on_boot: bool,
    pub overlap: &'static str,
    pub catch_up: &'static str,
    pub window: Option<Duration>,
    pub blackout: Option<(&'static str, &'static str)>,
    pub priority: usize,
    pub is_plain: bool,
    /// Its file goes for long, or its schedule changes.
    pub is_unsteady: bool,
    work: Duration,
}

fn pick<'a, T: ?Sized>(dice: &mut fastrand::Rng, of: &[&'a T]) -> &'a T {
    of[dice.usize(..of.len())]
}

impl Drawn {
    fn draw(dice: &mut fastrand::Rng, name: &str, before: Option<&str>, same: u32) -> Drawn {
        let mut drawn = Drawn { name: name.to_owned(), ..Drawn::default() };
        drawn.zone = pick(dice, &["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"]).to_owned();
        let calendar = |dice: &mut fastrand::Rng| match dice.u32(..5) {
            0 => format!("Cron(\"{} */{} * * *\")", dice.u32(..60), dice.u32(3..9)),
            1 => format!("Cron(\"30 2 * * {}\")", dice.u32(..7)),
            2 => format!("Cron(\"{same} 2 * * *\")"),
            _ => format!("Cron(\"{} {} * * *\")", dice.u32(..60), dice.u32(..5)),
        };
        drawn.schedule = match (dice.u32(..10), before) {
            (0, _) => {
                let hours = dice.u64(5..30);
                drawn.every = Some(HOUR * hours as u32);
                format!("Every(\"{hours}h\")")
            }
            (1, _) => {
                drawn.on_boot = true;
                format!("OnBoot(\"{}m\")", dice.u32(1..20))
            }
            (2 | 3, Some(before)) => {
                drawn.after = Some(before.to_owned());
                match dice.u32(..3) {
                    0 => format!("AnyOf([After(job: \"{before}\"), {}])", calendar(dice)),
                    _ => format!("After(job: \"{before}\")"),
                }
            }
            (4, _) => format!("AnyOf([{}, {}])", calendar(dice), calendar(dice)),
            _ => calendar(dice),
        };
        drawn.overlap = pick(dice, &["Skip", "Skip", "Queue", "Replace", "Allow(max: 2)"]);
        drawn.catch_up = pick(dice, &["Latest", "Latest", "Never", "All(max: 3)"]);
        drawn.priority = dice.usize(..3);
        drawn.work = *pick(dice, &[&Duration::ZERO, &MINUTE, &(20 * MINUTE), &(2 * HOUR), &(5 * HOUR)]);
        let mut more = format!("overlap: {}, catch_up: {}, ", drawn.overlap, drawn.catch_up);
        more += &format!("priority: {}, ", ["High", "Normal", "Low"][drawn.priority]);
        drawn.is_plain = true;
        if dice.u32(..3) == 0 {
            let hours = dice.u32(1..30);
            drawn.window = Some(HOUR * hours);
            more += &format!("catch_up_window: \"{hours}h\", ");
        }
        if dice.u32(..4) == 0 {
            drawn.is_plain = false;
            more += &format!("splay: \"{}m\", ", dice.u32(1..90));
        }
        if dice.u32(..5) == 0 {
            drawn.is_plain = false;
            drawn.blackout = Some([("02:15", "03:30"), ("22:00", "01:00"), ("00:30", "02:31")][dice.usize(..3)]);
            let (begin, end) = drawn.blackout.expect("just drawn");
            more += &format!("blackout: [(\"{begin}\", \"{end}\")], ");
            more += &format!("blackout_policy: {}, ", pick(dice, &["Skip", "Delay"]));
        }
        if dice.u32(..4) == 0 {
            more += "start_window: \"20m\", ";
        }
        drawn.is_unsteady = dice.u32(..5) == 0;
        drawn.timing = format!("timezone: \"{}\", schedule: {}, {more}", drawn.zone, drawn.schedule);
        drawn
    }

    fn text(&self, more: u64) -> String {
        job(&self.timing, self.work + Duration::from_millis(more))
    }
}

/// Which faults a seed has.
struct Faults {
    steps: bool,
    far_steps: bool,
    suspends: bool,
    reloads: bool,
    commands: bool,
    pauses: bool,
    boots: bool,
    lost_clock: bool,
    polls: bool,
    fails: bool,
}

impl Faults {
    fn draw(dice: &mut fastrand::Rng) -> Faults {
        let mut on = |of: u32| dice.u32(..of) == 0;
        Faults {
            steps: on(3),
            far_steps: on(5),
            suspends: on(3),
            reloads: on(2),
            commands: on(3),
            pauses: on(4),
            boots: on(2),
            lost_clock: on(4),
            polls: on(2),
            fails: on(5),
        }
    }
}

/// A pause that somebody asked for.
#[derive(Clone, Debug)]
pub struct Paused {
    pub job: String,
    pub from: u64,
    pub to: u64,
    pub until: Option<Timestamp>,
}

/// What happened in a process.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    pub steps: u32,
    pub sleeps: u32,
    /// The clock was set back by more than the daemon takes for a small correction.
    pub far_back: bool,
    pub boot: u64,
    /// The job whose file was away when it ended: nobody can tell how long it was.
    pub away: Option<String>,
    /// Real time that it lived.
    pub lived: Duration,
}

/// Runs one seed and holds everything.
pub fn seed(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let dice = &mut dice;
    let faults = Faults::draw(dice);
    let mut lab = Lab::new(seed);
    let start = at(pick(
        dice,
        &["2026-11-22T12:00:00Z", "2027-03-25T12:00:00Z", "2026-10-20T05:00:00Z", "2026-04-01T01:00:00Z"],
    ));
    lab.sim.set_wall(start);
    lab.options.built = at("2026-01-01T00:00:00Z");
    lab.options.max_running_jobs = dice.usize(1..4);
    if faults.lost_clock {
        lab.options.clock = ClockPolicy::Auto;
    }
    *lock(&lab.desk.signs) = ClockSigns { is_synchronised: true, has_battery: false };
    let same = dice.u32(..60);
    let mut jobs: Vec<Drawn> = Vec::new();
    for name in ["a", "b", "c", "d"].into_iter().take(dice.usize(1..5)) {
        let before = jobs.last().map(|before| before.name.clone());
        jobs.push(Drawn::draw(dice, name, before.as_deref(), same));
    }
    for drawn in &jobs {
        lab.write(&drawn.name, drawn.timing.as_str(), drawn.work);
    }
    let mut story =
        Story { seed, start, jobs: jobs.clone(), max_running: lab.options.max_running_jobs, ..Story::default() };
    let mut boot = 0;
    let (lives, mut lived, mut told) = (dice.usize(3..9), 0, Duration::ZERO);
    while lived < lives || seed >= YEARS_FROM && told < YEAR {
        lived += 1;
        let passed = Arc::new(std::sync::Mutex::new(Passed { boot, ..Passed::default() }));
        let length = HOUR * dice.u32(1..60);
        told += length;
        let began = lab.sim.world().boot();
        let inside = story_of(dice.u64(..), length, &faults, &jobs, passed.clone(), &mut story.paused);
        let polls = [40, 400, 3000][dice.usize(..3)];
        match dice.u32(..6) {
            0 | 1 if faults.polls => {
                lab.serve_until_poll(dice.u64(1..polls), async |p| inside.tell(p).await);
            }
            2 if faults.fails => {
                lab.serve_until_request(dice.i64(1..300), async |p| inside.tell(p).await);
            }
            3 | 4 => {
                let took = lab.serve(async |p| {
                    inside.tell(p).await;
                    p.stop().await
                });
                if took > Duration::from_secs(15) {
                    oracles::broken("P8_a_stop_ends_in_time", seed, &format!("it took {took:?}"));
                }
            }
            _ => lab.serve(async |p| inside.tell(p).await),
        }
        let mut passed = lock(&passed).clone();
        {
            let mut highest = lock(&lab.desk.highest);
            *highest = (*highest).max(lab.sim.world().wall());
        }
        passed.lived = lab.sim.world().boot().since(began);
        for drawn in story.jobs.iter_mut().filter(|drawn| passed.away.as_ref() == Some(&drawn.name)) {
            drawn.is_unsteady = true;
        }
        story.passed.push(passed);
        oracles::mark_holds(&lab, &mut story);
        let down = match dice.u32(..4) {
            0 => Duration::from_secs(dice.u64(1..90)),
            1 | 2 => MINUTE * dice.u32(1..300),
            _ => HOUR * dice.u32(5..90),
        };
        told += down;
        if faults.boots && dice.bool() {
            boot += 1;
            let lost = faults.lost_clock && dice.bool();
            // A clock that was lost, and is not any more, is right again.
            let right = lab.sim.world().wall().max(*lock(&lab.desk.highest)).checked_add(down).expect("a time");
            let wall = if lost { at("1970-01-01T00:00:05Z") } else { right };
            lab.reboot(down, Some(wall));
            lock(&lab.desk.signs).is_synchronised = !lost;
        } else {
            lab.down(down);
        }
    }
    // The faults stop.
    let latest = story.latest.max(lab.sim.world().wall());
    let began = lab.sim.world().boot();
    for drawn in &jobs {
        lab.desk.write(&drawn.name, &drawn.text(0));
    }
    let healed_from = lab.serve(async |p| {
        if p.world.wall() < start {
            p.sim.set_wall(latest);
        }
        lock(&p.desk.signs).is_synchronised = true;
        p.pass(MINUTE).await;
        let now = p.desk.tick();
        story.paused.iter_mut().for_each(|paused| paused.to = paused.to.min(now));
        p.handle.resume(Which::All).await.expect("it lives");
        let from = p.world.wall();
        p.pass(HEALING).await;
        from
    });
    let lived = lab.sim.world().boot().since(began);
    story.passed.push(Passed { steps: 1, boot, lived, ..Passed::default() });
    story.healed_from = Some(healed_from);
    if asked_for().is_some() {
        eprintln!("{:#?}\n{:#?}", story.jobs, story.passed);
        eprintln!(
            "healed from {healed_from} until {}: {:#?}",
            lab.sim.world().wall(),
            jobs.iter().map(|drawn| lab.told(&drawn.name)).collect::<Vec<_>>()
        );
    }
    oracles::holds(&lab, &story);
}

/// What happens in one process.
struct Inside<'a> {
    seed: u64,
    length: Duration,
    faults: &'a Faults,
    jobs: &'a [Drawn],
    passed: Arc<std::sync::Mutex<Passed>>,
    paused: std::cell::RefCell<&'a mut Vec<Paused>>,
}

fn story_of<'a>(
    seed: u64,
    length: Duration,
    faults: &'a Faults,
    jobs: &'a [Drawn],
    passed: Arc<std::sync::Mutex<Passed>>,
    paused: &'a mut Vec<Paused>,
) -> Inside<'a> {
    Inside { seed, length, faults, jobs, passed, paused: std::cell::RefCell::new(paused) }
}

impl Inside<'_> {
    async fn tell(&self, p: &Process<'_>) {
        let mut dice = fastrand::Rng::with_seed(self.seed);
        let dice = &mut dice;
        let mut left = self.length;
        loop {
            // Never at a whole second: nothing else happens then.
            let next = (HOUR * dice.u32(1..20) / dice.u32(1..9) + Duration::from_micros(777)).min(left);
            p.pass(next).await;
            left -= next;
            if left.is_zero() {
                return;
            }
            self.act(dice, p).await;
        }
    }

    async fn act(&self, dice: &mut fastrand::Rng, p: &Process<'_>) {
        let faults = self.faults;
        match dice.u32(..8) {
            0 if faults.steps => self.step(dice, p, [30, 600, 7200, 80_000][dice.clone().usize(..4)]),
            1 if faults.far_steps => self.step(dice, p, 40 * 86_400),
            2 | 3 if faults.suspends => {
                lock(&self.passed).sleeps += 1;
                p.sim.suspend(MINUTE * dice.u32(1..900));
                p.pass(Duration::from_millis(3)).await;
            }
            4 if faults.reloads => self.edit(dice, p).await,
            5 if faults.commands => {
                let drawn = &self.jobs[dice.usize(..self.jobs.len())];
                match dice.u32(..3) {
                    0 => drop(p.run(&drawn.name).await),
                    1 => drop(p.handle.cancel(&drawn.name, "a person", false).await),
                    _ => drop(p.handle.retry(&drawn.name, false, None).await),
                }
            }
            6 if faults.pauses => self.pause(dice, p).await,
            7 if faults.lost_clock && !lock(&p.desk.signs).is_synchronised => {
                // The network is there at last.
                let highest = *lock(&p.desk.highest);
                p.sim.set_wall(highest.checked_add(jiff::SignedDuration::from_hours(30)).expect("a time"));
                lock(&self.passed).steps += 1;
                lock(&p.desk.signs).is_synchronised = true;
                p.pass(MINUTE).await;
            }
            _ => {}
        }
    }

    fn step(&self, dice: &mut fastrand::Rng, p: &Process<'_>, most: i64) {
        let by = jiff::SignedDuration::from_secs(dice.i64(1..=most));
        let (wall, back) = (p.world.wall(), dice.bool());
        let to = if back { wall.checked_sub(by) } else { wall.checked_add(by) }.expect("a time");
        let mut highest = lock(&p.desk.highest);
        if lock(&p.desk.signs).is_synchronised {
            *highest = (*highest).max(wall);
        }
        let mut passed = lock(&self.passed);
        passed.steps += 1;
        passed.far_back |= highest.duration_since(to) > jiff::SignedDuration::from_hours(23);
        drop((highest, passed));
        p.sim.set_wall(to);
    }

    async fn edit(&self, dice: &mut fastrand::Rng, p: &Process<'_>) {
        let drawn = &self.jobs[dice.usize(..self.jobs.len())];
        let name = &drawn.name;
        match dice.u32(..4) {
            0 => {
                p.desk.write(name, "Job(nonsense");
                p.handle.files_changed().await;
                p.pass(MINUTE * dice.u32(1..200)).await;
            }
            1 => {
                p.desk.remove(name);
                lock(&self.passed).away = Some(name.clone());
                p.handle.files_changed().await;
                let long = if drawn.is_unsteady { 9000 } else { 100 };
                p.pass(Duration::from_secs(dice.u64(1..long))).await;
            }
            2 => {
                for _ in 0..30 {
                    p.desk.write(name, &drawn.text(dice.u64(..10)));
                    p.handle.files_changed().await;
                }
            }
            _ if drawn.is_unsteady => {
                p.desk.write(name, &drawn.text(0).replace(&drawn.schedule, "Cron(\"17 */5 * * *\")"));
                p.handle.files_changed().await;
                p.pass(HOUR * dice.u32(1..9)).await;
            }
            _ => {}
        }
        p.desk.write(name, &drawn.text(dice.u64(..10)));
        p.handle.files_changed().await;
        p.reload().await;
        lock(&self.passed).away = None;
    }

    async fn pause(&self, dice: &mut fastrand::Rng, p: &Process<'_>) {
        let drawn = &self.jobs[dice.usize(..self.jobs.len())];
        let which = Which::Job(drawn.name.clone());
        if dice.bool() {
            let by = jiff::SignedDuration::from_hours(dice.i64(1..40));
            let until = dice.bool().then(|| p.world.wall().checked_add(by).expect("a time"));
            self.end_pause(&drawn.name, p);
            if p.handle.pause(which, until).await.is_ok() {
                let from = p.desk.tick();
                self.paused.borrow_mut().push(Paused { job: drawn.name.clone(), from, to: u64::MAX, until });
            }
        } else {
            self.end_pause(&drawn.name, p);
            let _ = p.handle.resume(which).await;
        }
    }

    /// Whatever becomes of the question: from here on the old pause is certain no more.
    fn end_pause(&self, job: &str, p: &Process<'_>) {
        let now = p.desk.tick();
        for paused in self.paused.borrow_mut().iter_mut().filter(|paused| paused.job == job) {
            paused.to = paused.to.min(now);
        }
    }
}

/// The first effect of each run.
pub fn firsts(effects: &[Effect]) -> BTreeMap<&str, &Effect> {
    let mut firsts = BTreeMap::new();
    for effect in effects {
        firsts.entry(effect.run.as_str()).or_insert(effect);
    }
    firsts
}

pub const SWARM: Swarm = Swarm { module: "daemon::swarm", seeds: 5000, parts: 4, in_a_row: 1, seed };

parts! {
    every_promise_of_the_daemon_holds_under_every_seed_0: 0,
    every_promise_of_the_daemon_holds_under_every_seed_1: 1,
    every_promise_of_the_daemon_holds_under_every_seed_2: 2,
    every_promise_of_the_daemon_holds_under_every_seed_3: 3,
}
