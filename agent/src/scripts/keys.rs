//! The keys that custom programs hold, by `check_keys`: Wazuh's way to deduplicate alerts. Stored
//! on disk, so that a repeated alert is still recognised after a restart of the agent.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::durable;
use crate::platform::guarded;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The effects of custom programs in force, with their keys.
#[derive(Debug)]
pub struct KeyBook {
    path: PathBuf,
    entries: Mutex<Option<BTreeMap<Uuid, Entry>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    program: String,
    keys: Vec<String>,
}

impl KeyBook {
    /// The keys stored at `path`; read at first use. An unreadable file counts as empty. Then a
    /// program may be told to continue for a repeated alert, which it has to tolerate.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), entries: Mutex::new(None) }
    }

    /// Whether this effect has keys.
    pub(super) fn knows(&self, effect: Uuid) -> bool {
        self.with(|entries| entries.contains_key(&effect))
    }

    /// Whether another effect has one of these keys through the same program.
    pub(super) fn is_held_by_another(&self, effect: Uuid, program: &str, keys: &[String]) -> bool {
        let shares = |entry: &Entry| entry.program == program && entry.keys.iter().any(|key| keys.contains(key));
        self.with(|entries| entries.iter().any(|(other, entry)| *other != effect && shares(entry)))
    }

    /// Whether another effect has the same keys through the same program.
    pub(super) fn is_shared(&self, effect: Uuid) -> bool {
        let own = self.with(|entries| entries.get(&effect).cloned());
        own.is_some_and(|own| self.is_held_by_another(effect, &own.program, &own.keys))
    }

    pub(super) fn hold(&self, effect: Uuid, program: &str, keys: Vec<String>) -> io::Result<()> {
        self.change(|entries| {
            entries.insert(effect, Entry { program: program.into(), keys });
        })
    }

    pub(super) fn release(&self, effect: Uuid) -> io::Result<()> {
        if !self.knows(effect) {
            return Ok(());
        }
        self.change(|entries| {
            entries.remove(&effect);
        })
    }

    /// Forgets an effect that has ended because an equal one replaced it. If that cannot be stored,
    /// the new effect is later lifted without its program, and the result says so.
    pub fn forget(&self, effect: Uuid) {
        if let Err(error) = self.release(effect) {
            tracing::error!(%effect, %error, "the keys of a custom program cannot be stored");
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Uuid, Entry>) -> T) -> T {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        look(entries.get_or_insert_with(|| load(&self.path)))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Uuid, Entry>)) -> io::Result<()> {
        let text = self.with(|entries| {
            change(entries);
            serde_json::to_vec(entries)
        })?;
        durable::replace(&self.path, &text)
    }
}

fn load(path: &Path) -> BTreeMap<Uuid, Entry> {
    match guarded::read(path, MAX_BYTES) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the keys of custom programs cannot be read: dropped");
            BTreeMap::new()
        }),
        Err(_) => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outlive_the_agent_and_are_shared_by_effects_of_one_program_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let (first, second, third) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let key = || vec!["203.0.113.7".to_owned()];
        KeyBook::at(&path).hold(first, "block", key()).unwrap();
        let book = KeyBook::at(&path);
        assert!(book.is_held_by_another(second, "block", &key()));
        assert!(!book.is_held_by_another(first, "block", &key()), "its own");
        assert!(!book.is_held_by_another(second, "other", &key()));
        assert!(!book.is_held_by_another(second, "block", &["203.0.113.70".into()]));
        book.hold(second, "block", key()).unwrap();
        book.hold(third, "block", vec![]).unwrap();
        assert!(book.is_shared(first) && book.is_shared(second) && !book.is_shared(third));
        book.release(first).unwrap();
        assert!(!book.is_shared(second) && !book.knows(first));
        std::fs::write(&path, "{torn").unwrap();
        assert!(!KeyBook::at(&path).knows(second), "a damaged book is an empty one");
    }
}
