//! What a simulated vendor remembers: attempts, tokens, acknowledgements, exports, its rate, its outage, its counters.
//!
//! Called by the endpoints and the server, each time with the instant of now. Every memory is bounded. Never does I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use event_listener::{Event, EventListener};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Faults, Options,
    decide::{Script, patient_id},
    http::digest,
};
use crate::limits::{SIM_HANG_MAX, SIM_KEYS_MAX, SIM_NIGHTS_MAX};

/// One vendor's memory, shared by its connections.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) script: Script,
    memory: Mutex<Memory>,
    outage_set: Event,
}

/// What a vendor in an outage does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutageMode {
    /// Answers 503.
    Unavailable,
    /// Never answers.
    Hang,
    /// Does not listen; open connections are reset at their next request.
    Refuse,
    /// Resets the connection.
    Reset,
}

/// A time in which the vendor is down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) from: Instant,
    pub(super) until: Instant,
    pub(super) mode: OutageMode,
}

/// What happened to an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    First,
    Replayed,
    Conflict,
    /// Too many keys are remembered.
    Full,
}

/// Of what an acknowledgement speaks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Acked {
    pub(super) patient: String,
    pub(super) date: String,
}

/// A pair of tokens just given out.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) access: String,
    pub(super) refresh: String,
}

/// A number that goes down again when this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    state: Arc<State>,
    gauge: fn(&mut Counters) -> &mut Gauge,
}

#[derive(Debug, Default)]
struct Memory {
    /// Attempts by date, then by patient and page. Dates sort by age.
    attempts: BTreeMap<String, BTreeMap<(u32, u32), u32>>,
    /// By idempotency key.
    acks: BTreeMap<String, Known>,
    /// What has been acknowledged, by digest of patient and date.
    acked: BTreeSet<u64>,
    exports: BTreeMap<u64, Instant>,
    exports_made: u64,
    token_requests: u64,
    /// Ends of the access tokens by serial. All live equally long, so the first one ends first.
    access: BTreeMap<u64, Instant>,
    access_made: u64,
    /// Rotations by family; a family that is not here has not rotated yet.
    rotations: BTreeMap<String, u64>,
    bucket: Option<(f64, Instant)>,
    outage: Option<Outage>,
    counters: Counters,
}

/// An idempotency key that was seen.
#[derive(Debug)]
struct Known {
    /// Digest of its body.
    body: u64,
    /// How often it came with that body.
    times: u64,
    what: Option<Acked>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: u64,
    by_status: BTreeMap<u16, u64>,
    /// Answers broken on purpose, and clients that left before their answer.
    broken: BTreeMap<&'static str, u64>,
    in_flight: Gauge,
    connections: Gauge,
    bytes_sent: u64,
    acks: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Gauge {
    now: u64,
    max: u64,
    total: u64,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        let script = options.script();
        Self { options, script, memory: Mutex::default(), outage_set: Event::new() }
    }

    /// A vendor's duration in this vendor's time.
    pub(super) fn scaled(&self, duration: Duration) -> Duration {
        let scaled = Duration::try_from_secs_f64(duration.as_secs_f64() * self.options.time_scale);
        scaled.unwrap_or(SIM_HANG_MAX).min(SIM_HANG_MAX)
    }

    /// Whether `/v1/statistics` fails.
    pub(super) fn statistics_fail(&self) -> bool {
        self.options.faults == Faults::Stats
    }

    /// Number of this attempt on a page of a patient's night, from 1. A request that does not count gets the number of
    /// the last one that did.
    pub(super) fn attempt(&self, patient: u32, date: &str, page: u32, counts: bool) -> u32 {
        let mut memory = self.memory();
        if !memory.attempts.contains_key(date) && memory.attempts.len() >= SIM_NIGHTS_MAX {
            memory.attempts.pop_first();
        }
        let attempts = memory.attempts.entry(date.to_owned()).or_default().entry((patient, page)).or_default();
        *attempts = attempts.saturating_add(u32::from(counts));
        (*attempts).max(1)
    }

