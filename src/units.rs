//! Durations, sizes, shares and rates as authors write them: `"1h 30m"`, `"64MB"`, `"2%"`, `"100/min"`.
//!
//! Every room that has settings uses these types; job files and the command line read them through the same parser.
//! It never guesses: a number without a unit is refused with a message that says what to write.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::limits::DURATION_MAX;

/// A duration as authors write it: `"90s"`, `"1h 30m"`, `"200ms"`, `"1d"`. Whole milliseconds, at most
/// [`DURATION_MAX`]. Zero is allowed; who needs more than nothing asks [`Span::is_zero`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// A number of bytes as authors write it: `"512KB"`, `"64MB"` (powers of 1000), `"64MiB"` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// How many items may be missing: a count (`"5"`) or a share of the items (`"2%"`, `"0.5%"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tolerance {
    /// At most so many items.
    Count(u64),
    /// At most this share of the items, in parts per million: 20 000 is `"2%"`.
    Share(u32),
}

/// So many in each window of time: `"100/min"`, `"200/s"`, `"10000/day"`, `"5/10s"`. Neither is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many in one window; at least 1.
    pub count: u32,
    /// How long the window is; longer than nothing.
    pub window: Duration,
}

/// Why a text is no duration, size, share or rate: one sentence that says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError(String);

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnitError {}

/// Units of time from large to small, in milliseconds.
const TIMES: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size, the ones that are tried first when a size is shown stand first.
const SIZES: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Windows that have a name of their own, in seconds.
const WINDOWS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("day", 86_400)];

/// Parts of a million in one percent.
const PPM_PER_PERCENT: u32 = 10_000;

impl Span {
    /// Completes "write …".
    pub const WHAT: &'static str = "a duration such as \"90s\" or \"1h 30m\"";

    /// For defaults and tests; what authors write comes through [`FromStr`].
    pub const fn new(duration: Duration) -> Span {
        Span(duration)
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// True for `"0s"`.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let (mut rest, mut total, mut last) = (text.trim(), 0u64, usize::MAX);
        if rest.is_empty() {
            return Err(error(format!("an empty text is no duration; write {}", Span::WHAT)));
        }
        while !rest.is_empty() {
            let (number, after) = digits(rest);
            let (unit, after) = letters(after.trim_start());
            if number.is_empty() {
                return Err(error(format!("{} is no duration; write {}", quoted(text), Span::WHAT)));
            }
            if after.starts_with('.') && unit.is_empty() {
                return Err(error(
                    "a duration has whole numbers only; write \"90m\" for an hour and a half".to_owned(),
                ));
            }
            if unit.is_empty() {
                let example = if last == usize::MAX { number } else { "30" };
                return Err(error(format!(
                    "the number {} has no unit; write \"{example}s\", \"{example}m\" or \"{example}h\"",
                    shortened(number)
                )));
            }
            let Some(place) = TIMES.iter().position(|(name, _)| *name == unit) else {
                return Err(error(format!("{} is no unit of time; write ms, s, m, h, d or w", quoted(unit))));
            };
            if last != usize::MAX && place <= last {
                return Err(error("units stand once each, from large to small; write \"1h 30m\"".to_owned()));
            }
            last = place;
            total = number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(TIMES[place].1))
                .and_then(|ms| total.checked_add(ms))
                .filter(|ms| Duration::from_millis(*ms) <= DURATION_MAX)
                .ok_or_else(|| {
                    error(format!(
                        "a duration is at most \"{}d\"; write a shorter one",
                        DURATION_MAX.as_secs() / 86_400
                    ))
                })?;
            rest = after.trim_start();
        }
        Ok(Span(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        let mut space = "";
        for (unit, size) in TIMES.iter().filter(|(unit, _)| *unit != "w") {
            if rest >= *size {
                write!(f, "{space}{}{unit}", rest / size)?;
                rest %= size;
                space = " ";
            }
        }
        Ok(())
    }
}

impl Size {
    /// Completes "write …".
    pub const WHAT: &'static str = "a size such as \"512KB\" or \"64MB\"";

