//! The decisions of the simulated vendor, as pure functions of (seed, patient, date, page, attempt).
//!
//! Called by [`body`](super::body) and the endpoints, and by tests that compute the truth of a night. No random state:
//! neither order nor concurrency of requests changes what a patient's night looks like. Never reads a clock and never
//! does I/O.
//!
//! Origin: a reference script computes the same decisions independently. Its answers for seed 2026 and the night of
//! 2026-11-22 are kept under `tests/data/simulator/`, and the tests below hold this file to them.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write},
    time::Duration,
};

use serde::Serialize;

/// Counted attempts per page of the client that [`Script::expected`] has in mind.
pub const MODEL_ATTEMPTS: u32 = 4;

/// Declares an enum whose members have a name on the wire and a share of the population.
macro_rules! shares {
    ($(#[$doc:meta])* $type:ident, $table:ident { $($(#[$member_doc:meta])* $member:ident $name:literal $share:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$member_doc])* $member,)*
        }

        impl $type {
            /// The name used in `/_sim/expected` and in the reference files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$member => $name,)*
                }
            }
        }

        const $table: &[($type, f64)] = &[$(($type::$member, $share),)*];
    };
}

shares! {
    /// What is wrong with a patient whatever the night; most have none.
    PatientClass, CLASSES {
        /// 404: the vendor does not know the patient any more.
        Gone "gone_404" 0.003,
        /// 403: the patient has withdrawn the consent.
        Revoked "revoked_403" 0.002,
        /// Every request answers 500.
        Broken "broken_500" 0.001,
        /// No request is ever answered.
        Hang "hang" 0.0004,
        /// Every body is cut JSON with a right length.
        BadJson "bad_json" 0.0004,
        /// Every body is 64 MiB long, chunked.
        Huge "huge" 0.0002,
    }
}

shares! {
    /// What goes wrong with one request of a patient without a [`PatientClass`]. The shares are those of the first
    /// attempt on the first page.
    Fault, FAULTS {
        /// 429 with `Retry-After` in seconds.
        TooManySeconds "429_seconds" 0.010,
        /// 429 with `Retry-After` as an HTTP date.
        TooManyDate "429_date" 0.002,
        /// 429 with nothing but `RateLimit-Reset: 2`.
        TooManyBare "429_bare" 0.002,
        /// 503 with `Retry-After` in seconds.
        Unavailable "503_retry_after" 0.003,
        /// A plain 500.
        ServerError "500" 0.010,
        /// 502 with an HTML page, as a proxy gives it.
        BadGateway "502_html" 0.002,
        /// The request is read and never answered.
        Hang "hang" 0.003,
        /// The connection is reset before a byte of the answer.
        Reset "reset" 0.003,
        /// The connection is reset in the middle of the body.
        ResetMidBody "reset_mid_body" 0.002,
        /// `Content-Length` is 500 too long, then FIN.
        ShortBody "short_body" 0.002,
        /// The JSON is cut in the middle; the length is right.
        BadJson "bad_json" 0.002,
        /// The body comes one byte each 200 ms.
        Drip "drip" 0.002,
        /// 200 with `{"status":601,"error":"too many requests"}`.
        ErrorBody "200_error_body" 0.002,
        /// 307 to the same path with `r=1`, which is answered whole.
        Redirect "307" 0.002,
    }
}

shares! {
    /// What a night's data hold besides a healthy sleep; most hold nothing.
    Anomaly, ANOMALIES {
        /// Median heart rate 35 bpm over the personal baseline.
        Tachycardia "tachycardia" 0.006,
        /// Median heart rate 24 bpm under the personal baseline.
        Bradycardia "bradycardia" 0.003,
        /// Systolic pressure of 185 to 210 mmHg.
        PressureCrisis "bp_crisis" 0.004,
        /// Oxygen saturation of 85 to 89 % for 20 minutes.
        LowSpo2 "low_spo2" 0.003,
        /// Temperature of 38.6 to 39.8 degrees Celsius.
        Fever "fever" 0.004,
        /// Three heart-rate samples of 0 or 255: a matter of data quality, never an anomaly of the patient.
        Artefact "artefact" 0.010,
    }
}

shares! {
    /// Where a patient lives.
    Zone, ZONES {
        /// UTC+8 all year.
        Shanghai "Asia/Shanghai" 0.80,
        /// UTC+1, +2 in summer.
        Berlin "Europe/Berlin" 0.10,
        /// UTC-5, -4 in summer.
        NewYork "America/New_York" 0.05,
        /// UTC+5:30 all year.
        Kolkata "Asia/Kolkata" 0.04,
        /// The vendor does not know: times come without an offset, `tz` and `utc_offset` are null.
        Naive "" 0.01,
    }
}

