//! One instant in UTC with millisecond precision: RFC 3339 text on the wire, an integer in the
//! database. Both databases store milliseconds exactly, and an analyst can still read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z; always between the years 0 and 9999, so that RFC 3339
/// can express it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = DateTime))]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 instant between the years 0 and 9999.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time between the years 0000 and 9999")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// 0000-01-01T00:00:00.000Z.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// 9999-12-30T00:00:00.000Z: a day short of the year's end, which is the last instant `jiff`
    /// can hold in every time zone.
    pub const MAX: Self = Self(253_402_128_000_000);

    /// The instant `millis` milliseconds after the epoch; values out of range become the nearest
    /// bound.
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, as a JWT's NumericDate (RFC 7519 §2).
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The instant `duration` later, or [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }

    /// The instant `duration` earlier, or [`Timestamp::MIN`].
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A difference of two clocks as people say it, such as `2 d behind`: the first clock is
/// `ahead_millis` ahead of the second.
pub fn difference(ahead_millis: i64) -> String {
    let secs = ahead_millis.unsigned_abs() / 1000;
    let rounded = |unit: u64| (secs + unit / 2) / unit;
    let (number, unit) = match (secs, rounded(60), rounded(3600)) {
        (0..120, ..) => (secs, "s"),
        (_, minutes @ 0..120, _) => (minutes, "min"),
        (.., hours @ 0..48) => (hours, "h"),
        _ => (rounded(86_400), "d"),
    };
    format!("{number} {unit} {}", if ahead_millis < 0 { "behind" } else { "ahead of" })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            // Unreachable by construction; a panic in a log line would be worse.
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        let millis = instant.as_millisecond();
        if (Self::MIN.0..=Self::MAX.0).contains(&millis) { Ok(Self(millis)) } else { Err(InvalidTimestamp) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_written_in_words() {
        let told_of = |secs: i64| difference(secs * 1000);
        assert_eq!(told_of(-172_800), "2 d behind");
        assert_eq!(told_of(-172_795), "2 d behind");
        assert_eq!(told_of(7200), "2 h ahead of");
        assert_eq!(told_of(-61), "61 s behind");
        assert_eq!(told_of(180), "3 min ahead of");
    }

    #[test]
    fn a_timestamp_is_written_with_milliseconds_and_read_back() {
        let text = "2026-11-24T10:00:00.120Z";
        let instant: Timestamp = text.parse().unwrap();
        assert_eq!(instant.to_string(), text);
        assert_eq!("2026-11-24T11:00:00.120+01:00".parse(), Ok(instant));
        assert_eq!("2026-11-24T10:00:00.1209999Z".parse(), Ok(instant));
    }

    #[test]
    fn the_bounds_can_be_written_and_nothing_beyond_them_is_read() {
        for bound in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(bound.to_string().parse(), Ok(bound));
        }
        assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!("yesterday".parse::<Timestamp>(), Err(InvalidTimestamp));
        assert_eq!("2026-02-30T10:00:00Z".parse::<Timestamp>(), Err(InvalidTimestamp));
    }
}
