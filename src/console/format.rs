//! Times and numbers as pages show them.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::views::columns::Millis;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A number with its noun: `1 agent`, `2 agents`.
pub(super) fn count(number: i64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A duration in its two largest units: `2 d 3 h`, `9 min 5 s`.
pub(super) fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    let two = |large: u64, small: u64, names: (&str, &str)| match (secs % large) / small {
        0 => format!("{} {}", secs / large, names.0),
        rest => format!("{} {} {rest} {}", secs / large, names.0, names.1),
    };
    match secs {
        0..MINUTE => format!("{secs} s"),
        MINUTE..HOUR => two(MINUTE, 1, ("min", "s")),
        HOUR..DAY => two(HOUR, MINUTE, ("h", "min")),
        _ => two(DAY, HOUR, ("d", "h")),
    }
}

/// One unit is enough for what is past: `4 min ago`.
pub(super) fn ago(at: impl Into<Timestamp>, now: Timestamp) -> String {
    let secs = now.since(at.into()).as_secs();
    match secs {
        0..MINUTE => format!("{secs} s ago"),
        MINUTE..HOUR => format!("{} min ago", secs / MINUTE),
        HOUR..DAY => format!("{} h ago", secs / HOUR),
        _ => format!("{} d ago", secs / DAY),
    }
}

/// A time as pages show it: how long ago, or in how long, with the exact time beside it.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// RFC 3339.
    pub(super) exact: String,
    /// In words, as of the page.
    pub(super) words: String,
}

/// A time that is past.
pub(super) fn past(at: Millis, now: Timestamp) -> Moment {
    Moment { exact: at.to_string(), words: ago(at, now) }
}

/// A time that is to come.
pub(super) fn coming(at: Millis, now: Timestamp) -> Moment {
    let at = Timestamp::from(at);
    let words = if at > now { span(at.since(now)) } else { "now".to_owned() };
    Moment { exact: at.to_string(), words }
}

/// The last part of an id, which tells two apart on one page: an id begins with the time.
pub(super) fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        let spans = [0, 59, 60, 3_605, 7_260, 90_000, 172_800].map(|secs| span(Duration::from_secs(secs)));
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 h", "2 h 1 min", "1 d 1 h", "2 d"]);
        assert_eq!((count(1, "agent"), count(0, "agent")), ("1 agent".into(), "0 agents".into()));
    }
}