    /// Takes a token of the rate's bucket, which holds one second's worth. False: too many requests.
    pub(super) fn within_rate(&self, now: Instant) -> bool {
        let Some(rate) = self.options.rate else { return true };
        let burst = rate.max(1.0);
        let mut memory = self.memory();
        let (tokens, at) = memory.bucket.unwrap_or((burst, now));
        let tokens = (tokens + now.saturating_duration_since(at).as_secs_f64() * rate).min(burst);
        let within = tokens >= 1.0;
        memory.bucket = Some((if within { tokens - 1.0 } else { tokens }, now));
        within
    }

    /// Counts a request for a token; true for each 50th, which a proxy answers with HTML.
    pub(super) fn token_request_meets_proxy(&self) -> bool {
        let mut memory = self.memory();
        memory.token_requests += 1;
        memory.token_requests.is_multiple_of(50)
    }

    /// Tokens for a client's own name.
    pub(super) fn grant_to_client(&self, now: Instant) -> Grant {
        let mut memory = self.memory();
        let serial = memory.new_access(now, self.options.token_ttl);
        Grant { access: format!("access.{serial}"), refresh: format!("refresh.client{serial}.0") }
    }

    /// New tokens for a refresh token, which is worth nothing afterwards. None: it is not the newest of its family.
    pub(super) fn rotate(&self, refresh: &str, now: Instant) -> Option<Grant> {
        let (family, rotations) = refresh.strip_prefix("refresh.")?.rsplit_once('.')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if family.is_empty() || family.len() > 64 || !family.chars().all(is_name) {
            return None;
        }
        let mut memory = self.memory();
        let newest = memory.rotations.get(family).copied();
        if rotations != newest.unwrap_or(0).to_string() || (newest.is_none() && memory.rotations.len() >= SIM_KEYS_MAX)
        {
            return None;
        }
        let next = newest.unwrap_or(0) + 1;
        memory.rotations.insert(family.to_owned(), next);
        let serial = memory.new_access(now, self.options.token_ttl);
        Some(Grant { access: format!("access.{serial}"), refresh: format!("refresh.{family}.{next}") })
    }

    /// Whether an access token was given out and still lives.
    pub(super) fn is_live(&self, access: &str, now: Instant) -> bool {
        let serial = access.strip_prefix("access.").and_then(|serial| serial.parse().ok());
        serial.is_some_and(|serial: u64| self.memory().access.get(&serial).is_some_and(|&end| now < end))
    }

    /// Records an acknowledgement; `what` if the body says so.
    pub(super) fn acknowledge(&self, key: &str, body: u64, what: Option<Acked>) -> Ack {
        let mut memory = self.memory();
        let is_full = memory.acks.len() >= SIM_KEYS_MAX;
        let ack = match memory.acks.get_mut(key) {
            Some(known) if known.body == body => {
                known.times += 1;
                Ack::Replayed
            }
            Some(_) => Ack::Conflict,
            None if is_full => Ack::Full,
            None => Ack::First,
        };
        let name = match ack {
            Ack::First => "first",
            Ack::Replayed => "replayed",
            Ack::Conflict => "conflicting",
            Ack::Full => "refused",
        };
        *memory.counters.acks.entry(name).or_default() += 1;
        if ack == Ack::First {
            let digest = what.as_ref().map(|what| digest(format!("{}|{}", what.patient, what.date).as_bytes()));
            if digest.is_some_and(|digest| !memory.acked.insert(digest)) {
                *memory.counters.acks.entry("doubled").or_default() += 1;
            }
            memory.acks.insert(key.to_owned(), Known { body, times: 1, what });
        }
        ack
    }

    /// What was acknowledged for a date, by idempotency key.
    pub(super) fn acknowledged(&self, date: &str) -> Value {
        let memory = self.memory();
        let of_date = memory.acks.iter().filter_map(|(key, known)| {
            let what = known.what.as_ref().filter(|what| what.date == date)?;
            Some((key.clone(), json!({ "patient": what.patient, "times": known.times })))
        });
        Value::Object(of_date.collect())
    }

