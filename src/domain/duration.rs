//! Durations in policies and API calls: `"30s"`, `"10m"`, `"2h"`, `"7d"`, or several parts,
//! `"1h30m"`. One spelling everywhere: no months, no bare numbers, no fractions.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A positive duration in whole milliseconds, at most [`Span::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

/// The text is not a [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a duration such as \"30s\", \"10m\", \"2h\" or \"7d\" (more than zero, ten years at most)")]
pub struct InvalidSpan;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    /// Ten years. A longer block should have no end and be lifted by hand.
    pub const MAX: Duration = Duration::from_hours(87600);

    /// This duration, which must be in range; it is cut to it.
    pub fn of(duration: Duration) -> Self {
        Self(duration.clamp(Duration::from_millis(1), Self::MAX))
    }

    /// As a [`Duration`].
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            // Twelve digits of days do not overflow the multiplication below.
            if digits == 0 || digits > 12 {
                return Err(InvalidSpan);
            }
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidSpan)?;
            let number: u64 = number.parse().map_err(|_| InvalidSpan)?;
            total = number.checked_mul(*millis).and_then(|part| total.checked_add(part)).ok_or(InvalidSpan)?;
            rest = tail;
        }
        let span = Duration::from_millis(total);
        if span.is_zero() || span > Self::MAX { Err(InvalidSpan) } else { Ok(Self(span)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        for (name, millis) in UNITS {
            if rest >= millis {
                write!(f, "{}{name}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_a_round_trip() {
        for (text, secs) in [("30s", 30), ("10m", 600), ("2h", 7200), ("7d", 604_800), ("1h30m", 5400)] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.duration().as_secs(), span.to_string().as_str()), (secs, text));
        }
        assert_eq!("90m".parse::<Span>().unwrap().to_string(), "1h30m");
        assert_eq!("1500ms".parse::<Span>().unwrap().to_string(), "1s500ms");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "0s", "10", "m", "-5m", "1.5h", "10 m", "1M", "3651d", "99999999999999999999s", "10m ", "1y"] {
            assert_eq!(text.parse::<Span>(), Err(InvalidSpan), "{text}");
        }
        assert!("3650d".parse::<Span>().is_ok());
    }
}
