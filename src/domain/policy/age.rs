//! Maximum age of an alert for a response: a backlog shipped after an outage must not block last
//! week's addresses. Checked at intake, never in a backtest.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde::{Serialize, Serializer};

use crate::domain::duration::{InvalidSpan, Span};

/// Tolerated skew of alerts dated ahead: clocks with NTP differ by seconds, others by minutes.
pub const FUTURE_SKEW: Duration = Duration::from_mins(5);

/// The age from which an alert is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxAge {
    /// No limit on age or future dates.
    Unlimited,
    /// Spares older alerts, and those dated more than [`FUTURE_SKEW`] ahead.
    Of(Span),
}

impl FromStr for MaxAge {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        if text == "none" { Ok(Self::Unlimited) } else { text.parse().map(Self::Of) }
    }
}

impl fmt::Display for MaxAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("none"),
            Self::Of(span) => span.fmt(f),
        }
    }
}

impl Serialize for MaxAge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl MaxAge {
    /// Why an alert of `time`, received at `received`, is stale; `None` if it is not.
    pub fn staleness(self, time: Timestamp, received: Timestamp) -> Option<String> {
        let Self::Of(most) = self else { return None };
        let age = received.as_millis().saturating_sub(time.as_millis());
        let length = Duration::from_millis(age.unsigned_abs());
        if age > 0 && length > most.duration() {
            Some(format!("the alert was {} old when it came in, and max_age is {most}", Rough(length)))
        } else if age < 0 && length > FUTURE_SKEW {
            let allowed = Rough(FUTURE_SKEW);
            Some(format!(
                "the alert is dated {} after it came in; clocks may differ by {allowed}, and max_age is {most}",
                Rough(length)
            ))
        } else {
            None
        }
    }
}

/// A duration in its two largest units.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        match (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60) {
            (0, 0, 0, secs) => write!(f, "{secs}s"),
            (0, 0, mins, 0) => write!(f, "{mins}m"),
            (0, 0, mins, secs) => write!(f, "{mins}m{secs}s"),
            (0, hours, 0, _) => write!(f, "{hours}h"),
            (0, hours, mins, _) => write!(f, "{hours}h{mins}m"),
            (days, 0, ..) => write!(f, "{days}d"),
            (days, hours, ..) => write!(f, "{days}d{hours}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_stale_beyond_its_age_and_beyond_the_skew() {
        let received = Timestamp::from_millis(1_795_000_000_000);
        let hour: MaxAge = "1h".parse().unwrap();
        let stale =
            |age: MaxAge, offset: i64| age.staleness(Timestamp::from_millis(received.as_millis() + offset), received);
        for fresh in [0, -1, -3_600_000, 300_000] {
            assert_eq!(stale(hour, fresh), None, "{fresh}");
        }
        let old = stale(hour, -3_600_001).unwrap();
        assert_eq!(old, "the alert was 1h old when it came in, and max_age is 1h");
        let days = stale(hour, -(8 * 86_400 + 7 * 3600) * 1000).unwrap();
        assert!(days.starts_with("the alert was 8d7h old"), "{days}");
        let ahead = stale(hour, 300_001).unwrap();
        assert_eq!(ahead, "the alert is dated 5m after it came in; clocks may differ by 5m, and max_age is 1h");
        for far in [i64::MIN / 2, i64::MAX / 2] {
            assert!(hour.staleness(Timestamp::from_millis(far), received).is_some());
            assert_eq!(MaxAge::Unlimited.staleness(Timestamp::from_millis(far), received), None);
        }
    }

    #[test]
    fn an_age_survives_a_round_trip() {
        for text in ["none", "1h", "7d", "1h30m"] {
            assert_eq!(text.parse::<MaxAge>().unwrap().to_string(), text);
        }
        for text in ["", "0s", "never", "None", "1"] {
            assert_eq!(text.parse::<MaxAge>(), Err(InvalidSpan), "{text}");
        }
    }
}