    /// Starts an export that is ready after `takes`; gives its number.
    pub(super) fn start_export(&self, now: Instant, takes: Duration) -> u64 {
        let mut memory = self.memory();
        memory.exports_made += 1;
        let number = memory.exports_made;
        if memory.exports.len() >= SIM_KEYS_MAX {
            memory.exports.pop_first();
        }
        memory.exports.insert(number, now + takes);
        number
    }

    /// Whether an export is ready; None if there is none.
    pub(super) fn export_is_ready(&self, number: u64, now: Instant) -> Option<bool> {
        self.memory().exports.get(&number).map(|&ready| now >= ready)
    }

    /// Sets the outage, or ends it.
    pub(super) fn set_outage(&self, outage: Option<Outage>) {
        self.memory().outage = outage;
        self.outage_set.notify(usize::MAX);
    }

    /// The outage that is or will be.
    pub(super) fn outage(&self) -> Option<Outage> {
        self.memory().outage
    }

    /// Resolves at the next [`set_outage`](Self::set_outage) after this call.
    pub(super) fn outage_change(&self) -> EventListener {
        self.outage_set.listen()
    }

    /// Forgets attempts, acknowledgements, exports, the outage and the counters. Tokens stay good: their owners keep
    /// them over restarts.
    pub(super) fn reset(&self) {
        let mut memory = self.memory();
        let old = std::mem::take(&mut *memory);
        memory.access = old.access;
        memory.access_made = old.access_made;
        memory.rotations = old.rotations;
        // What is open stays open.
        memory.counters.in_flight = old.counters.in_flight.restarted();
        memory.counters.connections = old.counters.connections.restarted();
        drop(memory);
        self.outage_set.notify(usize::MAX);
    }

    /// Counts an open connection.
    pub(super) fn connected(self: &Arc<Self>) -> Counted {
        Counted::new(self, |counters| &mut counters.connections)
    }

    /// Counts a request that is being answered.
    pub(super) fn received(self: &Arc<Self>) -> Counted {
        self.memory().counters.requests += 1;
        Counted::new(self, |counters| &mut counters.in_flight)
    }

    pub(super) fn count_status(&self, status: u16) {
        *self.memory().counters.by_status.entry(status).or_default() += 1;
    }

    pub(super) fn count_broken(&self, how: &'static str) {
        *self.memory().counters.broken.entry(how).or_default() += 1;
    }

    pub(super) fn count_bytes(&self, bytes: usize) {
        self.memory().counters.bytes_sent += bytes as u64;
    }

