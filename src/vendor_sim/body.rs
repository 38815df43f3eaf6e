//! The bodies of the simulated vendor: nights of vitals, the list of patients, the population's figures.
//!
//! Called by the endpoints, and by tests that want a body without a server. The shapes and units are described in
//! [`vendor_sim`](super). Everything follows from the [`Script`]; never reads a clock and never does I/O.

use std::fmt::Write;

use jiff::{SignedDuration, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::decide::{Anomaly, Noise, Script, Zone, bits, patient_id, u};

/// Minutes of a night, from 22:00 local time of its date.
pub const NIGHT_MINUTES: u32 = 480;
/// Minutes between two samples of `resp_rate`, `spo2` and `skin_temp`.
pub const SLOW_SAMPLE_MINUTES: u32 = 5;

/// One page of the vitals of a patient and night, as JSON text. `page` counts from 1; a page past the last one holds
/// no samples and no cursor.
pub fn vitals(script: &Script, patient: &str, date: Date, page: u32) -> String {
    let night = Night::new(script, patient, date);
    let zone = time_zone(night.zone);
    let offset = zone.as_ref().and_then(|zone| local_time(date, 0, Some(zone), "%:z"));
    let mut body = String::with_capacity(16 << 10);
    // Writing to a string cannot fail, here and below. Nothing written needs escaping.
    let _ = write!(body, r#"{{"patient":"{patient}","date":"{date}","tz":"#);
    push_text(&mut body, zone.is_some().then(|| night.zone.name()));
    body.push_str(r#","utc_offset":"#);
    push_text(&mut body, offset.as_deref());
    let model = ["LW-2", "LW-3", "LW-3S"][(script_u(script, "device", patient, "-") * 3.0) as usize];
    let _ = write!(body, r#","device":"{model}","heart_rate":["#);
    let pages = script.pages(patient, &night.date);
    if !night.no_data {
        night.push_heart_rate(&mut body, page, pages);
    }
    let first = page == 1 && !night.no_data;
    body.push_str(r#"],"resp_rate":["#);
    if first {
        night.push_resp_rate(&mut body);
    }
    body.push_str(r#"],"spo2":["#);
    if first {
        night.push_spo2(&mut body);
    }
    body.push_str(r#"],"skin_temp":["#);
    if first {
        night.push_skin_temp(&mut body);
    }
    body.push_str(r#"],"blood_pressure":["#);
    if first {
        night.push_blood_pressure(&mut body, date, zone.as_ref());
    }
    body.push_str(r#"],"next_cursor":"#);
    push_text(&mut body, (page < pages).then(|| cursor(page + 1)).as_deref());
    body.push('}');
    body
}

/// The cursor that asks for a page of a night.
pub fn cursor(page: u32) -> String {
    format!("p{page}")
}

/// What the list of patients says of one.
pub fn patient(script: &Script, number: u32) -> Value {
    let id = patient_id(number);
    let baseline = script.baseline(&id);
    let tz = (baseline.zone != Zone::Naive).then(|| baseline.zone.name());
    json!({ "id": id, "tz": tz, "hr_base": baseline.hr_base, "hr_mad": baseline.hr_mad })
}

/// The population's figures of a night: usual heart rate of all patients (median, and median absolute deviation from
/// it, beats per minute) and how many nights hold data.
pub fn statistics(script: &Script, date: Date, patients: u32) -> Value {
    let text = date.to_string();
    let ids = || (1..=patients).map(patient_id);
    let mut bases: Vec<f64> = ids().map(|id| script.baseline(&id).hr_base).collect();
    let hr_median = median(&mut bases);
    let hr_mad = hr_median.and_then(|m| median(&mut bases.iter().map(|x| (x - m).abs()).collect::<Vec<_>>()));
    let tenth = |x: f64| (x * 10.0).round() / 10.0;
    let nights = ids().filter(|id| script.class(id).is_none() && !script.no_data(id, &text)).count();
    json!({
        "date": text,
        "patients": patients,
        "nights": nights,
        "hr_median": hr_median.map(tenth),
        "hr_mad": hr_mad.map(tenth),
    })
}

/// The list of patients as a CSV file with a head line: `id,tz,hr_base,hr_mad`, an unknown zone is empty.
pub fn patients_csv(script: &Script, patients: u32) -> String {
    let mut text = String::from("id,tz,hr_base,hr_mad\n");
    for number in 1..=patients {
        let id = patient_id(number);
        let b = script.baseline(&id);
        let _ = writeln!(text, "{id},{},{:.1},{:.1}", b.zone.name(), b.hr_base, b.hr_mad);
    }
    text
}

/// One night of one patient, before it is cut into pages.
struct Night<'a> {
    script: &'a Script,
    patient: &'a str,
    date: String,
    zone: Zone,
    no_data: bool,
    anomaly: Option<Anomaly>,
    /// Median heart rate, whole beats per minute.
    median: i32,
    /// Minutes in which the watch was off: start and end (excluded).
    gaps: Vec<(u32, u32)>,
}

impl<'a> Night<'a> {
    fn new(script: &'a Script, patient: &'a str, date: Date) -> Self {
        let date = date.to_string();
        let baseline = script.baseline(patient);
        let no_data = script.no_data(patient, &date);
        let anomaly = script.anomaly(patient, &date).filter(|_| !no_data);
        let shift = (u(script.seed, "night", patient, &date, 0) - 0.5) * 4.0 * baseline.hr_mad;
        // Rounded away from the baseline where a rule must fire, towards it where none may.
        let median = match anomaly {
            Some(Anomaly::Tachycardia) => (baseline.hr_base + 35.0).ceil(),
            Some(Anomaly::Bradycardia) => (baseline.hr_base - 24.0).floor(),
            _ if shift >= 0.0 => (baseline.hr_base + shift).floor(),
            _ => (baseline.hr_base + shift).ceil(),
        };
        let mut night = Self {
            script,
            patient,
            zone: baseline.zone,
            no_data,
            anomaly,
            median: median as i32,
            gaps: Vec::new(),
            date,
        };
        let mut noise = night.noise("gaps");
        // One gap in the first hours for every second patient, one around midnight for every fourth. They end before
        // minute 310, after which low oxygen is placed.
        if noise.next() < 0.5 {
            let start = noise.between(20, 180) as u32;
            night.gaps.push((start, start + noise.between(5, 40) as u32));
        }
        if noise.next() < 0.25 {
            let start = noise.between(225, 280) as u32;
            night.gaps.push((start, start + noise.between(3, 29) as u32));
        }
        night
    }

    fn push_heart_rate(&self, body: &mut String, page: u32, pages: u32) {
        let samples = self.heart_rate(pages > 1);
        let per_page = samples.len().div_ceil(pages as usize);
        let mut samples: Vec<_> =
            samples.into_iter().skip(per_page * (page.max(1) as usize - 1)).take(per_page).collect();
        if script_u(self.script, "order", self.patient, &self.date) < 0.02 {
            // The watch has sent its memory block by block, the newest first.
            samples = samples.rchunks(60).flatten().copied().collect();
        }
        push_list(body, samples, |body, (second, bpm)| {
            let _ = if second % 60 == 0 {
                write!(body, "[{},{bpm}]", second / 60)
            } else {
                write!(body, "[{:.2},{bpm}]", f64::from(second) / 60.0)
            };
        });
    }

    /// Seconds of the night and beats per minute, in order of time, doubled samples included. The median of all is
    /// exactly `self.median`.
    fn heart_rate(&self, raw: bool) -> Vec<(u32, i32)> {
        let mut noise = self.noise("heart_rate");
        let (phase_a, phase_b) = (noise.next(), noise.next());
        let mut waves: Vec<(u32, f64)> = Vec::new();
        for second in (0..NIGHT_MINUTES * 60).step_by(if raw { 5 } else { 60 }) {
            let minute = f64::from(second) / 60.0;
            // In raw mode the sensor rests in the last 20 minutes of each hour.
            if self.is_off(second / 60) || (raw && (second / 60) % 60 >= 40) {
                continue;
            }
            let cycles = 2.5 * (std::f64::consts::TAU * (minute / 90.0 + phase_a)).sin();
            let turns = 1.2 * (std::f64::consts::TAU * (minute / 23.0 + phase_b)).sin();
            let wave = cycles + turns + 2.0 * (noise.next() - 0.5);
            waves.push((second, wave));
            if noise.next() < 0.01 {
                waves.push((second, wave));
            }
        }
        let middle = median(&mut waves.iter().map(|&(_, wave)| wave).collect::<Vec<_>>()).unwrap_or(0.0);
        // 26 is under every median but that of the slowest hearts, where it is the median itself.
        let sample = |(second, wave): (u32, f64)| (second, (self.median + (wave - middle).round() as i32).max(26));
        let mut samples: Vec<_> = waves.into_iter().map(sample).collect();
        if self.anomaly == Some(Anomaly::Artefact) {
            // Three samples are too few to move the median off the many samples that have its value.
            let value = if noise.next() < 0.5 { 0 } else { 255 };
            let third = samples.len() / 3;
            for part in 0..3 {
                let at = part * third + noise.between(1, third as i32 - 2) as usize;
                samples[at].1 = value;
            }
        }
        samples
    }

    fn push_resp_rate(&self, body: &mut String) {
        let mut noise = self.noise("resp_rate");
        let usual = noise.between(13, 17);
        push_list(body, self.slow_samples(), |body, minute| {
            let _ = write!(body, "[{minute},{}]", usual + noise.between(-1, 2));
        });
    }

    fn push_spo2(&self, body: &mut String) {
        let mut noise = self.noise("spo2");
        let start = 320 + 5 * noise.between(0, 20) as u32;
        // Five samples, so that the first and the last one are 20 minutes apart.
        let low = (self.anomaly == Some(Anomaly::LowSpo2)).then_some(start..=start + 20);
        push_list(body, self.slow_samples(), |body, minute| {
            let is_low = low.as_ref().is_some_and(|low| low.contains(&minute));
            let percent = if is_low { noise.between(85, 89) } else { noise.between(94, 98) };
            let _ = write!(body, "[{minute},{percent}]");
        });
    }

    fn push_skin_temp(&self, body: &mut String) {
        let mut noise = self.noise("skin_temp");
        let fever = self.anomaly == Some(Anomaly::Fever);
        let (usual, swing) = if fever { (noise.between(389, 395), 3) } else { (noise.between(361, 370), 3) };
        push_list(body, self.slow_samples(), |body, minute| {
            let tenths = usual + noise.between(-swing, swing);
            let _ = write!(body, "[{minute},{}.{}]", tenths / 10, tenths % 10);
        });
    }

    fn push_blood_pressure(&self, body: &mut String, date: Date, zone: Option<&TimeZone>) {
        let mut noise = self.noise("blood_pressure");
        let crisis = self.anomaly == Some(Anomaly::PressureCrisis);
        let readings = [5, 241, 476].map(|minute| {
            let (systolic, diastolic) = if crisis {
                (noise.between(185, 210), noise.between(100, 118))
            } else {
                (noise.between(102, 148), noise.between(62, 88))
            };
            (minute, systolic, diastolic)
        });
        let form = if zone.is_some() { "%Y-%m-%dT%H:%M:%S%:z" } else { "%Y-%m-%dT%H:%M:%S" };
        let readings = readings.into_iter().filter_map(|(minute, systolic, diastolic)| {
            Some((local_time(date, minute, zone, form)?, systolic, diastolic))
        });
        push_list(body, readings, |body, (time, systolic, diastolic)| {
            let _ = write!(body, r#"["{time}",{systolic},{diastolic}]"#);
        });
    }

    /// Minutes of the samples that come each five minutes while the watch is on.
    fn slow_samples(&self) -> impl Iterator<Item = u32> + '_ {
        (0..NIGHT_MINUTES).step_by(SLOW_SAMPLE_MINUTES as usize).filter(|&minute| !self.is_off(minute))
    }

    fn is_off(&self, minute: u32) -> bool {
        self.gaps.iter().any(|&(start, end)| (start..end).contains(&minute))
    }

    fn noise(&self, what: &str) -> Noise {
        Noise::new(bits(self.script.seed, what, self.patient, &self.date, 0))
    }
}

fn script_u(script: &Script, what: &str, patient: &str, date: &str) -> f64 {
    u(script.seed, what, patient, date, 0)
}

fn push_text(body: &mut String, text: Option<&str>) {
    match text {
        Some(text) => {
            let _ = write!(body, "\"{text}\"");
        }
        None => body.push_str("null"),
    }
}

fn push_list<T>(body: &mut String, values: impl IntoIterator<Item = T>, mut push: impl FnMut(&mut String, T)) {
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        push(body, value);
    }
}

/// The instant `minute` minutes after 22:00 local time of `date`, written by a format of strftime. None at the very
/// ends of the calendar only.
fn local_time(date: Date, minute: u32, zone: Option<&TimeZone>, form: &str) -> Option<String> {
    let start = date.at(22, 0, 0, 0);
    let passed = SignedDuration::from_mins(i64::from(minute));
    Some(match zone {
        Some(zone) => start.to_zoned(zone.clone()).ok()?.checked_add(passed).ok()?.strftime(form).to_string(),
        None => start.checked_add(passed).ok()?.strftime(form).to_string(),
    })
}

/// The zone's rules of today, written out: small machines have no time zone database.
fn time_zone(zone: Zone) -> Option<TimeZone> {
    let rules = match zone {
        Zone::Shanghai => "CST-8",
        Zone::Berlin => "CET-1CEST,M3.5.0,M10.5.0/3",
        Zone::NewYork => "EST5EDT,M3.2.0,M11.1.0",
        Zone::Kolkata => "IST-5:30",
        Zone::Naive => return None,
    };
    TimeZone::posix(rules).ok()
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: Script = Script { seed: 2026, faults: true };
    const PATIENTS: u32 = 1500;

    fn night() -> Date {
        jiff::civil::date(2026, 11, 22)
    }

    /// The pages of a night put together: all lists of numbers, and the text of the pages.
    fn whole(id: &str) -> (Value, Vec<String>) {
        let pages: Vec<String> =
            (1..=SCRIPT.pages(id, "2026-11-22")).map(|page| vitals(&SCRIPT, id, night(), page)).collect();
        let mut whole: Value = serde_json::from_str(&pages[0]).expect("it is well formed");
        for page in &pages[1..] {
            let page: Value = serde_json::from_str(page).expect("it is well formed");
            let more = page["heart_rate"].as_array().expect("a list").clone();
            whole["heart_rate"].as_array_mut().expect("a list").extend(more);
            assert!(["resp_rate", "spo2", "skin_temp", "blood_pressure"].iter().all(|list| page[list] == json!([])));
            whole["next_cursor"] = page["next_cursor"].clone();
        }
        (whole, pages)
    }

    fn column(body: &Value, list: &str, index: usize) -> Vec<f64> {
        body[list].as_array().expect("a list").iter().map(|row| row[index].as_f64().expect("a number")).collect()
    }

    fn found(id: &str, body: &Value) -> Option<&'static str> {
        let baseline = SCRIPT.baseline(id);
        let all = column(body, "heart_rate", 1);
        let mut kept: Vec<f64> = all.iter().copied().filter(|bpm| (20.0..=250.0).contains(bpm)).collect();
        let middle = median(&mut kept).expect("it is there");
        assert_eq!(median(&mut all.clone()).expect("it is there"), middle, "{id}: artefacts move the median");
        let mod_z = 0.6745 * (middle - baseline.hr_base) / baseline.hr_mad;
        let artefacts = all.len() - kept.len();
        let systolic = column(body, "blood_pressure", 1);
        let low = column(body, "spo2", 1).iter().filter(|&&percent| percent < 90.0).count();
        let warmest = column(body, "skin_temp", 1).into_iter().fold(0.0, f64::max);
        assert!(column(body, "spo2", 1).iter().all(|x| (85.0..=99.0).contains(x)));
        assert!(column(body, "resp_rate", 1).iter().all(|x| (11.0..=20.0).contains(x)));
        assert!(kept.iter().all(|bpm| (26.0..=125.0).contains(bpm)));
        assert!(mod_z.abs() <= 1.35 || mod_z.abs() >= 4.0, "{id}: {mod_z}");
        let signs = [
            (mod_z >= 4.0, "tachycardia"),
            (mod_z <= -4.0, "bradycardia"),
            (systolic.iter().all(|x| (185.0..=210.0).contains(x)), "bp_crisis"),
            (low == 5, "low_spo2"),
            ((38.6..=39.8).contains(&warmest), "fever"),
            (artefacts == 3, "artefact"),
        ];
        assert!(signs[2].0 || systolic.iter().all(|x| (100.0..=160.0).contains(x)));
        assert!(low == 0 || low == 5);
        assert!(signs[4].0 || warmest <= 37.4);
        assert!(artefacts == 0 || artefacts == 3);
        let mut seen = signs.iter().filter(|(there, _)| *there).map(|&(_, name)| name);
        let first = seen.next();
        assert_eq!(seen.next(), None, "{id} has two anomalies");
        first
    }

    #[test]
    fn a_body_shows_exactly_the_anomaly_that_was_decided() {
        let mut met = 0;
        for id in (1..=PATIENTS).map(patient_id) {
            let (body, _) = whole(&id);
            if SCRIPT.no_data(&id, "2026-11-22") {
                assert_eq!(body["heart_rate"], json!([]), "{id}");
                assert_eq!(body["blood_pressure"], json!([]), "{id}");
                continue;
            }
            let decided = SCRIPT.anomaly(&id, "2026-11-22").map(Anomaly::name);
            assert_eq!(found(&id, &body), decided, "{id}");
            met += u32::from(decided.is_some());
        }
        assert!(met > 30, "the test meets anomalies");
    }

    #[test]
    fn sizes_doubles_gaps_and_disorder_are_those_of_the_description() {
        let (mut doubled, mut samples, mut disorder, mut gaps) = (0, 0, 0, 0);
        for id in (1..=PATIENTS).map(patient_id).filter(|id| !SCRIPT.no_data(id, "2026-11-22")) {
            let (body, pages) = whole(&id);
            assert_eq!(body["next_cursor"], Value::Null);
            let kib = pages.iter().map(String::len).max().expect("it is there") as f64 / 1024.0;
            let usual = if pages.len() > 1 { 7.0..18.0 } else { 5.0..8.5 };
            assert!(usual.contains(&kib), "{id}: {kib} KiB");
            let minutes = column(&body, "heart_rate", 0);
            if pages.len() == 1 {
                let mut sorted = minutes.clone();
                sorted.sort_by(f64::total_cmp);
                disorder += u32::from(sorted != minutes);
                samples += sorted.len();
                sorted.dedup();
                gaps += usize::from(sorted.len() < 480);
                doubled += minutes.len() - sorted.len();
            }
        }
        let share = doubled as f64 / samples as f64;
        assert!((0.008..0.012).contains(&share), "{share}");
        assert!((15..50).contains(&disorder), "{disorder}");
        assert!(gaps > 500);
    }

    #[test]
    fn times_are_those_of_the_patients_zone() {
        let first_reading = |zone: Zone, date: Date| {
            let id = (1..=PATIENTS)
                .map(patient_id)
                .find(|id| SCRIPT.baseline(id).zone == zone && !SCRIPT.no_data(id, &date.to_string()))
                .expect("it is there");
            let body: Value = serde_json::from_str(&vitals(&SCRIPT, &id, date, 1)).expect("it is well formed");
            format!("{} {} {}", body["blood_pressure"][0][0], body["utc_offset"], body["blood_pressure"][2][0])
        };
        let summer_ends = jiff::civil::date(2026, 10, 24);
        assert_eq!(
            first_reading(Zone::Shanghai, night()),
            r#""2026-11-22T22:05:00+08:00" "+08:00" "2026-11-23T05:56:00+08:00""#
        );
        assert_eq!(
            first_reading(Zone::Berlin, summer_ends),
            r#""2026-10-24T22:05:00+02:00" "+02:00" "2026-10-25T04:56:00+01:00""#
        );
        assert_eq!(first_reading(Zone::Kolkata, night()).split(' ').nth(1), Some("\"+05:30\""));
        assert_eq!(first_reading(Zone::NewYork, night()).split(' ').nth(1), Some("\"-05:00\""));
        assert_eq!(first_reading(Zone::Naive, night()), r#""2026-11-22T22:05:00" null "2026-11-23T05:56:00""#);
    }

    #[test]
    fn no_date_makes_a_body_panic() {
        for date in [Date::MIN, Date::MAX, Date::ZERO] {
            for id in (1..=200).map(patient_id) {
                let body: Value = serde_json::from_str(&vitals(&SCRIPT, &id, date, 1)).expect("it is well formed");
                assert!(body["heart_rate"].is_array());
            }
        }
        assert!(statistics(&SCRIPT, night(), 0)["hr_median"].is_null());
    }

    #[test]
    fn the_csv_says_what_the_list_says() {
        let text = patients_csv(&SCRIPT, 3);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("id,tz,hr_base,hr_mad"));
        let second = patient(&SCRIPT, 2);
        let line: Vec<&str> = lines.nth(1).expect("it is there").split(',').collect();
        assert_eq!((line[0], line[1]), (second["id"].as_str().expect("a text"), second["tz"].as_str().unwrap_or("")));
        assert_eq!(line[2].parse::<f64>().expect("it is well formed"), second["hr_base"].as_f64().expect("a number"));
        assert_eq!(line[3].parse::<f64>().expect("it is well formed"), second["hr_mad"].as_f64().expect("a number"));
    }
}
