//! Failed logins until they are in the audit log: at most one entry a minute for each user and
//! address, with their number. An attacker cannot fill the log. The names of unknown users are not
//! kept, because people type passwords into that field too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

/// Least time between two entries of one user and address.
const EVERY: Duration = Duration::from_mins(1);
/// Maximum number of users and addresses. Beyond it, failures count for the address 0.0.0.0.
const PAIRS: usize = 200;

/// Failures of one user from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedLogins {
    /// The user; `None` if the name is unknown.
    pub user: Option<String>,
    /// The address; `None` for several ones.
    pub address: Option<IpAddr>,
    /// Their number since the last entry.
    pub count: u64,
    /// Whether they have locked the user.
    pub is_locked: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    count: u64,
    is_locked: bool,
    recorded_at: Option<Timestamp>,
}

type Pair = (Option<String>, Option<IpAddr>);

/// Failures that are not in the audit log yet.
#[derive(Debug, Default)]
pub struct FailedLoginLog(Mutex<HashMap<Pair, Pending>>);

impl FailedLoginLog {
    /// Notes a failure.
    pub fn note(&self, user: Option<&str>, address: IpAddr, is_locked: bool) {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pair = (user.map(str::to_owned), Some(address));
        if pairs.len() >= PAIRS && !pairs.contains_key(&pair) {
            // Names of users are bounded by their number; addresses are not.
            pair.1 = None;
        }
        let pending = pairs.entry(pair).or_default();
        pending.count += 1;
        pending.is_locked |= is_locked;
    }

    /// Takes the failures that are due for an entry at `now`; all of them at the end.
    pub fn take(&self, now: Timestamp, is_end: bool) -> Vec<FailedLogins> {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |at: Option<Timestamp>| is_end || at.is_none_or(|at| now.since(at) >= EVERY);
        let mut due = Vec::new();
        pairs.retain(|(user, address), pending| {
            if !is_due(pending.recorded_at) {
                return true;
            }
            let Pending { count, is_locked, .. } = *pending;
            if count == 0 {
                return false;
            }
            due.push(FailedLogins { user: user.clone(), address: *address, count, is_locked });
            *pending = Pending { recorded_at: Some(now), ..Pending::default() };
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_minute_are_one_entry_and_pairs_are_bounded() {
        let (log, now) = (FailedLoginLog::default(), Timestamp::from_millis(0));
        let address = |last: u32| IpAddr::V4(last.into());
        log.note(Some("alice"), address(1), false);
        let entry = |count, is_locked| {
            vec![FailedLogins { user: Some("alice".into()), address: Some(address(1)), count, is_locked }]
        };
        assert_eq!(log.take(now, false), entry(1, false));
        for _ in 0..7 {
            log.note(Some("alice"), address(1), true);
        }
        assert_eq!(log.take(now.plus(Duration::from_secs(59)), false), []);
        assert_eq!(log.take(now.plus(EVERY), false), entry(7, true));
        assert_eq!(log.take(now.plus(EVERY * 2), false), []);
        for nth in 0..10_000 {
            log.note(None, address(nth), false);
        }
        let all = log.take(now, true);
        assert_eq!((all.len(), all.iter().map(|failed| failed.count).sum::<u64>()), (PAIRS + 1, 10_000));
    }
}