/// What the vendor knows of a patient whatever the night.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baseline {
    /// Usual median heart rate at night, in beats per minute, one decimal, 50 to 75.
    pub hr_base: f64,
    /// Median absolute deviation of the nightly medians, in beats per minute, one decimal, 1.5 to 4.
    pub hr_mad: f64,
    /// Where the patient lives.
    pub zone: Zone,
}

/// All decisions of one simulated vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Two vendors with the same seed decide the same.
    pub seed: u64,
    /// Without faults every patient is reachable and every attempt is answered well; data and latency stay the same.
    pub faults: bool,
}

/// What a client with a given number of counted attempts must find in a night: the truth that tests compare with.
#[derive(Clone, Debug, Serialize)]
pub struct Expected {
    /// Seed of the script.
    pub seed: u64,
    /// The night, `YYYY-MM-DD`.
    pub date: String,
    /// How many patients there are.
    pub patients: u32,
    /// Patients by [`PatientClass`].
    pub class: BTreeMap<&'static str, u32>,
    /// Patients without a class by the [`Fault`] of their first attempt.
    pub first_attempt_fault: BTreeMap<&'static str, u32>,
    /// `ok` (with or without data) and `failed`.
    pub outcome: BTreeMap<&'static str, u32>,
    /// Failed patients by class, or by the fault of the last attempt.
    pub failed_by_cause: BTreeMap<&'static str, u32>,
    /// Patients reached whose lists are empty.
    pub no_data: u32,
    /// Patients reached whose night has four pages.
    pub raw_4_pages: u32,
    /// Requests that the client makes, redirects included.
    pub requests_by_model_client: u64,
    /// Patients reached with data by [`Anomaly`], artefacts included.
    pub anomalies: BTreeMap<&'static str, u32>,
    /// Length of `anomalous`.
    pub anomalous_patients: u32,
    /// Keys of the patients that are never reached, in order.
    pub failed: Vec<String>,
    /// Keys of the patients with an anomaly (artefacts are none), in order.
    pub anomalous: Vec<String>,
    /// Keys of the patients with artefacts, in order.
    pub artefacts: Vec<String>,
    /// Keys of the patients reached whose lists are empty, in order.
    pub empty: Vec<String>,
}

/// A number from 0 (included) to 1 (excluded) that depends on its arguments only: 64-bit FNV-1a of the text
/// `seed|what|patient|date|n`, mixed by the finalizer of splitmix64.
pub fn u(seed: u64, what: impl Display, patient: &str, date: &str, n: u64) -> f64 {
    // 53 bits fill a double's mantissa exactly.
    (bits(seed, what, patient, date, n) >> 11) as f64 / 9_007_199_254_740_992.0
}

/// The 64 bits behind [`u`]: a seed for long rows of values.
pub fn bits(seed: u64, what: impl Display, patient: &str, date: &str, n: u64) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    // Writing to a hash cannot fail.
    let _ = write!(fnv, "{seed}|{what}|{patient}|{date}|{n}");
    mix(fnv.0)
}

/// Key of the patient with a number from 1.
pub fn patient_id(number: u32) -> String {
    format!("P{number:05}")
}

/// Number of the patient with this key, if it is one of the first `patients`.
pub fn patient_number(id: &str, patients: u32) -> Option<u32> {
    let number: u32 = id.strip_prefix('P')?.parse().ok()?;
    ((1..=patients).contains(&number) && patient_id(number) == id).then_some(number)
}

impl Script {
    /// What is wrong with the patient whatever the night.
    pub fn class(&self, patient: &str) -> Option<PatientClass> {
        if !self.faults {
            return None;
        }
        pick(self.u("class", patient, "-", 0), CLASSES)
    }

    /// What goes wrong with one request. `page` and `attempt` count from 1. Patients with a class have other troubles;
    /// the caller asks for [`class`](Self::class) first.
    pub fn fault(&self, patient: &str, date: &str, page: u32, attempt: u32) -> Option<Fault> {
        if !self.faults {
            return None;
        }
        let n = u64::from(attempt);
        if page > 1 {
            let met = attempt == 1 && self.u(format_args!("page{page}"), patient, date, n) < 0.05;
            return met.then_some(Fault::ServerError);
        }
        let x = self.u("fault", patient, date, n);
        if attempt == 1 { pick(x, FAULTS) } else { (x < 0.10).then_some(Fault::ServerError) }
    }

    /// Pages of the patient's night: 1, or 4 with samples each 5 seconds.
    pub fn pages(&self, patient: &str, date: &str) -> u32 {
        if self.u("raw", patient, date, 0) < 0.03 { 4 } else { 1 }
    }

