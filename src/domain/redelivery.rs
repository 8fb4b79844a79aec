//! When a message that a receiver did not take is sent again: soon at first, then each half hour, until three days after what
//! it tells of.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

/// Waits after the first tries; the last one stands for all that follow.
const WAITS: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_mins(30),
];
/// How long after an event its message is still sent.
pub const PATIENCE: Duration = Duration::from_hours(72);
/// The longest wait that a receiver can ask for.
const LONGEST: Duration = Duration::from_hours(1);

/// When to try again at `now`, after `tries` of them, what tells of `event_at`; `None`: not any more. `asked` is the wait that
/// the receiver asked for.
pub fn next_try(tries: i64, event_at: Timestamp, now: Timestamp, asked: Option<Duration>) -> Option<Timestamp> {
    let index = usize::try_from(tries.max(1) - 1).unwrap_or(usize::MAX).min(WAITS.len() - 1);
    let wait = asked.map_or(WAITS[index], |asked| asked.min(LONGEST).max(WAITS[index]));
    let next = now.plus(wait);
    (next <= event_at.plus(PATIENCE)).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_follow_for_three_days_and_end() {
        let event = Timestamp::from_millis(0);
        let (mut now, mut tries) = (event, 1);
        while let Some(next) = next_try(tries, event, now, None) {
            assert!(next > now);
            (now, tries) = (next, tries + 1);
        }
        let hours = Duration::from_millis(u64::try_from(now.as_millis()).unwrap()).as_secs_f64() / 3600.0;
        assert!((71.0..=72.0).contains(&hours) && (140..160).contains(&tries), "{tries} tries in {hours} h");
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait_but_not_for_ever() {
        let at = Timestamp::from_millis(0);
        let after = |asked: u64| next_try(1, at, at, Some(Duration::from_secs(asked))).unwrap().as_secs();
        assert_eq!((after(0), after(60), after(1_000_000)), (5, 60, 3600));
    }
}
