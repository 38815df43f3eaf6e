//! A cron expression: what it says, and every mistake in it. When it is due is computed by `calendar`.
//!
//! Five fields `minute hour day-of-month month day-of-week`, six begin with seconds; lists, ranges, steps, names, `L`,
//! `W`, `#`, `H`, `?`, `+`, and the `@` words.

use crate::problem::closest;
use jiff::civil::Date;
use std::{ops::Range, time::Duration};

/// What is wrong with an expression, and where in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub within: Option<Range<usize>>,
    pub message: String,
    pub help: String,
}

const ORDER: &str = "minute hour day-of-month month day-of-week";
/// The `@` words, and the fields that they stand for.
const WORDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The longest that a month can be; February has its 29th.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A checked expression. Values are bits: bit 30 of `minute` is the minute 30.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cron {
    pub second: u64,
    pub minute: u64,
    pub hour: u64,
    /// A wildcard or a step stands in the minute or the hour: it runs through gaps and folds in real time.
    pub interval: bool,
    month: u64,
    day: Field,
    weekday: Field,
    /// `+` before the day of the week: both days must match.
    both: bool,
}

/// One field: its plain values, and what depends on the month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// It is a wildcard and nothing else: it restricts nothing.
    any: bool,
    /// A wildcard or a step stands in it.
    wild: bool,
    /// `L`: the last day of the month.
    last: bool,
    /// `LW`: the last day of the month that is Monday to Friday.
    last_workday: bool,
    /// `15W`: the day from Monday to Friday that is nearest to the 15th, in the same month.
    nearest: u64,
    /// `MON#2`: by week of the month from 0, days of the week.
    nth: [u8; 5],
    /// `FRIL`: the last such day of the week in the month.
    last_of: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

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

    /// The last value that is one of its own: 7 is Sunday once more.
    fn last(self) -> u32 {
        if self == Part::Weekday { 6 } else { self.bounds().1 }
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

impl Cron {
    /// Reads an expression. `seed` tells machines and jobs apart where it says `H`.
    pub fn parse(text: &str, seed: u64) -> Result<Cron, Wrong> {
        let whole = |message: &str, help: String| Err(Wrong { within: None, message: message.to_owned(), help });
        let trimmed = text.trim();
        if let Some(rest) = trimmed.strip_prefix("@every") {
            let every = if rest.trim().is_empty() { "15m" } else { rest.trim() };
            return whole("`@every` is no cron expression", format!("write `Every({every:?})`"));
        }
        if trimmed == "@reboot" {
            return whole("`@reboot` is no cron expression", "write `OnBoot(\"2m\")`".to_owned());
        }
        if trimmed.starts_with('@') {
            let words = WORDS.map(|(word, _)| word);
            if let Some((_, fields)) = WORDS.iter().find(|(word, _)| *word == trimmed) {
                return Cron::parse(fields, seed);
            }
            let help = closest(trimmed, words).map(|near| format!("did you mean `{near}`?"));
            let known = || format!("known are {}", words.join(", "));
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
        let read = |part: Part, from_the_end: usize| match fields.len().checked_sub(from_the_end) {
            Some(place) => field(part, &text[fields[place].clone()], fields[place].start, seed),
            None => Ok(Field { bits: 1, ..Field::default() }),
        };
        let second = read(Part::Second, 6)?;
        let (minute, hour) = (read(Part::Minute, 5)?, read(Part::Hour, 4)?);
        let (day, month, weekday) = (read(Part::Day, 3)?, read(Part::Month, 2)?, read(Part::Weekday, 1)?);
        let both = text[fields[fields.len() - 1].clone()].starts_with('+');
        let interval = minute.wild || hour.wild;
        let bits = |field: Field| field.bits;
        let cron = Cron {
            second: bits(second),
            minute: bits(minute),
            hour: bits(hour),
            interval,
            month: bits(month),
            day,
            weekday,
            both,
        };
        match cron.comes() {
            true => Ok(cron),
            false => whole(
                "this never fires: none of the months has such a day",
                "for the last day of a month write `L` in place of the day".to_owned(),
            ),
        }
    }

    /// True on a date on which it is due.
    pub fn matches(&self, date: Date) -> bool {
        if self.month & (1 << date.month()) == 0 {
            return false;
        }
        let (day, weekday) = (self.day.matches_day(date), self.weekday.matches_weekday(date));
        match self.day.any || self.weekday.any || self.both {
            true => day && weekday,
            false => day || weekday,
        }
    }

    /// Both days are restricted, and either is enough: half of all authors mean something else.
    pub fn either_day(&self) -> bool {
        !(self.day.any || self.weekday.any || self.both)
    }

    /// How often it is due on one of its days, at most.
    pub fn times_a_day(&self) -> usize {
        [self.second, self.minute, self.hour].iter().map(|bits| bits.count_ones() as usize).product()
    }

    /// True where a field says `H`: then a machine and a job have their own times.
    pub fn is_hashed(text: &str) -> bool {
        let members = text.split(|c: char| c.is_whitespace() || c == ',');
        members
            .map(|member| member.split('/').next().unwrap_or_default())
            .any(|base| base == "H" || base.starts_with("H("))
    }

    /// How long it rests at most, where it is due in each minute of each hour, or in some seconds of it.
    pub fn rhythm(&self) -> Option<Duration> {
        const ALL_MINUTES: u64 = (1 << 60) - 1;
        const ALL_HOURS: u64 = (1 << 24) - 1;
        let is_due_always = self.minute == ALL_MINUTES && self.hour == ALL_HOURS;
        // Values of seconds that are evenly apart, or one of them.
        is_due_always.then(|| Duration::from_secs(60 / u64::from(self.second.count_ones().max(1))))
    }

    /// What in its text is probably not meant so.
    pub fn remarks(&self, text: &str) -> Vec<Wrong> {
        let places = fields(text);
        let parts = [Part::Second, Part::Minute, Part::Hour, Part::Day, Part::Month, Part::Weekday];
        let parts = &parts[parts.len().saturating_sub(places.len())..];
        let mut found = Vec::new();
        if places.len() == 6 {
            found.extend(one_star_too_many(text, &places));
        }
        for (part, place) in parts.iter().zip(&places) {
            found.extend(uneven(*part, &text[place.clone()], place.start));
        }
        if self.either_day()
            && let [.., day, _, weekday] = &places[..]
        {
            let (day, weekday) = (day.clone(), weekday.clone());
            let message = "the day of the month and the day of the week are both given: it is due on every day that \
                           matches either of them";
            let help = format!("for days that match both write `+{}` as the day of the week", &text[weekday.clone()]);
            found.push(Wrong { within: Some(day.start..weekday.end), message: message.to_owned(), help });
        }
        found
    }

    /// False when none of its months has one of its days of the month, and no day of the week is named instead.
    fn comes(&self) -> bool {
        let by_day = self.day.last
            || self.day.last_workday
            || (1..=12).filter(|month| self.month & (1 << month) != 0).any(|month| {
                let days = (1u64 << (MONTH_DAYS[month - 1] + 1)) - 2;
                (self.day.bits | self.day.nearest) & days != 0
            });
        by_day || self.either_day()
    }
}

impl Field {
    fn matches_day(&self, date: Date) -> bool {
        let last = date.days_in_month();
        let day = date.day();
        if self.bits & (1 << day) != 0 || (self.last && day == last) {
            return true;
        }
        let workday = |day: i8| {
            let of = |day: i8| Date::new(date.year(), date.month(), day).map_or(0, weekday_of);
            match of(day) {
                6 if day > 1 => day - 1,
                6 => day + 2,
                0 if day < last => day + 1,
                0 => day - 2,
                _ => day,
            }
        };
        (self.last_workday && day == workday(last))
            || (1..=last).any(|named| self.nearest & (1 << named) != 0 && workday(named) == day)
    }

    fn matches_weekday(&self, date: Date) -> bool {
        let bit = 1u8 << weekday_of(date);
        self.bits & u64::from(bit) != 0
            || self.nth[usize::from(date.day().unsigned_abs() - 1) / 7] & bit != 0
            || (self.last_of & bit != 0 && date.day() + 7 > date.days_in_month())
    }
}

/// From 0, which is Sunday.
fn weekday_of(date: Date) -> u8 {
    date.weekday().to_sunday_zero_offset().unsigned_abs()
}

/// `30 2 * * * *`, where `30 2 * * *` was probably meant: the first of six fields is the second.
fn one_star_too_many(text: &str, places: &[Range<usize>]) -> Option<Wrong> {
    let at = |place: usize| &text[places[place].clone()];
    let (second, minute): (u32, u32) = (at(0).parse().ok()?, at(1).parse().ok()?);
    if at(2) != "*" || minute > 23 {
        return None;
    }
    let rest = &text[places[2].start..places[4].end];
    let message = format!(
        "the first of six fields is the second: this is due in every hour, at minute {minute}, second {second}"
    );
    let help = format!(
        "for {minute:02}:{second:02} write `{second} {minute} {rest}`; for every hour `{minute} {}`",
        &text[places[2].start..]
    );
    Some(Wrong { within: Some(places[0].start..places[5].end), message, help })
}

/// `*/7` minutes: 0, 7, .., 56, and then 0.
fn uneven(part: Part, field: &str, start: usize) -> Option<Wrong> {
    let mut at = start;
    for member in field.split(',') {
        let within = at..at + member.len();
        at = within.end + 1;
        let Some((_, step)) = member.split_once('/').filter(|(base, _)| matches!(*base, "*" | "?")) else {
            continue;
        };
        let Ok(step) = step.parse::<u32>() else { continue };
        let (first, values) = match part {
            Part::Second | Part::Minute => (0, 60),
            Part::Hour => (0, 24),
            Part::Day => (1, 31),
            Part::Month => (1, 12),
            Part::Weekday => (0, 7),
        };
        // No step of days fits into every month.
        if step <= 1 || values % step == 0 && part != Part::Day {
            continue;
        }
        let last = first + (values - 1) / step * step;
        let name = |value: u32| match part {
            Part::Month => MONTHS[value as usize - 1].to_owned(),
            Part::Weekday => DAYS[value as usize].to_owned(),
            _ => value.to_string(),
        };
        let message = match last {
            last if last == first => format!("`{member}` is the {} {} alone", part.what(), name(first)),
            last => format!(
                "the steps of `{member}` are not even: behind the {} {} comes {} again",
                part.what(),
                name(last),
                name(first)
            ),
        };
        let every = match part {
            Part::Second => format!("`Every(\"{step}s\")`"),
            Part::Minute => format!("`Every(\"{step}m\")`"),
            Part::Hour => format!("`Every(\"{step}h\")`"),
            Part::Day => format!("`Every(\"{}h\")`", u64::from(step) * 24),
            Part::Month | Part::Weekday => String::new(),
        };
        let list = if last == first { name(first) } else { format!("{},{}", name(first), name(first + step)) };
        let help = match &*every {
            "" => format!("list what is meant, as in `{list}`"),
            every => format!("for an even rhythm write {every}; else list what is meant, as in `{list}`"),
        };
        return Some(Wrong { within: Some(within), message, help });
    }
    None
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
fn field(part: Part, text: &str, start: usize, seed: u64) -> Result<Field, Wrong> {
    let (text, start) = match text.strip_prefix('+') {
        Some(rest) if part == Part::Weekday && !rest.is_empty() => (rest, start + 1),
        _ => (text, start),
    };
    let mut all = Field { any: matches!(text, "*" | "?"), ..Field::default() };
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
        add_member(part, member, seed, &mut all).map_err(|(message, help)| wrong(message, help))?;
    }
    Ok(all)
}

/// Adds what one member of a list says.
fn add_member(part: Part, member: &str, seed: u64, field: &mut Field) -> Result<(), (String, String)> {
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
    let hashed = base == "H" || base.starts_with("H(");
    let (first, last) = match base {
        "*" => (least, part.last()),
        "?" if matches!(part, Part::Day | Part::Weekday) => (least, part.last()),
        // A day that every month has.
        "H" => (least, if part == Part::Day { 28 } else { part.last() }),
        "L" | "l" if part == Part::Day && step.is_none() => {
            field.last = true;
            return Ok(());
        }
        "LW" | "lw" if part == Part::Day && step.is_none() => {
            field.last_workday = true;
            return Ok(());
        }
        _ if base.starts_with("H(") => {
            let inner = base.strip_prefix("H(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(strange)?;
            let (low, high) = inner.split_once('-').ok_or_else(strange)?;
            let (low, high) = (number(part, low)?, number(part, high)?);
            ordered(part, low, high, inner)?;
            (low, high)
        }
        _ => {
            if step.is_none() && add_special(part, base, field)? {
                return Ok(());
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
    field.wild |= step.is_some() || matches!(base, "*" | "?");
    let (first, last) = match (hashed, step) {
        (false, _) => (first, last),
        (true, None) => {
            let value = first + hash(seed, part, last - first + 1);
            (value, value)
        }
        (true, Some(step)) => (first + hash(seed, part, step.min(last - first + 1)), last),
    };
    for value in (first..=last).step_by(step.unwrap_or(1) as usize) {
        field.bits |= 1 << if part == Part::Weekday { value % 7 } else { value };
    }
    Ok(())
}

/// A number below `width`, always the same for a seed and a part.
fn hash(seed: u64, part: Part, width: u32) -> u32 {
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    let mut mixed = seed.wrapping_add((part as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % u64::from(width.max(1))) as u32
}

/// `15W`, `5L`, `FRIL`, `MON#2`: true when it is one of them.
fn add_special(part: Part, base: &str, field: &mut Field) -> Result<bool, (String, String)> {
    match part {
        Part::Day => match base.strip_suffix(['W', 'w']) {
            Some(day) => {
                field.nearest |= 1 << number(part, day)?;
                Ok(true)
            }
            None => Ok(false),
        },
        Part::Weekday => {
            if let Some((day, week)) = base.split_once('#') {
                let bit = 1u8 << (number(part, day)? % 7);
                return match week.parse::<usize>() {
                    Ok(week @ 1..=5) => {
                        field.nth[week - 1] |= bit;
                        Ok(true)
                    }
                    _ => Err((format!("`{week}` is no week of a month"), format!("write `{day}#1` to `{day}#5`"))),
                };
            }
            match base.strip_suffix(['L', 'l']) {
                Some(day) if !day.is_empty() => {
                    field.last_of |= 1u8 << (number(part, day)? % 7);
                    Ok(true)
                }
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
            assert!(Cron::parse(good, 7).is_ok(), "{good}");
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
            let wrong = Cron::parse(bad, 0).expect_err(bad);
            assert_eq!((wrong.within, &*wrong.message), (place, message), "{bad}");
        }
        assert_eq!(Cron::parse("0 22-4 * * *", 0).map_err(|wrong| wrong.help), Err("write `22-23,0-4`".to_owned()));
    }

    #[test]
    fn what_is_probably_not_meant_is_remarked_with_its_place() {
        let told = |text: &str| {
            let found = Cron::parse(text, 0).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}")).remarks(text);
            found.into_iter().map(|wrong| (wrong.within, wrong.message + "; " + &wrong.help)).collect::<Vec<_>>()
        };
        for good in [
            "30 2 * * *",
            "*/15 * * * *",
            "0 */6 * * *",
            "0 0 1 */3 *",
            "10-50/7 * * * *",
            "5/7 * * * *",
            "0 30 2 * * *",
            "0 0 13 * +FRI",
            "0 0 * * FRI",
            "@daily",
            "0 * * * * *",
            "30 45 * * * *",
            "*/10 * * * * *",
            "0 0 */1 * *",
            "H/7 * * * *",
        ] {
            assert_eq!(told(good), [], "{good}");
        }
        for (text, within, message) in [
            (
                "*/7 * * * *",
                0..3,
                "the steps of `*/7` are not even: behind the minute 56 comes 0 again; for an even rhythm write `Every(\"7m\")`",
            ),
            ("0 */5 * * *", 2..5, "behind the hour 20 comes 0 again; for an even rhythm write `Every(\"5h\")`"),
            (
                "0 0 */2 * *",
                4..7,
                "behind the day of the month 31 comes 1 again; for an even rhythm write `Every(\"48h\")`",
            ),
            ("0 0 1 */5 *", 6..9, "behind the month NOV comes JAN again; list what is meant, as in `JAN,JUN`"),
            ("0 0 * * */2", 8..11, "behind the day of the week SAT comes SUN again"),
            ("*/40 * * * *", 0..4, "behind the minute 40 comes 0 again"),
            ("0,*/45 * * * *", 2..6, "behind the minute 45 comes 0 again"),
            ("*/90 * * * *", 0..4, "`*/90` is the minute 0 alone"),
            ("*/7 0 2 * * *", 0..3, "behind the second 56 comes 0 again"),
            (
                "0 1 13 * FRI",
                4..12,
                "it is due on every day that matches either of them; for days that match both write `+FRI`",
            ),
            ("0 1 1,15 JAN 5-6", 4..16, "write `+5-6` as the day of the week"),
            (
                "30 2 * * * *",
                0..12,
                "this is due in every hour, at minute 2, second 30; for 02:30 write `30 2 * * *`; for every hour `2 * * * *`",
            ),
            ("0 2 * * * MON", 0..13, "for 02:00 write `0 2 * * *`; for every hour `2 * * * MON`"),
        ] {
            let found = told(text);
            let [(place, said)] = &found[..] else { panic!("{text}: {found:?}") };
            assert_eq!(*place, Some(within), "{text}");
            assert!(said.contains(message), "{text}: {said}");
        }
        assert_eq!(told("*/7 */5 13 * FRI").len(), 3);
    }

    #[test]
    fn how_often_it_is_due_on_a_day_is_counted() {
        for (text, times) in [
            ("30 2 * * *", 1),
            ("*/5 * * * *", 288),
            ("0 */6 * * *", 4),
            ("@hourly", 24),
            ("@weekly", 1),
            ("0 0 2 * * *", 1),
            ("H 2 * * *", 1),
            ("H/15 * * * *", 96),
        ] {
            assert_eq!(Cron::parse(text, 11).map(|cron| cron.times_a_day()), Ok(times), "{text}");
        }
    }
}