    /// Whether the watch lay in a drawer that night.
    pub fn no_data(&self, patient: &str, date: &str) -> bool {
        self.u("nodata", patient, date, 0) < 0.04
    }

    /// What the night's data hold, if there are any data.
    pub fn anomaly(&self, patient: &str, date: &str) -> Option<Anomaly> {
        pick(self.u("anom", patient, date, 0), ANOMALIES)
    }

    /// How long the vendor thinks before it answers, at time scale 1: log-normal with a median of 60 ms, one answer in
    /// 200 some seconds slower.
    pub fn latency(&self, patient: &str, date: &str, page: u32, attempt: u32) -> Duration {
        let n = u64::from(page) * 100 + u64::from(attempt);
        let a = self.u("lat1", patient, date, n).max(1e-12);
        let b = self.u("lat2", patient, date, n);
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        let x = self.u("slow", patient, date, n);
        let slow_ms = if x < 0.005 { 2000.0 + 2000.0 * x / 0.005 } else { 0.0 };
        Duration::from_secs_f64((60.0 * (0.6 * normal).exp() + slow_ms) / 1000.0)
    }

    /// How long `/v1/statistics` takes, at time scale 1: 1 to 3 seconds.
    pub fn statistics_latency(&self, date: &str) -> Duration {
        Duration::from_secs_f64(1.0 + 2.0 * self.u("statistics", "-", date, 0))
    }

    /// Seconds that a 429 or 503 asks the client to wait: 1 to 3.
    pub fn retry_after_s(&self, patient: &str, date: &str, attempt: u32) -> u64 {
        1 + (3.0 * self.u("ra", patient, date, u64::from(attempt))) as u64
    }

    /// What the vendor knows of the patient whatever the night.
    pub fn baseline(&self, patient: &str) -> Baseline {
        let one_decimal = |x: f64| (x * 10.0).round() / 10.0;
        Baseline {
            hr_base: one_decimal(50.0 + 25.0 * self.u("base", patient, "-", 0)),
            hr_mad: one_decimal(1.5 + 2.5 * self.u("mad", patient, "-", 0)),
            zone: pick(self.u("zone", patient, "-", 0), ZONES).unwrap_or(Zone::Naive),
        }
    }

    /// What a client must find in the night of `date` that tries each page `attempts` times, not counting answers that
    /// say how long to wait. [`MODEL_ATTEMPTS`] is the usual number.
    pub fn expected(&self, date: &str, patients: u32, attempts: u32) -> Expected {
        let mut expected = Expected {
            seed: self.seed,
            date: date.to_owned(),
            patients,
            class: BTreeMap::new(),
            first_attempt_fault: BTreeMap::new(),
            outcome: BTreeMap::from([("ok", 0), ("failed", 0)]),
            failed_by_cause: BTreeMap::new(),
            no_data: 0,
            raw_4_pages: 0,
            requests_by_model_client: 0,
            anomalies: BTreeMap::new(),
            anomalous_patients: 0,
            failed: Vec::new(),
            anomalous: Vec::new(),
            artefacts: Vec::new(),
            empty: Vec::new(),
        };
        for number in 1..=patients {
            self.expect_patient(&mut expected, patient_id(number), date, attempts);
        }
        expected.anomalous_patients = expected.anomalous.len() as u32;
        expected
    }

    fn expect_patient(&self, expected: &mut Expected, patient: String, date: &str, attempts: u32) {
        match self.class(&patient) {
            Some(class) => add(&mut expected.class, class.name()),
            None => {
                if let Some(fault) = self.fault(&patient, date, 1, 1) {
                    add(&mut expected.first_attempt_fault, fault.name());
                }
            }
        }
        let (requests, failure) = self.model_client(&patient, date, attempts);
        expected.requests_by_model_client += requests;
        if let Some(cause) = failure {
            add(&mut expected.outcome, "failed");
            add(&mut expected.failed_by_cause, cause);
            expected.failed.push(patient);
            return;
        }
        add(&mut expected.outcome, "ok");
        if self.pages(&patient, date) > 1 {
            expected.raw_4_pages += 1;
        }
        if self.no_data(&patient, date) {
            expected.no_data += 1;
            expected.empty.push(patient);
        } else if let Some(anomaly) = self.anomaly(&patient, date) {
            add(&mut expected.anomalies, anomaly.name());
            let keys = if anomaly == Anomaly::Artefact { &mut expected.artefacts } else { &mut expected.anomalous };
            keys.push(patient);
        }
    }