    /// The counters since the last reset.
    pub(super) fn stats(&self) -> Value {
        let memory = self.memory();
        let mut attempts = BTreeMap::<u32, u64>::new();
        for (&(patient, _), &count) in memory.attempts.values().flatten() {
            *attempts.entry(patient).or_default() += u64::from(count);
        }
        let attempts: serde_json::Map<_, _> =
            attempts.into_iter().map(|(patient, count)| (patient_id(patient), json!(count))).collect();
        let c = &memory.counters;
        let by_status: serde_json::Map<_, _> =
            c.by_status.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
        let acks = |name| c.acks.get(name).copied().unwrap_or(0);
        json!({
            "requests": c.requests,
            "by_status": by_status,
            "broken": c.broken,
            "in_flight": { "now": c.in_flight.now, "max": c.in_flight.max },
            "connections": { "now": c.connections.now, "max": c.connections.max, "total": c.connections.total },
            "bytes_sent": c.bytes_sent,
            "acks": {
                "first": acks("first"),
                "replayed": acks("replayed"),
                "conflicting": acks("conflicting"),
                "refused": acks("refused"),
                "doubled": acks("doubled"),
            },
            "token_requests": memory.token_requests,
            "attempts": attempts,
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // No step leaves the memory half changed, so a panic elsewhere does not spoil it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn new_access(&mut self, now: Instant, ttl: Duration) -> u64 {
        while self.access.len() >= SIM_KEYS_MAX || self.access.first_key_value().is_some_and(|(_, &end)| end <= now) {
            self.access.pop_first();
        }
        self.access_made += 1;
        self.access.insert(self.access_made, now + ttl);
        self.access_made
    }
}

impl Gauge {
    fn restarted(&self) -> Self {
        Self { now: self.now, max: self.now, total: self.now }
    }
}

impl Counted {
    fn new(state: &Arc<State>, gauge: fn(&mut Counters) -> &mut Gauge) -> Self {
        let mut memory = state.memory();
        let value = gauge(&mut memory.counters);
        value.now += 1;
        value.total += 1;
        value.max = value.max.max(value.now);
        drop(memory);
        Self { state: state.clone(), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut memory = self.state.memory();
        let value = (self.gauge)(&mut memory.counters);
        value.now = value.now.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::clock, *};

    fn state(options: Options) -> State {
        State::new(options)
    }

    #[test]
    fn a_bucket_holds_one_second_and_fills_by_the_rate() {
        let state = state(Options { rate: Some(4.0), ..Options::default() });
        let start = clock::now();
        let taken = |at_ms| (0..10).filter(|_| state.within_rate(start + Duration::from_millis(at_ms))).count();
        assert_eq!([taken(0), taken(500), taken(9000)], [4, 2, 4]);
    }

    #[test]
    fn a_refresh_token_works_once_and_lives_over_a_reset() {
        let state = state(Options::default());
        let now = clock::now();
        let first = state.rotate("refresh.P00001.0", now).expect("the token is known");
        assert!(state.rotate("refresh.P00001.0", now).is_none(), "the old one is worth nothing");
        state.reset();
        let second = state.rotate(&first.refresh, now).expect("the token is known");
        assert!(state.is_live(&first.access, now) && state.is_live(&second.access, now));
        assert!(!state.is_live(&second.access, now + state.options.token_ttl));
        for bad in ["", "refresh.", "refresh..0", "refresh.P00001.01", "refresh.a b.0", "access.1"] {
            assert!(state.rotate(bad, now).is_none(), "{bad}");
        }
    }

    #[test]
    fn attempts_are_counted_by_patient_night_and_page_until_a_reset() {
        let state = state(Options::default());
        let count = |page, counts| state.attempt(7, "2026-11-22", page, counts);
        assert_eq!([count(1, false), count(1, true), count(1, true), count(2, true), count(1, false)], [1, 1, 2, 1, 2]);
        assert_eq!(state.stats()["attempts"], json!({"P00007": 3}));
        state.reset();
        assert_eq!(count(1, true), 1);
        for day in 0..SIM_NIGHTS_MAX {
            state.attempt(7, &format!("2027-{day:04}"), 1, true);
        }
        assert_eq!(state.memory().attempts.len(), SIM_NIGHTS_MAX);
        assert!(!state.memory().attempts.contains_key("2026-11-22"), "the oldest night is forgotten");
    }

    #[test]
    fn the_same_effect_under_another_key_is_doubled() {
        let state = state(Options::default());
        let what = |date: &str| Some(Acked { patient: "P00001".into(), date: date.into() });
        let night = what("2026-11-22");
        assert_eq!(state.acknowledge("a", 1, night.clone()), Ack::First);
        assert_eq!(state.acknowledge("a", 1, night.clone()), Ack::Replayed);
        assert_eq!(state.acknowledge("a", 2, night.clone()), Ack::Conflict);
        assert_eq!(state.acknowledge("b", 1, night), Ack::First);
        assert_eq!(state.acknowledge("c", 3, what("2026-11-23")), Ack::First);
        assert_eq!(state.acknowledge("d", 4, None), Ack::First);
        let acks = &state.stats()["acks"];
        assert_eq!((&acks["first"], &acks["doubled"]), (&json!(4), &json!(1)));
        let once = |times| json!({"patient": "P00001", "times": times});
        assert_eq!(state.acknowledged("2026-11-22"), json!({"a": once(2), "b": once(1)}));
        state.reset();
        assert_eq!(state.acknowledged("2026-11-22"), json!({}));
    }
}
