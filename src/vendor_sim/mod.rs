//! A simulated vendor of nightly vitals, for tests and for the demo (feature `demo`).
//!
//! Called by the command line (`vendor-sim`, `demo`) and by tests. It stands for the outside world: it has clocks of
//! its own, speaks HTTP/1.1 with keep-alive over real sockets, and fails in the ways that real vendors fail. It never
//! prints, writes no file, reads no environment, and is used by nothing that a real job needs.
//!
//! Which patient fails how, how slow an answer is and what a night holds are pure functions of a seed, see [`decide`]:
//! two simulators with the same seed are the same vendor, whatever the order of the requests. The rules are those of
//! an independent reference script, whose answers for seed 2026 lie in `tests/data/simulator/`.
//!
//! # Endpoints
//!
//! | endpoint | answer |
//! | --- | --- |
//! | POST `/oauth/token` (form) | `grant_type=client_credentials` (any client) or `refresh_token`: `access_token`, `token_type`, `expires_in` (s), `refresh_token`. A refresh token works once, then 400 `invalid_grant`. The first one of a family NAME is `refresh.NAME.0`. Each 50th request since the reset meets a proxy: HTML under 200 |
//! | GET `/v1/patients?limit=&cursor=` | `{"data":[{"id","tz","hr_base","hr_mad"}],"next_cursor"}`, 500 a page (most 1000), weak `ETag`, 304 |
//! | GET `/v1/patients/{id}/vitals?date=&cursor=` | one page of a night, see below; the faults are here |
//! | GET `/v1/statistics?date=` | `{"date","patients","nights","hr_median","hr_mad"}`, 1 to 3 s slow; 500 with [`Faults::Stats`] |
//! | POST `/v1/acks` | with `Idempotency-Key`: 201, then 200 and `Idempotency-Replayed: true`, 409 for another body |
//! | POST `/v1/exports`, GET `/v1/exports/{id}` | 202 and `Content-Location`; 202 and `Retry-After: 1` for 3 s, then `{"id","status":"done","files":[{"type","url","count"}]}`; the files are NDJSON of patients |
//! | GET `/_sim/stats` | counters since the reset, without the requests to `/_sim` |
//! | GET `/_sim/acks?date=` | what was acknowledged for a date: `{"KEY":{"patient","times"}}`, by idempotency key, and how often it came |
//! | GET `/_sim/expected?date=` | the truth of a night: [`decide::Expected`] |
//! | POST `/_sim/reset` | forgets attempts, acknowledgements, exports, outage and counters; tokens stay good |
//! | POST `/_sim/outage` | `{"after_s":5,"for_s":20,"mode":"503"}`, or `hang`, `refuse`, `reset`; `"for_s":0` ends it. `/_sim` itself stays up but for `refuse`, which closes the listening socket |
//!
//! All of `/v1` wants `Authorization: Bearer TOKEN`, else 401 `token_expired`. Over [`Options::rate`]: 429 and
//! `Retry-After: 1`. Bodies of 256 bytes and more are compressed for a client that takes gzip. Requests refused for
//! their token, the rate or an outage are no attempts.
//!
//! # The body of a night
//!
//! The night of a date begins at 22:00 local time of that date and is 480 minutes long. Minutes count from there.
//!
//! ```json
//! {
//!   "patient": "P00001", "date": "2026-11-22", "tz": "Asia/Shanghai", "utc_offset": "+08:00", "device": "LW-3",
//!   "heart_rate": [[0, 58], [1, 59]],
//!   "resp_rate": [[0, 14]], "spo2": [[0, 96]], "skin_temp": [[0, 36.4]],
//!   "blood_pressure": [["2026-11-22T22:05:00+08:00", 118, 74]],
//!   "next_cursor": null
//! }
//! ```
//!
//! | field | unit and range |
//! | --- | --- |
//! | `tz`, `utc_offset` | the zone's name, and its offset when the night begins; both null for 1 % of the patients, whose times have no offset |
//! | `heart_rate` | `[minute, beats per minute]`, each minute, about 480. Gaps of 3 to 40 minutes; 1 % of the samples come twice (same minute, same value); 2 % of the patients send the newest hour first. Whole numbers, 26 to 125, but for artefacts |
//! | `resp_rate` | `[minute, breaths per minute]`, each 5 minutes, 96 without gaps, 12 to 19 |
//! | `spo2` | `[minute, percent]`, each 5 minutes, 94 to 98 |
//! | `skin_temp` | `[minute, degrees Celsius]`, each 5 minutes, 35.8 to 37.3 |
//! | `blood_pressure` | `[time, systolic, diastolic]` in mmHg, minutes 5, 241 and 476 of the night, 102 to 148 over 62 to 88 |
//! | `next_cursor` | names the next page; null on the last |
//!
//! 4 % of the nights hold no data: all five lists are empty. 3 % are raw and have four pages: heart rate each 5 s in
//! the first 40 minutes of each hour, minutes with two decimals (`[0.08, 58]`), about 12 KB a page in order of time;
//! the other lists are on page 1 and empty on the others.
//!
//! Anomalies, at most one a night; the personal baseline `hr_base` and `hr_mad` is in the list of patients, and
//! `mod_z = 0.6745 * (median - hr_base) / hr_mad`:
//!
//! | anomaly | what the body shows | else |
//! | --- | --- | --- |
//! | tachycardia | median heart rate 35 over `hr_base`, mod_z 5.9 or more | mod_z from -1.35 to 1.35 |
//! | bradycardia | median 24 under `hr_base`, mod_z -4 or less | the same |
//! | bp_crisis | systolic 185 to 210, diastolic 100 to 118, all three readings | systolic under 149 |
//! | low_spo2 | five samples in a row of 85 to 89: first and last are 20 minutes apart | 94 or more |
//! | fever | 38.6 to 39.8 all night | under 37.4 |
//! | artefact | three heart-rate samples of 0, or three of 255; the median is the same with and without them. A matter of data quality, no anomaly of the patient | none |