    /// Requests made for one patient, and why it is never reached.
    fn model_client(&self, patient: &str, date: &str, attempts: u32) -> (u64, Option<&'static str>) {
        let class = self.class(patient);
        let mut requests = 0;
        if let Some(class @ (PatientClass::Gone | PatientClass::Revoked | PatientClass::Huge)) = class {
            return (1, Some(class.name()));
        }
        for page in 1..=self.pages(patient, date) {
            let (mut attempt, mut counted) = (0, 0);
            loop {
                attempt += 1;
                requests += 1;
                let cause = match class {
                    Some(class) => class.name(),
                    None => match self.fault(patient, date, page, attempt) {
                        None => break,
                        Some(Fault::Redirect) => {
                            requests += 1;
                            break;
                        }
                        // These say how long to wait, which a client does not count. They come at attempt 1 only.
                        Some(Fault::TooManySeconds | Fault::TooManyDate | Fault::TooManyBare | Fault::Unavailable) => {
                            continue;
                        }
                        Some(fault) => fault.name(),
                    },
                };
                counted += 1;
                if counted >= attempts {
                    return (requests, Some(cause));
                }
            }
        }
        (requests, None)
    }

    fn u(&self, what: impl Display, patient: &str, date: &str, n: u64) -> f64 {
        u(self.seed, what, patient, date, n)
    }
}

/// A cheap row of numbers that look random, for samples: splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 (included) to 1 (excluded).
    pub(super) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i32, high: i32) -> i32 {
        low + (self.next() * f64::from(high - low + 1)) as i32
    }
}

struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}

fn mix(mut z: u64) -> u64 {
    z ^= z >> 30;
    z = z.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 27;
    z = z.wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The member of a cumulative table that `x` falls into. Subtracts in the table's order, as the reference does, so that
/// both round alike.
fn pick<T: Copy>(mut x: f64, table: &[(T, f64)]) -> Option<T> {
    for &(member, share) in table {
        if x < share {
            return Some(member);
        }
        x -= share;
    }
    None
}

fn add(counts: &mut BTreeMap<&'static str, u32>, name: &'static str) {
    *counts.entry(name).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const NIGHT: &str = "2026-11-22";
    const SCRIPT: Script = Script { seed: 2026, faults: true };
    const REFERENCES: [&str; 2] = [
        include_str!("../../tests/data/simulator/expected_2026_200.json"),
        include_str!("../../tests/data/simulator/expected_2026_5000.json"),
    ];

    #[test]
    fn every_decision_equals_the_reference() {
        for text in REFERENCES {
            let reference: Value = serde_json::from_str(text).expect("it is well formed");
            let patients = reference["patients"].as_u64().expect("a number") as u32;
            let mut ours =
                serde_json::to_value(SCRIPT.expected(NIGHT, patients, MODEL_ATTEMPTS)).expect("it can be written");
            let checks = [u(42, "class", "P00001", "-", 0), u(42, "fault", "P00002", NIGHT, 1)];
            ours["check_u"] = checks.map(|x| (x * 1e12).round() / 1e12).to_vec().into();
            ours["latency_ms_p50_p95_p99_max"] = latencies(patients).to_vec().into();
            for (name, value) in reference.as_object().expect("an object") {
                // The time that the model client needs is a property of that client.
                if name != "model_wall_s_32_workers" {
                    assert_eq!(&ours[name], value, "{name} of {patients} patients");
                }
            }
        }
    }

    fn latencies(patients: u32) -> [f64; 4] {
        let latency = |number| SCRIPT.latency(&patient_id(number), NIGHT, 1, 1);
        let mut all: Vec<Duration> = (1..=patients).map(latency).collect();
        all.sort();
        let at = |quantile: f64| all[(all.len() as f64 * quantile) as usize];
        [at(0.5), at(0.95), at(0.99), all[all.len() - 1]].map(|d| (d.as_secs_f64() * 1e4).round() / 10.0)
    }

    #[test]
    fn retries_are_what_makes_the_night() {
        let failed = [1, 2, 3, 4].map(|attempts| SCRIPT.expected(NIGHT, 5000, attempts).failed.len());
        // As the reference script counts them, when stated waits are not counted as attempts.
        assert_eq!(failed, [197, 56, 42, 40]);
    }

    #[test]
    fn without_faults_everybody_is_reached_at_once_and_the_data_stay_the_same() {
        let calm = Script { faults: false, ..SCRIPT }.expected(NIGHT, 5000, 1);
        assert_eq!((calm.outcome["ok"], calm.failed.len()), (5000, 0));
        assert!(SCRIPT.expected(NIGHT, 5000, 4).anomalous.iter().all(|key| calm.anomalous.contains(key)));
    }

    #[test]
    fn a_key_has_one_spelling() {
        assert_eq!(patient_number("P00200", 200), Some(200));
        for id in ["P00201", "P00000", "P200", "P+0020", "P000200", "00200", "", "P"] {
            assert_eq!(patient_number(id, 200), None, "{id}");
        }
    }
}
