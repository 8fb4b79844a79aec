//! A rate limit with a burst: the first messages pass at once, later ones at a fixed rate. Excess
//! messages wait at the sender.

use std::time::{Duration, Instant};

/// How far one sender is ahead of its rate.
#[derive(Debug)]
pub struct RateLimit {
    /// Time per unit.
    each: Duration,
    /// Size of the burst, as time.
    at_once: Duration,
    heard_at: Instant,
    /// Time by which the sender was ahead at `heard_at`.
    ahead: Duration,
}

impl RateLimit {
    /// Creates a limit of one unit per `each`, with a burst of `at_once` units.
    pub fn new(each: Duration, at_once: u32, now: Instant) -> Self {
        Self { each, at_once: each.saturating_mul(at_once), heard_at: now, ahead: Duration::ZERO }
    }

    fn ahead(&self, now: Instant) -> Duration {
        self.ahead.saturating_sub(now.saturating_duration_since(self.heard_at))
    }

    /// How long the next unit must wait.
    pub fn wait(&self, now: Instant) -> Duration {
        self.ahead(now).saturating_sub(self.at_once)
    }

    /// Records units.
    pub fn step(&mut self, units: usize, now: Instant) {
        let took = self.each.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
        (self.ahead, self.heard_at) = (self.ahead(now).saturating_add(took), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_11_a_flooding_sender_is_rate_limited() {
        const EACH: Duration = Duration::from_millis(2);
        let begun = Instant::now();
        let (mut limit, mut now, mut heard_at_once) = (RateLimit::new(EACH, 500, begun), begun, 0);
        for nth in 0..3000_u32 {
            let wait = limit.wait(now);
            heard_at_once += u32::from(wait.is_zero());
            now += wait;
            limit.step(1, now);
            assert!(nth < 500 || wait <= EACH, "{wait:?}");
        }
        assert_eq!((heard_at_once, now - begun), (501, EACH * 2499));
        // Silence refills the burst, and a sender at the rate never waits.
        now += EACH * 501;
        for _ in 0..400 {
            assert_eq!(limit.wait(now), Duration::ZERO);
            limit.step(1, now);
        }
        for _ in 0..3000 {
            now += EACH;
            assert_eq!(limit.wait(now), Duration::ZERO);
            limit.step(1, now);
        }
        limit.step(usize::MAX, now);
        assert!(limit.wait(now) > Duration::from_hours(24));
    }
}
