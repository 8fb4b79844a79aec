//! The last use of each API key, in memory. The sweep writes them once a minute in one statement,
//! so that a use costs no write. A killed manager loses a minute of them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use crate::store::configured::keys::KeyUse;

/// How long before its expiry a key is announced to expire.
pub const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);

/// Whether `expires_at` is near at `now`.
pub fn expires_soon(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|at| at > now && at <= now.plus(EXPIRES_SOON))
}

#[derive(Clone, Copy, Debug)]
struct LastUse {
    at: Timestamp,
    from: IpAddr,
}

#[derive(Debug, Default)]
struct Uses {
    last: HashMap<String, LastUse>,
    unwritten: HashSet<String>,
    /// When the key's expiry was last in the log.
    warned: HashMap<String, Timestamp>,
}

/// The last use of each API key.
#[derive(Debug, Default)]
pub struct KeyUses(Mutex<Uses>);

impl KeyUses {
    /// Notes a request with a valid key.
    pub fn note(&self, id: &str, at: Timestamp, from: IpAddr) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = uses.last.get_mut(id) {
            *last = LastUse { at, from };
        } else {
            uses.last.insert(id.to_owned(), LastUse { at, from });
        }
        if !uses.unwritten.contains(id) {
            uses.unwritten.insert(id.to_owned());
        }
    }

    /// The last use of a key since the manager started.
    pub fn last(&self, id: &str) -> Option<(Timestamp, IpAddr)> {
        let uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.last.get(id).map(|last| (last.at, last.from))
    }

    /// Takes the uses that are not written yet.
    pub fn take(&self) -> Vec<KeyUse> {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = std::mem::take(&mut uses.unwritten);
        let last = unwritten.into_iter().filter_map(|id| uses.last.get(&id).map(|last| (id, *last)));
        last.map(|(id, LastUse { at, from })| (id, at, from.to_string())).collect()
    }

    /// Whether the key's expiry is to be in the log now: once a day.
    pub fn warns(&self, id: &str, now: Timestamp) -> bool {
        const DAY: Duration = Duration::from_hours(24);
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.warned.get(id).is_some_and(|at| now.since(*at) < DAY) {
            return false;
        }
        uses.warned.insert(id.to_owned(), now);
        true
    }
}
