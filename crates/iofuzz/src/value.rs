//! Values of options, as people write them.

use std::time::Duration;

use tool_support::number;

/// The longest time that can be asked for: a year.
const YEAR: f64 = 365.0 * 86_400.0;

/// Seconds, `90` or `1.5`, or with a unit: `500ms`, `10s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected seconds, or a number with ms, s, m or h".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..) {
        Some("" | "s") => 1.0,
        Some("ms") => 0.001,
        Some("m") => 60.0,
        Some("h") => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = digits.parse::<f64>().map_err(|_| wrong())? * factor;
    if seconds.is_finite() && (0.0..=YEAR).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("expected a time from 0 to 8760h".to_owned())
    }
}

/// A time that is not 0.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    let wrong = || "expected more than no time".to_owned();
    duration(text).and_then(|time| if time.as_millis() > 0 { Ok(time) } else { Err(wrong()) })
}

/// A number of machines.
pub(crate) fn jobs(text: &str) -> Result<u64, String> {
    positive(text)
        .and_then(|jobs| if jobs <= 256 { Ok(jobs) } else { Err("expected 256 or less".to_owned()) })
}

/// A number of 64 bits, in decimal or with `0x`, and `_` between digits.
pub(crate) fn whole(text: &str) -> Result<u64, String> {
    number::unsigned(text).ok_or_else(|| "expected a number of 64 bits, such as 10000 or 0x2710".to_owned())
}

/// A number that is not 0.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    whole(text).and_then(|number| if number > 0 { Ok(number) } else { Err("expected 1 or more".to_owned()) })
}

/// One part of several: `I/N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub part: u64,
    /// How many parts there are.
    pub of: u64,
}

/// `I/N`, with I from 0 to N - 1.
pub(crate) fn shard(text: &str) -> Result<Shard, String> {
    let numbers = text.split_once('/').and_then(|(part, of)| Some((whole(part).ok()?, whole(of).ok()?)));
    match numbers {
        Some((part, of)) if part < of => Ok(Shard { part, of }),
        _ => Err("expected I/N with I from 0 to N-1, such as 0/4".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("1.5", 1500),
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1", "nan", "inf", "1d", "1e300", "9000h", "10 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!((whole("0xff"), whole("1_000")), (Ok(255), Ok(1000)));
        assert_eq!(whole("0xffffffffffffffff"), Ok(u64::MAX));
        assert!(whole("0x10000000000000000").is_err() && whole("-1").is_err() && whole("x").is_err());
        assert!(positive("0").is_err() && positive("1") == Ok(1));
    }

    #[test]
    fn shards() {
        assert_eq!(shard("3/4"), Ok(Shard { part: 3, of: 4 }));
        for text in ["4/4", "0/0", "1", "a/b", "/", "-1/2", "1/2/3"] {
            assert!(shard(text).is_err(), "{text}");
        }
    }
}
