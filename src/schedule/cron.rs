//! The shape of a cron expression: how many fields, what may stand in each. When it is due is computed elsewhere.
//!
//! Five fields `minute hour day-of-month month day-of-week`, six begin with seconds; lists, ranges, steps, names, `L`,
//! `W`, `#`, `H`, `?`, `+`, and the `@` words.

use crate::problem::closest;
use std::ops::Range;

/// What is wrong with an expression, and where in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub within: Option<Range<usize>>,
    pub message: String,
    pub help: String,
}

const ORDER: &str = "minute hour day-of-month month day-of-week";
const WORDS: [&str; 7] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The longest that a month can be; February has its 29th.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

/// The values of one field; `None` where they depend on the machine or the calendar (`H`, `L`, `15W`).
type Values = Option<Vec<u32>>;

impl Part {
    fn what(self) -> &'static str {
        match self {
            Part::Second => "second",
            Part::Minute => "minute",
            Part::Hour => "hour",
            Part::Day => "day of the month",
            Part::Month => "month",
            Part::Weekday => "day of the week",
        }
    }

    fn bounds(self) -> (u32, u32) {
        match self {
            Part::Second | Part::Minute => (0, 59),
            Part::Hour => (0, 23),
            Part::Day => (1, 31),
            Part::Month => (1, 12),
            Part::Weekday => (0, 7),
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Part::Month => &MONTHS,
            Part::Weekday => &DAYS,
            _ => &[],
        }
    }

    fn help(self) -> String {
        let (least, most) = self.bounds();
        match self {
            Part::Month => "a month is 1 to 12 or JAN to DEC".to_owned(),
            Part::Weekday => "a day of the week is 0 to 7 or SUN to SAT; 0 and 7 are Sunday".to_owned(),
            Part::Hour => format!("an hour is {least} to {most}"),
            _ => format!("a {} is {least} to {most}", self.what()),
        }
    }
}

/// What is wrong with an expression; `None` for a good one.
pub(super) fn check(text: &str) -> Option<Wrong> {
    let whole = |message: &str, help: String| Some(Wrong { within: None, message: message.to_owned(), help });
    let trimmed = text.trim();
    if let Some(rest) = trimmed.strip_prefix("@every") {
        let every = if rest.trim().is_empty() { "15m" } else { rest.trim() };
        return whole("`@every` is no cron expression", format!("write `Every({every:?})`"));
    }
    if trimmed == "@reboot" {
        return whole("`@reboot` is no cron expression", "write `OnBoot(\"2m\")`".to_owned());
    }
    if trimmed.starts_with('@') {
        if WORDS.contains(&trimmed) {
            return None;
        }
        let help = closest(trimmed, WORDS).map(|near| format!("did you mean `{near}`?"));
        let known = || format!("known are {}", WORDS.join(", "));
        return whole(&format!("`{trimmed}` is no cron expression"), help.unwrap_or_else(known));
    }
    let fields = fields(text);
    match fields.len() {
        0 => return whole("a cron expression has 5 fields, and this one is empty", example()),
        5 | 6 => {}
        7 => {
            let message = "a cron expression has no year: 5 fields, or 6 that begin with seconds, not 7";
            return whole(message, format!("leave the year out, or write `At(\"2026-12-01T02:00\")`: {ORDER}"));
        }
        n => return whole(&format!("a cron expression has 5 fields, not {n}"), example()),
    }
    let parts = [Part::Second, Part::Minute, Part::Hour, Part::Day, Part::Month, Part::Weekday];
    let parts = &parts[6 - fields.len()..];
    let mut values = Vec::new();
    for (part, range) in parts.iter().zip(fields) {
        match field(*part, &text[range.clone()], range.start) {
            Ok(found) => values.push(found),
            Err(wrong) => return Some(wrong),
        }
    }
    never(&values[values.len() - 3..])
}

/// How often it is due on one of its days, at most; `None` when that depends on the machine. Good expressions only.
pub(super) fn times_a_day(text: &str) -> Option<usize> {
    match text.trim() {
        "@hourly" => return Some(24),
        word if word.starts_with('@') => return Some(1),
        _ => {}
    }
    let fields = fields(text);
    let parts = [Part::Second, Part::Minute, Part::Hour];
    let parts = &parts[6usize.checked_sub(fields.len()).filter(|skip| *skip < 2)?..];
    let mut times = 1;
    for (part, range) in parts.iter().zip(fields) {
        let text = &text[range.clone()];
        // `H` is one value, `H/15` as many as `*/15`.
        let count = match field(*part, text, 0).ok()? {
            Some(values) => values.len(),
            None if text.starts_with('H') && !text.contains(['/', ',']) => 1,
            None => return None,
        };
        times *= count;
    }
    Some(times)
}

