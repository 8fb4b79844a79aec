//! Which failed logins are counted together. Three counters decide about an attempt: one of the
//! address, one of the user from all unknown addresses, and one of the user from each known network,
//! which is one of the user's last logins. So an attacker elsewhere can hold off logins of a user
//! from new addresses, and never those from where the user works.
//!
//! A name that no user has is counted like any other: an attempt cannot tell the two apart.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::domain::lockout::FailureCount;

/// Maximum number of counters of each kind. Beyond it, the one whose last failure is oldest goes,
/// those of unknown names first.
const COUNTERS: usize = 10_000;

/// An attempt to log in.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The name that was given.
    pub name: String,
    /// Whether a user has that name.
    pub exists: bool,
    /// Network of the address (`IPv6`: its /64).
    pub network: IpAddr,
    /// Whether the user has logged in from that network lately.
    pub is_known: bool,
}

impl Attempt {
    /// The counter of the user: of one known network, or of all others together.
    fn of_user(&self) -> UserCounter {
        UserCounter { name: self.name.clone(), network: self.is_known.then_some(self.network) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct UserCounter {
    name: String,
    network: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct Counters {
    addresses: HashMap<IpAddr, (FailureCount, bool)>,
    users: HashMap<UserCounter, (FailureCount, bool)>,
}

/// Counts failed logins. They are not stored: a restart forgets them.
#[derive(Debug, Default)]
pub struct Lockouts(Mutex<Counters>);

impl Lockouts {
    /// How long no login from `network` is looked at; `None` if they are.
    pub fn address(&self, network: IpAddr, now: Timestamp) -> Option<Duration> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.addresses.get(&network).and_then(|(count, _)| count.locked_for(now))
    }

    /// Whether the attempt is refused even with the right password.
    pub fn is_locked(&self, attempt: &Attempt, now: Timestamp) -> bool {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.users.get(&attempt.of_user()).is_some_and(|(count, _)| count.locked_for(now).is_some())
    }

    /// Counts a failed attempt. Returns whether it locks the user where nothing was locked before.
    pub fn fail(&self, attempt: &Attempt, now: Timestamp) -> bool {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter(&mut counters.addresses, attempt.network, true).fail(now);
        counter(&mut counters.users, attempt.of_user(), attempt.exists).fail(now)
    }

    /// Forgets the failures of the attempt's user from there, and those of its address.
    pub fn succeed(&self, attempt: &Attempt) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.addresses.remove(&attempt.network);
        counters.users.remove(&attempt.of_user());
    }

    /// Forgets all failures of the user `name`, because an administrator has set a new password.
    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).users.retain(|counter, _| counter.name != name);
    }
}

fn counter<K: Hash + Eq + Clone>(
    counters: &mut HashMap<K, (FailureCount, bool)>,
    key: K,
    is_of_known: bool,
) -> &mut FailureCount {
    if counters.len() >= COUNTERS && !counters.contains_key(&key) {
        let oldest = counters.iter().min_by_key(|(_, (count, is_of_known))| (*is_of_known, count.last()));
        let oldest = oldest.map(|(key, _)| key.clone());
        oldest.and_then(|oldest| counters.remove(&oldest));
    }
    &mut counters.entry(key).or_insert((FailureCount::default(), is_of_known)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn attempt(name: &str, last: u8, is_known: bool) -> Attempt {
        Attempt { name: name.into(), exists: name == "alice", network: IpAddr::from([192, 0, 2, last]), is_known }
    }

    #[test]
    fn an_attacker_elsewhere_does_not_lock_a_known_address() {
        let lockouts = Lockouts::default();
        let locked: Vec<bool> = (0..6).map(|last| lockouts.fail(&attempt("alice", last, false), NOW)).collect();
        assert_eq!(locked, [false, false, false, false, true, false]);
        assert!(lockouts.is_locked(&attempt("alice", 99, false), NOW));
        assert!(!lockouts.is_locked(&attempt("alice", 100, true), NOW));
        assert_eq!(lockouts.address(IpAddr::from([192, 0, 2, 0]), NOW), None);
        // A known address has a counter of its own, and so has the address as such.
        for _ in 0..5 {
            lockouts.fail(&attempt("alice", 100, true), NOW);
        }
        assert!(lockouts.is_locked(&attempt("alice", 100, true), NOW));
        assert!(!lockouts.is_locked(&attempt("alice", 101, true), NOW));
        assert!(lockouts.address(IpAddr::from([192, 0, 2, 100]), NOW).is_some());
        lockouts.forget("alice");
        assert!(!lockouts.is_locked(&attempt("alice", 99, false), NOW));
    }

    #[test]
    fn a_flood_of_invented_names_does_not_unlock_a_user() {
        let lockouts = Lockouts::default();
        for _ in 0..5 {
            lockouts.fail(&attempt("alice", 1, false), NOW);
        }
        for nth in 0..COUNTERS + 10 {
            lockouts.fail(&attempt(&format!("invented-{nth}"), 2, false), NOW);
        }
        assert!(lockouts.is_locked(&attempt("alice", 1, false), NOW));
        assert_eq!(lockouts.0.lock().unwrap().users.len(), COUNTERS);
    }
}
