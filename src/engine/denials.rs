//! Denied requests of known callers until they are in the audit log: at most one entry a minute for
//! each caller and operation, with their number and address. A program that asks without end cannot
//! fill the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::domain::actor::Actor;

/// Least time between two entries of one caller and operation.
const EVERY: Duration = Duration::from_mins(1);
/// Maximum number of callers and operations. Beyond it, denials count for the caller alone.
const PAIRS: usize = 500;
/// Stands for the operation where there are too many.
const SEVERAL: &str = "several operations";

/// A caller, and the method and route of the operation.
type Denied = (Actor, String);

#[derive(Clone, Copy, Debug)]
struct Pending {
    count: u64,
    /// `None` for several ones.
    address: Option<IpAddr>,
    recorded_at: Option<Timestamp>,
}

/// Denials that are not in the audit log yet.
#[derive(Debug, Default)]
pub struct DenialLog(Mutex<HashMap<Denied, Pending>>);

/// Denials of one caller and operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denials {
    /// The caller.
    pub actor: Actor,
    /// Method and route.
    pub operation: String,
    /// The address; `None` for several ones.
    pub address: Option<IpAddr>,
    /// Their number since the last entry.
    pub count: u64,
}

impl DenialLog {
    /// Notes a request that got 403.
    pub fn note(&self, actor: &Actor, operation: String, address: IpAddr) {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pair = (actor.clone(), operation);
        if pairs.len() >= PAIRS && !pairs.contains_key(&pair) {
            // Callers are bounded by the number of keys and users.
            SEVERAL.clone_into(&mut pair.1);
        }
        let new = Pending { count: 0, address: Some(address), recorded_at: None };
        let pending = pairs.entry(pair).or_insert(new);
        if pending.count == 0 {
            pending.address = Some(address);
        }
        pending.count += 1;
        pending.address = pending.address.filter(|before| *before == address);
    }

    /// Takes the denials that are due for an entry at `now`; all of them at the end.
    pub fn take(&self, now: Timestamp, is_end: bool) -> Vec<Denials> {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        pairs.retain(|(actor, operation), pending| {
            if !is_end && pending.recorded_at.is_some_and(|at| now.since(at) < EVERY) {
                return true;
            }
            let Pending { count, address, .. } = *pending;
            if count == 0 {
                return false;
            }
            due.push(Denials { actor: actor.clone(), operation: operation.clone(), address, count });
            *pending = Pending { count: 0, address: None, recorded_at: Some(now) };
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_of_a_minute_are_one_entry_and_operations_are_bounded() {
        let (log, now) = (DenialLog::default(), Timestamp::from_millis(0));
        let (actor, address) = (Actor::User("alice".into()), |last: u32| IpAddr::V4(last.into()));
        let denials = |count, address| {
            vec![Denials { actor: Actor::User("alice".into()), operation: "GET /a".into(), address, count }]
        };
        log.note(&actor, "GET /a".into(), address(1));
        assert_eq!(log.take(now, false), denials(1, Some(address(1))));
        log.note(&actor, "GET /a".into(), address(2));
        assert_eq!(log.take(now.plus(Duration::from_secs(59)), false), []);
        log.note(&actor, "GET /a".into(), address(2));
        assert_eq!(log.take(now.plus(EVERY), false), denials(2, Some(address(2))));
        log.note(&actor, "GET /a".into(), address(2));
        log.note(&actor, "GET /a".into(), address(3));
        assert_eq!(log.take(now.plus(EVERY * 2), false), denials(2, None), "from several addresses");
        assert_eq!(log.take(now.plus(EVERY * 3), false), []);
        for nth in 0..10_000 {
            log.note(&actor, format!("GET /{nth}"), address(1));
        }
        let all = log.take(now, true);
        assert_eq!((all.len(), all.iter().map(|denied| denied.count).sum::<u64>()), (PAIRS + 1, 10_000));
    }
}