fn example() -> String {
    format!("write `Cron(\"30 2 * * *\")`: {ORDER}")
}

/// Where the fields stand.
fn fields(text: &str) -> Vec<Range<usize>> {
    let mut fields: Vec<Range<usize>> = Vec::new();
    let mut inside = false;
    for (at, c) in text.char_indices() {
        match (c.is_whitespace(), inside) {
            (false, false) => fields.push(at..at + c.len_utf8()),
            (false, true) => {
                if let Some(last) = fields.last_mut() {
                    last.end = at + c.len_utf8();
                }
            }
            (true, _) => {}
        }
        inside = !c.is_whitespace();
    }
    fields
}

/// Reads one field, which stands at `start`.
fn field(part: Part, text: &str, start: usize) -> Result<Values, Wrong> {
    let (text, start) = match text.strip_prefix('+') {
        Some(rest) if part == Part::Weekday && !rest.is_empty() => (rest, start + 1),
        _ => (text, start),
    };
    let mut all = Some(Vec::new());
    let mut at = start;
    for member in text.split(',') {
        let range = at..at + member.len();
        at = range.end + 1;
        let wrong = |message: String, help: String| Wrong { within: Some(range.clone()), message, help };
        if member.is_empty() {
            let message = format!("a member of the list `{text}` is empty");
            return Err(Wrong {
                within: Some(start..start + text.len()),
                message,
                help: "remove the comma".to_owned(),
            });
        }
        let values = member_values(part, member).map_err(|(message, help)| wrong(message, help))?;
        match (&mut all, values) {
            (Some(all), Some(values)) => all.extend(values),
            _ => all = None,
        }
    }
    if let Some(all) = &mut all {
        all.sort_unstable();
        all.dedup();
    }
    Ok(all)
}

fn member_values(part: Part, member: &str) -> Result<Values, (String, String)> {
    let (least, most) = part.bounds();
    let (base, step) = match member.split_once('/') {
        None => (member, None),
        Some((base, step)) => match step.parse::<u32>() {
            Ok(0) => return Err(("a step of 0 never comes to an end".into(), "write a step of 1 or more".into())),
            Ok(step) => (base, Some(step)),
            Err(_) => {
                let message = format!("`{step}` is no step");
                return Err((message, format!("write a number behind `/`, as in `{base}/5`")));
            }
        },
    };
    let strange = || (format!("`{member}` is no {}", part.what()), part.help());
    let (first, last) = match base {
        "*" => (least, if part == Part::Weekday { 6 } else { most }),
        "?" if matches!(part, Part::Day | Part::Weekday) => (least, if part == Part::Weekday { 6 } else { most }),
        "H" => return Ok(None),
        "L" | "LW" if part == Part::Day && step.is_none() => return Ok(None),
        _ if base.starts_with("H(") => {
            let inner = base.strip_prefix("H(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(strange)?;
            let (low, high) = inner.split_once('-').ok_or_else(strange)?;
            ordered(part, number(part, low)?, number(part, high)?, inner)?;
            return Ok(None);
        }
        _ => {
            if step.is_none() && special(part, base)? {
                return Ok(None);
            }
            match base.split_once('-') {
                Some((low, high)) => {
                    let (low, high) = (number(part, low)?, number(part, high)?);
                    ordered(part, low, high, base)?;
                    (low, high)
                }
                None => {
                    let only = number(part, base)?;
                    (only, if step.is_some() { most } else { only })
                }
            }
        }
    };
    let fold = |value: u32| if part == Part::Weekday { value % 7 } else { value };
    Ok(Some((first..=last).step_by(step.unwrap_or(1) as usize).map(fold).collect()))
}

/// `15W`, `5L`, `FRIL`, `MON#2`: true when it is one of them.
fn special(part: Part, base: &str) -> Result<bool, (String, String)> {
    match part {
        Part::Day => match base.strip_suffix('W') {
            Some(day) => number(part, day).map(|_| true),
            None => Ok(false),
        },
        Part::Weekday => {
            if let Some((day, week)) = base.split_once('#') {
                number(part, day)?;
                return match week.parse::<u32>() {
                    Ok(1..=5) => Ok(true),
                    _ => Err((format!("`{week}` is no week of a month"), format!("write `{day}#1` to `{day}#5`"))),
                };
            }
            match base.strip_suffix('L') {
                Some(day) if !day.is_empty() => number(part, day).map(|_| true),
                _ => Ok(false),
            }
        }
        _ => Ok(false),
    }
}

fn number(part: Part, text: &str) -> Result<u32, (String, String)> {
    let (least, most) = part.bounds();
    let names = part.names();
    if let Some(place) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(place as u32 + if part == Part::Month { 1 } else { 0 });
    }
    match text.parse::<u32>() {
        Ok(value) if (least..=most).contains(&value) && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(value),
        Ok(value) => Err((format!("{value} is no {}", part.what()), part.help())),
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let near = closest(&upper, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let message = if text.is_empty() {
                format!("a number or name is missing here: {}", part.what())
            } else {
                format!("`{text}` is no {}", part.what())
            };
            Err((message, near.unwrap_or_else(|| part.help())))
        }
    }
}

