//! Retry pauses: exponential with full jitter, so that agents which failed together do not return
//! together.

use std::time::Duration;

/// Upper bound of the first pause.
const FIRST: Duration = Duration::from_millis(500);
/// Upper bound of every pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Number of failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the pause after one more failure.
    pub(super) fn pause(&mut self) -> Duration {
        at_random(self.longest())
    }

    fn longest(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest
    }
}

/// A random duration between zero and `longest`, uniformly distributed.
pub(super) fn at_random(longest: Duration) -> Duration {
    // Without randomness the longest pause is the safe choice.
    let fraction = getrandom::u32().unwrap_or(u32::MAX);
    longest.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_are_spread() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..8).map(|_| backoff.longest().as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(at_random(Duration::ZERO), Duration::ZERO);
        assert!((0..100).all(|_| at_random(LONGEST) <= LONGEST));
    }
}