pub mod body;
mod clock;
pub mod decide;
mod endpoints;
mod http;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

pub use server::{Server, bind};

use crate::limits::{SIM_PATIENTS_MAX, SIM_TOKEN_TTL_MAX};
use decide::Script;

/// The bearer token that is good without [`Options::oauth`].
pub const DEMO_TOKEN: &str = "demo-token";

/// What a simulated vendor is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Two vendors with the same seed decide the same.
    pub seed: u64,
    /// How many patients there are: `P00001` and so on, 99,999 at most.
    pub patients: u32,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Factor on latency, the drip's interval, and the time of statistics and exports; 0 means none at all. Waits that
    /// answers ask for, hangs, outages and the life of tokens are not scaled.
    pub time_scale: f64,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether only tokens of `/oauth/token` are good.
    pub oauth: bool,
    /// Most requests to `/v1` per second, with a burst of one second; None: no limit.
    pub rate: Option<f64>,
    /// How long an access token lives, at most a day.
    pub token_ttl: Duration,
}

/// What goes wrong at a simulated vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// Nothing: every patient is reached at once.
    Off,
    /// What goes wrong at real vendors, each in its share: see [`decide::PatientClass`] and [`decide::Fault`].
    #[default]
    Default,
    /// The same, and `/v1/statistics` answers 500.
    Stats,
}

/// A text that names no [`Faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFaults;

impl Options {
    /// The decisions of this vendor, to compute the truth of a night.
    pub fn script(&self) -> Script {
        Script { seed: self.seed, faults: self.faults != Faults::Off }
    }

    /// The list of patients as CSV: see [`body::patients_csv`].
    pub fn patients_csv(&self) -> String {
        body::patients_csv(&self.script(), self.patients)
    }

    fn check(&self) -> Result<(), &'static str> {
        if !(self.time_scale.is_finite() && self.time_scale >= 0.0) {
            return Err("the time scale must be a number from 0");
        }
        if self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err("the rate must be a number of requests per second over 0");
        }
        if self.patients > SIM_PATIENTS_MAX {
            return Err("there can be 99999 patients at most");
        }
        if self.token_ttl > SIM_TOKEN_TTL_MAX {
            return Err("a token can live for a day at most");
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 2026,
            patients: 200,
            listen: (Ipv4Addr::LOCALHOST, 8787).into(),
            time_scale: 1.0,
            faults: Faults::Default,
            oauth: false,
            rate: None,
            token_ttl: Duration::from_secs(600),
        }
    }
}

impl FromStr for Faults {
    type Err = UnknownFaults;

    fn from_str(text: &str) -> Result<Self, UnknownFaults> {
        match text {
            "off" => Ok(Self::Off),
            "default" => Ok(Self::Default),
            "stats" => Ok(Self::Stats),
            _ => Err(UnknownFaults),
        }
    }
}

impl fmt::Display for UnknownFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faults are one of off, default, stats")
    }
}

impl std::error::Error for UnknownFaults {}
