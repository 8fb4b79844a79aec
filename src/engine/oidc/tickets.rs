//! Tickets: secrets that are good for one use within a short time, and what each stands for. They
//! are in memory: a restart ends the logins that are under way. Only hashes are kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::engine::refusal::{Refusal, UseCase};
use crate::engine::secrets::{hash_secret, new_secret};

/// Maximum number of tickets of one kind. Beyond it, no further login begins until one expires:
/// otherwise a flood would push out the logins of others.
pub const MOST: usize = 4096;

/// Tickets of one kind.
pub struct Tickets<T> {
    lifetime: Duration,
    open: Mutex<HashMap<Vec<u8>, (Timestamp, T)>>,
}

impl<T> std::fmt::Debug for Tickets<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tickets").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl<T> Tickets<T> {
    /// No tickets yet; each is good for `lifetime`.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, open: Mutex::default() }
    }

    /// Returns a new ticket for `value`.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if too many are open, [`Refusal::System`] without randomness.
    pub fn issue(&self, value: T, now: Timestamp) -> UseCase<String> {
        let secret = new_secret()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST {
            open.retain(|_, (until, _)| *until > now);
            if open.len() >= MOST {
                return Err(Refusal::Overloaded("too many logins by single sign-on are under way; retry later"));
            }
        }
        open.insert(hash_secret(&secret), (now.plus(self.lifetime), value));
        Ok(secret)
    }

    /// What a ticket stands for. It is used up.
    pub fn take(&self, ticket: &str, now: Timestamp) -> Option<T> {
        let taken = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash_secret(ticket));
        taken.filter(|(until, _)| *until > now).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_its_time_and_they_are_bounded() {
        let (tickets, now) = (Tickets::new(Duration::from_mins(1)), Timestamp::from_millis(0));
        let ticket = tickets.issue("a", now).unwrap();
        assert_eq!(tickets.take("x", now), None);
        assert_eq!(tickets.take(&ticket, now.plus(Duration::from_millis(59_999))), Some("a"));
        assert_eq!(tickets.take(&ticket, now), None);
        let late = tickets.issue("b", now).unwrap();
        assert_eq!(tickets.take(&late, now.plus(Duration::from_mins(1))), None);
        for _ in 0..MOST {
            tickets.issue("c", now).unwrap();
        }
        assert!(matches!(tickets.issue("d", now), Err(Refusal::Overloaded(_))));
        tickets.issue("d", now.plus(Duration::from_mins(1))).unwrap();
    }
}