/// Refuses `FRI-MON` and `22-4`, and says the list that means it.
fn ordered(part: Part, low: u32, high: u32, written: &str) -> Result<(), (String, String)> {
    if low <= high {
        return Ok(());
    }
    let (least, most) = part.bounds();
    let (low_text, high_text) = written.split_once('-').unwrap_or((written, ""));
    let most = match part {
        Part::Weekday => "SAT".to_owned(),
        _ => most.to_string(),
    };
    let least = match part {
        Part::Weekday => "SUN".to_owned(),
        _ => least.to_string(),
    };
    Err((format!("the range `{written}` runs backwards"), format!("write `{low_text}-{most},{least}-{high_text}`")))
}

/// A day of the month that none of the months has, with every day of the week allowed. `values`: day, month, weekday.
fn never(values: &[Values]) -> Option<Wrong> {
    let [Some(days), Some(months), Some(weekdays)] = values else { return None };
    if weekdays.len() < 7 {
        return None;
    }
    let comes = months.iter().any(|month| days.iter().any(|day| *day <= MONTH_DAYS[*month as usize - 1]));
    (!comes).then(|| Wrong {
        within: None,
        message: "this never fires: none of the months has such a day".to_owned(),
        help: "for the last day of a month write `L` in place of the day".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_expressions_are_good() {
        for good in [
            "30 2 * * *",
            "*/5 * * * MON-FRI",
            "0 30 2 * * *",
            "@daily",
            "H(0-29) 2 * * *",
            "H H * * *",
            "H/15 * * * *",
            "0 0 L * FRIL",
            "0 0 LW,15W * 5L",
            "0 0 1 * +MON#2",
            "5/10 0-23/2 1,15 jan-Mar,12 0,7",
            "  0\t0  29 2 *  ",
            "0 0 ? * 5-7",
            "0 0 31 2 MON",
        ] {
            assert_eq!(check(good), None, "{good}");
        }
    }

    #[test]
    fn bad_expressions_are_named_with_their_place() {
        for (bad, place, message) in [
            ("30 2 * *", None, "a cron expression has 5 fields, not 4"),
            ("60 2 * * *", Some(0..2), "60 is no minute"),
            ("30 2,24 * * *", Some(5..7), "24 is no hour"),
            ("0 60 2 * * *", Some(2..4), "60 is no minute"),
            ("0 0 0 * *", Some(4..5), "0 is no day of the month"),
            ("0 0 * * FRI-MON", Some(8..15), "the range `FRI-MON` runs backwards"),
            ("0 0 * * MON#6", Some(8..13), "`6` is no week of a month"),
            ("0 0 1,,2 * *", Some(4..8), "a member of the list `1,,2` is empty"),
            ("*/x 0 * * *", Some(0..3), "`x` is no step"),
            ("0 0 30,31 2 *", None, "this never fires: none of the months has such a day"),
            ("+5 0 * * *", Some(0..2), "5 is no minute"),
            ("0 0 * * 2026-12", Some(8..15), "2026 is no day of the week"),
        ] {
            let wrong = check(bad).expect(bad);
            assert_eq!((wrong.within, &*wrong.message), (place, message), "{bad}");
        }
        assert_eq!(check("0 22-4 * * *").map(|wrong| wrong.help).as_deref(), Some("write `22-23,0-4`"));
    }

    #[test]
    fn how_often_it_is_due_on_a_day_is_counted() {
        for (text, times) in [
            ("30 2 * * *", Some(1)),
            ("*/5 * * * *", Some(288)),
            ("0 */6 * * *", Some(4)),
            ("@hourly", Some(24)),
            ("@weekly", Some(1)),
            ("0 0 2 * * *", Some(1)),
            ("H 2 * * *", Some(1)),
            ("H/15 * * * *", None),
        ] {
            assert_eq!(times_a_day(text), times, "{text}");
        }
    }
}