    /// For defaults and tests.
    pub const fn new(bytes: u64) -> Size {
        Size(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Size, UnitError> {
        let (number, after) = digits(text.trim());
        let unit = after.trim();
        if number.is_empty() {
            return Err(error(format!("{} is no size; write {}", quoted(text), Size::WHAT)));
        }
        if unit.starts_with('.') {
            return Err(error("a size has whole numbers only; write \"1500MB\" for one and a half GB".to_owned()));
        }
        if unit.is_empty() {
            let shown = shortened(number);
            return Err(error(format!(
                "the number {shown} has no unit; write \"{shown}KB\", \"{shown}MB\" or \"{shown}B\""
            )));
        }
        let Some((_, size)) = SIZES.iter().find(|(name, _)| *name == unit) else {
            let close = SIZES.iter().find(|(name, _)| {
                name.eq_ignore_ascii_case(unit) || name.trim_end_matches('B').eq_ignore_ascii_case(unit)
            });
            return Err(error(match close {
                Some((name, _)) => {
                    format!("{} is no unit of size; write \"{}{name}\"", quoted(unit), shortened(number))
                }
                None => format!("{} is no unit of size; write B, KB, MB, GB, KiB, MiB or GiB", quoted(unit)),
            }));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(*size))
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Size)
            .ok_or_else(|| error("this size is larger than any disk; write a smaller one".to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) =
            SIZES.iter().find(|(_, size)| self.0 != 0 && self.0.is_multiple_of(*size)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl Tolerance {
    /// Completes "write …".
    pub const WHAT: &'static str = "a count such as \"5\" or a share such as \"2%\"";

    /// Nothing may be missing.
    pub const NONE: Tolerance = Tolerance::Count(0);

    /// Whether `missing` of `items` are more than is tolerated. Exact for every number: 2 % of 50 are 1, not 0.99.
    pub fn exceeded(&self, missing: u64, items: u64) -> bool {
        match *self {
            Tolerance::Count(most) => missing > most,
            Tolerance::Share(ppm) => u128::from(missing) * 1_000_000 > u128::from(items) * u128::from(ppm),
        }
    }
}

impl FromStr for Tolerance {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Tolerance, UnitError> {
        let refuse = || error(format!("{} is no count and no share; write {}", quoted(text), Tolerance::WHAT));
        let (number, after) = digits(text.trim());
        if number.is_empty() {
            return Err(refuse());
        }
        if after.is_empty() {
            return number.parse().map(Tolerance::Count).map_err(|_| refuse());
        }
        let (part, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("0", after),
        };
        if after.trim() != "%" || part.is_empty() {
            return Err(refuse());
        }
        let part = part.trim_end_matches('0');
        if part.len() > 4 {
            return Err(error("a share has at most four decimals; write \"0.0001%\" for one in a million".to_owned()));
        }
        let decimals = part.bytes().chain(std::iter::repeat(b'0')).take(4).fold(0, |n, b| n * 10 + u32::from(b - b'0'));
        number
            .parse::<u32>()
            .ok()
            .and_then(|n| n.checked_mul(PPM_PER_PERCENT))
            .and_then(|ppm| ppm.checked_add(decimals))
            .filter(|ppm| *ppm <= 100 * PPM_PER_PERCENT)
            .map(Tolerance::Share)
            .ok_or_else(|| error("a share is at most \"100%\"".to_owned()))
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tolerance::Count(count) => write!(f, "{count}"),
            Tolerance::Share(ppm) => {
                write!(f, "{}", ppm / PPM_PER_PERCENT)?;
                let decimals = format!("{:04}", ppm % PPM_PER_PERCENT);
                let decimals = decimals.trim_end_matches('0');
                if !decimals.is_empty() {
                    write!(f, ".{decimals}")?;
                }
                f.write_str("%")
            }
        }
    }
}

impl Rate {
    /// Completes "write …".
    pub const WHAT: &'static str = "a rate such as \"100/min\", \"200/s\" or \"5/10s\"";
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Rate, UnitError> {
        let refuse = || error(format!("{} is no rate; write {}", quoted(text), Rate::WHAT));
        let (number, after) = digits(text.trim());
        let window = after.trim_start().strip_prefix('/').ok_or_else(refuse)?.trim();
        let count = number.parse::<u32>().map_err(|_| refuse())?;
        if count == 0 {
            return Err(error("a rate of nothing would never end; write at least 1".to_owned()));
        }
        let window = match WINDOWS.iter().find(|(name, _)| *name == window) {
            Some((_, seconds)) => Duration::from_secs(*seconds),
            None if window.starts_with(|c: char| c.is_ascii_digit()) => window.parse::<Span>()?.get(),
            None => {
                return Err(error(format!(
                    "{} is no time after the /; write /s, /min, /h, /day, or a duration such as /10s",
                    quoted(window)
                )));
            }
        };
        if window.is_zero() {
            return Err(error("the time after the / is longer than nothing; write /s".to_owned()));
        }
        Ok(Rate { count, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WINDOWS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.window) {
            Some((name, _)) => write!(f, "{}/{name}", self.count),
            None => write!(f, "{}/{}", self.count, Span(self.window).to_string().replace(' ', "")),
        }
    }
}

/// Reads a type from a text in whatever serde reads.
macro_rules! read_from_text {
    ($($unit:ident),+) => {$(
        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$unit, D::Error> {
                struct Visit;
                impl Visitor<'_> for Visit {
                    type Value = $unit;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($unit::WHAT)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$unit, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visit)
            }
        }
    )+};
}

read_from_text!(Span, Size, Tolerance, Rate);

fn error(message: String) -> UnitError {
    UnitError(message)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn letters(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len()))
}

/// The beginning of a text for a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(24) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: FromStr<Err = UnitError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, ms, shown) in [
            ("90s", 90_000, "1m 30s"),
            ("1h 30m", 5_400_000, "1h 30m"),
            ("1m30s", 90_000, "1m 30s"),
            ("200ms", 200, "200ms"),
            ("1d", 86_400_000, "1d"),
            ("2w", 14 * 86_400_000, "14d"),
            ("0s", 0, "0s"),
            (" 5 s ", 5000, "5s"),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.get(), Duration::from_millis(ms), "{text}");
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Span>(), Ok(span));
        }
    }

    #[test]
    fn a_wrong_duration_says_what_to_write() {
        for (text, message) in [
            ("", "an empty text is no duration; write a duration such as \"90s\" or \"1h 30m\""),
            ("soon", "\"soon\" is no duration; write a duration such as \"90s\" or \"1h 30m\""),
            ("-5s", "\"-5s\" is no duration; write a duration such as \"90s\" or \"1h 30m\""),
            ("20", "the number 20 has no unit; write \"20s\", \"20m\" or \"20h\""),
            ("1.5h", "a duration has whole numbers only; write \"90m\" for an hour and a half"),
            ("5min", "\"min\" is no unit of time; write ms, s, m, h, d or w"),
            ("5S", "\"S\" is no unit of time; write ms, s, m, h, d or w"),
            ("30m 1h", "units stand once each, from large to small; write \"1h 30m\""),
            ("1h 1h", "units stand once each, from large to small; write \"1h 30m\""),
            ("4000d", "a duration is at most \"3660d\"; write a shorter one"),
            ("99999999999999999999999999s", "a duration is at most \"3660d\"; write a shorter one"),
            ("1h 30", "the number 30 has no unit; write \"30s\", \"30m\" or \"30h\""),
        ] {
            assert_eq!(why::<Span>(text), message, "{text}");
        }
        assert!("3660d".parse::<Span>().is_ok());
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("64MB", 64_000_000, "64MB"),
            ("64MiB", 64 << 20, "64MiB"),
            ("512KB", 512_000, "512KB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1500 MB", 1_500_000_000, "1500MB"),
            ("17B", 17, "17B"),
            ("0B", 0, "0B"),
        ] {
            let size: Size = text.parse().expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown), "{text}");
        }
    }

    #[test]
    fn a_wrong_size_says_what_to_write() {
        for (text, message) in [
            ("64", "the number 64 has no unit; write \"64KB\", \"64MB\" or \"64B\""),
            ("64mb", "\"mb\" is no unit of size; write \"64MB\""),
            ("64M", "\"M\" is no unit of size; write \"64MB\""),
            ("64k", "\"k\" is no unit of size; write \"64KB\""),
            ("64 apples", "\"apples\" is no unit of size; write B, KB, MB, GB, KiB, MiB or GiB"),
            ("1.5GB", "a size has whole numbers only; write \"1500MB\" for one and a half GB"),
            ("big", "\"big\" is no size; write a size such as \"512KB\" or \"64MB\""),
            ("99999999TB", "this size is larger than any disk; write a smaller one"),
        ] {
            assert_eq!(why::<Size>(text), message, "{text}");
        }
    }

    #[test]
    fn tolerances_are_exact() {
        for (text, tolerance, shown) in [
            ("5", Tolerance::Count(5), "5"),
            ("2%", Tolerance::Share(20_000), "2%"),
            ("0.5%", Tolerance::Share(5000), "0.5%"),
            ("0.0001 %", Tolerance::Share(1), "0.0001%"),
            ("12.50%", Tolerance::Share(125_000), "12.5%"),
            ("100%", Tolerance::Share(1_000_000), "100%"),
        ] {
            assert_eq!(text.parse(), Ok(tolerance), "{text}");
            assert_eq!(tolerance.to_string(), shown);
        }
        assert!(!Tolerance::Share(20_000).exceeded(1, 50));
        assert!(Tolerance::Share(20_000).exceeded(1, 49));
        assert!(Tolerance::Share(20_000).exceeded(2, 50));
        assert!(!Tolerance::Share(0).exceeded(0, 0));
        assert!(!Tolerance::Share(1_000_000).exceeded(u64::MAX, u64::MAX));
        assert!(Tolerance::Share(999_999).exceeded(u64::MAX, u64::MAX));
        assert!(Tolerance::NONE.exceeded(1, 10) && !Tolerance::Count(1).exceeded(1, 10));
        for (text, message) in [
            ("101%", "a share is at most \"100%\""),
            ("0.00001%", "a share has at most four decimals; write \"0.0001%\" for one in a million"),
            (
                "2 percent",
                "\"2 percent\" is no count and no share; write a count such as \"5\" or a share such as \"2%\"",
            ),
            ("-1", "\"-1\" is no count and no share; write a count such as \"5\" or a share such as \"2%\""),
            ("2.%", "\"2.%\" is no count and no share; write a count such as \"5\" or a share such as \"2%\""),
            ("0.5", "\"0.5\" is no count and no share; write a count such as \"5\" or a share such as \"2%\""),
        ] {
            assert_eq!(why::<Tolerance>(text), message, "{text}");
        }
    }

    #[test]
    fn rates_are_read_and_shown() {
        for (text, count, seconds, shown) in [
            ("100/min", 100, 60, "100/min"),
            ("200/s", 200, 1, "200/s"),
            ("10000/day", 10_000, 86_400, "10000/day"),
            ("5/10s", 5, 10, "5/10s"),
            ("7 / h", 7, 3600, "7/h"),
            ("1/1h30m", 1, 5400, "1/1h30m"),
        ] {
            let rate = Rate { count, window: Duration::from_secs(seconds) };
            assert_eq!(text.parse(), Ok(rate), "{text}");
            assert_eq!(rate.to_string(), shown);
        }
        for (text, message) in [
            ("100", "\"100\" is no rate; write a rate such as \"100/min\", \"200/s\" or \"5/10s\""),
            ("0/s", "a rate of nothing would never end; write at least 1"),
            ("5/0s", "the time after the / is longer than nothing; write /s"),
            ("5/m", "\"m\" is no time after the /; write /s, /min, /h, /day, or a duration such as /10s"),
            ("x/s", "\"x/s\" is no rate; write a rate such as \"100/min\", \"200/s\" or \"5/10s\""),
        ] {
            assert_eq!(why::<Rate>(text), message, "{text}");
        }
    }

    #[test]
    fn units_are_read_from_texts_only() {
        assert_eq!(ron::from_str::<Span>("\"90s\""), Ok(Span::new(Duration::from_secs(90))));
        assert!(ron::from_str::<Span>("90").is_err());
        assert!(ron::from_str::<Size>("\"x\"").is_err());
    }
}
