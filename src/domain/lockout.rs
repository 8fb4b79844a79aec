//! How long logins are refused after failures: five are free, then each doubles the wait, from a
//! second to a quarter of an hour. What is counted together is decided in `engine/lockouts.rs`.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

/// Failures without a wait.
const FREE: u32 = 5;
/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(15);
/// Failures are forgotten this long after the last one.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// Failures that are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureCount {
    count: u32,
    last: Option<Timestamp>,
}

impl FailureCount {
    /// The wait that the failures so far cause.
    fn wait(self) -> Duration {
        let Some(doublings) = self.count.checked_sub(FREE) else { return Duration::ZERO };
        FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST)
    }

    /// How much longer attempts are refused; `None` if they are not.
    pub fn locked_for(self, now: Timestamp) -> Option<Duration> {
        let left = self.wait().checked_sub(now.since(self.last?))?;
        (!left.is_zero()).then_some(left)
    }

    /// Counts a failure. Returns whether it locks where nothing was locked before. An attempt that
    /// was refused anyway does not count: it guessed nothing.
    pub fn fail(&mut self, now: Timestamp) -> bool {
        if self.locked_for(now).is_some() {
            return false;
        }
        if self.is_forgotten(now) {
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        self.count == FREE
    }

    /// Whether the last failure is too old to count.
    pub fn is_forgotten(self, now: Timestamp) -> bool {
        self.last.is_none_or(|last| now.since(last) >= FORGOTTEN)
    }

    /// Time of the last failure.
    pub const fn last(self) -> Option<Timestamp> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_quarter_of_an_hour_and_failures_are_forgotten() {
        let (mut count, now) = (FailureCount::default(), Timestamp::from_millis(0));
        for nth in 1..FREE {
            assert!(!count.fail(now), "{nth}");
            assert_eq!(count.locked_for(now), None);
        }
        assert!(count.fail(now));
        let mut waits = vec![count.locked_for(now).unwrap().as_secs()];
        let mut now = now;
        for _ in 0..40 {
            // While it is locked, a failure changes nothing.
            count.fail(now);
            now = now.plus(count.locked_for(now).unwrap());
            assert!(!count.fail(now));
            waits.push(count.locked_for(now).unwrap().as_secs());
        }
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]);
        assert_eq!(waits[40], 900);
        let later = |secs| now.plus(Duration::from_secs(secs));
        assert!(count.locked_for(later(899)).is_some());
        assert_eq!(count.locked_for(later(900)), None);
        assert!(!count.is_forgotten(later(3599)) && count.is_forgotten(later(3600)));
        count.fail(later(3600));
        assert_eq!(count.locked_for(later(3600)), None);
    }
}
