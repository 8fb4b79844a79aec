//! The key of the seals, and what was found wrong with sealed rows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::sets::SealedTable;
use super::value::{WithSeal, stored};
use crate::domain::seal::{Breach, SealKey, SealState};
use crate::store::database::Bind;

/// Sets without which nothing may be brought into force: what they hold back would be unknown.
const HOLDING_BACK: [&str; 2] = ["protected_entries", "freezes"];
/// The set without which nothing may be removed.
const KEEPING: &str = "legal_holds";
/// Sets that say who may call.
const CALLERS: [&str; 4] = ["api_keys", "users", "identities", "sessions"];

/// What rows are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Purpose {
    /// The caller puts them into force.
    Force,
    /// The caller looks at them.
    Look,
}

impl Purpose {
    /// Whether what was wrong with a set before is forgotten when it is right again. Of what holds back it is not before it is
    /// in force: what waits would go out although the entry that is back forbids it.
    pub(super) fn forgets(self, set: &str) -> bool {
        self == Self::Force || !HOLDING_BACK.contains(&set)
    }
}

/// Rows that are kept by name: another program could write any number.
const MAX_BREACHES: usize = 1000;

/// What is wrong with a row or a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SealBreach {
    /// The table.
    pub set: &'static str,
    /// What the row is called; empty if it is not known.
    pub row: String,
    /// What is wrong.
    pub breach: Breach,
}

impl SealBreach {
    /// What happened, in one sentence without a full stop.
    pub fn describe(&self) -> String {
        self.breach.describe(self.set, &self.row)
    }
}

/// The key of the seals of a ledger, and what was found wrong.
#[derive(Debug, Default)]
pub struct Seals {
    key: OnceLock<SealKey>,
    known: Mutex<KnownSeals>,
}

#[derive(Debug, Default)]
struct KnownSeals {
    /// The newest version of the state of all sets that was seen.
    version: i64,
    breaches: BTreeSet<SealBreach>,
    /// Those that the audit log has.
    recorded: BTreeSet<SealBreach>,
}

impl Seals {
    /// The key, once the manager has given it. Tools that run no manager have none, and check nothing.
    pub(super) fn key(&self) -> Option<&SealKey> {
        self.key.get()
    }

    fn locked(&self) -> MutexGuard<'_, KnownSeals> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong now.
    pub fn breaches(&self) -> Vec<SealBreach> {
        self.locked().breaches.iter().cloned().collect()
    }

    /// Why a row is not used, if it is not.
    pub fn refuses(&self, set: &str, row: &str) -> Option<String> {
        let known = self.locked();
        let mut here = known.breaches.iter().filter(|found| found.set == set && found.row == row);
        here.next().map(SealBreach::describe)
    }

    /// What is wrong and not in the audit log yet.
    pub fn unrecorded(&self) -> Vec<SealBreach> {
        let known = self.locked();
        known.breaches.difference(&known.recorded).cloned().collect()
    }

    /// The audit log has these. Returns whether it had any before that are over.
    pub fn record(&self, now: Vec<SealBreach>) -> bool {
        let mut known = self.locked();
        known.recorded.extend(now);
        let before = known.recorded.len();
        let KnownSeals { breaches, recorded, .. } = &mut *known;
        recorded.retain(|found| breaches.contains(found));
        recorded.len() < before
    }

    /// Whether nothing new may be brought into force: what is protected or frozen may be more than is known,
    /// or some row is not what it was and no look can tell which.
    pub fn holds_back(&self) -> bool {
        let is_unknown = |found: &SealBreach| match found.breach {
            Breach::Foreign => HOLDING_BACK.contains(&found.set),
            Breach::Incomplete => found.set != KEEPING,
            Breach::Stateless => true,
        };
        self.locked().breaches.iter().any(is_unknown)
    }

    /// Why nothing may be removed by its age: a legal hold may be missing.
    pub fn keeps_all(&self) -> Option<SealBreach> {
        let is_unknown = |found: &&SealBreach| found.set == KEEPING || found.breach == Breach::Stateless;
        self.locked().breaches.iter().find(is_unknown).cloned()
    }

    /// Why only pipelines may call: a key or a person may be back that was revoked.
    pub fn refuses_callers(&self) -> Option<SealBreach> {
        let is_unknown = |found: &&SealBreach| match found.breach {
            Breach::Foreign => false,
            Breach::Incomplete => CALLERS.contains(&found.set),
            Breach::Stateless => true,
        };
        self.locked().breaches.iter().find(is_unknown).cloned()
    }

    pub(super) fn note(&self, set: &'static str, row: &str, breach: Breach) {
        let found = SealBreach { set, row: row.to_owned(), breach };
        let text = found.describe();
        let mut known = self.locked();
        // The rows are not used in any case.
        let has_room = known.breaches.len() < MAX_BREACHES || breach != Breach::Foreign;
        let is_new = has_room && known.breaches.insert(found);
        drop(known);
        if is_new {
            tracing::error!(set, row, "{text}; it is not used. `riposte doctor` says what to do");
        }
    }

    /// Gives the key. The first one stays.
    pub(super) fn arm(&self, key: SealKey) {
        // Only a second engine on the same database would give another.
        drop(self.key.set(key));
    }

    /// The record of the sets is older than `version`, the first one that can be right.
    pub(super) fn outdated(&self, version: i64) {
        self.locked().version = version;
        self.note("seals", "", Breach::Stateless);
    }

    /// Forgets what was wrong: all rows were sealed anew.
    pub(super) fn forget(&self, version: i64) {
        *self.locked() = KnownSeals { version, ..KnownSeals::default() };
    }

    /// Keeps of what is wrong with a set that which `still` says.
    pub(super) fn keep(&self, still: impl FnMut(&SealBreach) -> bool) {
        self.locked().breaches.retain(still);
    }

    fn clear(&self, set: &str, row: &str) {
        let mut known = self.locked();
        if !known.breaches.is_empty() {
            known.breaches.retain(|found| found.set != set || found.row != row || found.breach != Breach::Foreign);
        }
    }

    /// The seal of values that are about to be stored in `table`, in the order of its columns. Empty without
    /// a key.
    pub(in crate::store) fn of(&self, table: &SealedTable, values: &[&Bind]) -> Bind {
        debug_assert_eq!(values.len(), table.columns.len(), "{}", table.table);
        let values: Vec<_> = values.iter().map(|bind| stored(bind)).collect();
        Bind::from(self.key().map_or_else(Vec::new, |key| key.seal(table.table, &values)))
    }

    /// The row, and whether its seal is right; one whose seal is not is noted.
    pub(in crate::store) fn looked_at<T>(
        &self,
        table: &SealedTable,
        sealed: WithSeal<T>,
        purpose: Purpose,
    ) -> (T, bool) {
        let Some(key) = self.key() else { return (sealed.value, true) };
        let is_right = sealed.row.is_right(key, table);
        let name = sealed.row.name(table);
        if is_right && purpose.forgets(table.table) {
            self.clear(table.table, &name);
        } else if !is_right {
            self.note(table.table, &name, Breach::Foreign);
        }
        (sealed.value, is_right)
    }

    /// The row, if its seal is right. One whose seal is not is noted, and not returned.
    pub(in crate::store) fn checked<T>(&self, table: &SealedTable, sealed: WithSeal<T>) -> Option<T> {
        let (value, is_right) = self.looked_at(table, sealed, Purpose::Look);
        is_right.then_some(value)
    }

    /// The newest version of the state that was seen: one that is read from now on is not older.
    pub(super) fn version(&self) -> i64 {
        self.locked().version
    }

    /// Decrypts the state of all sets, and notes one that is missing or older than `version`, which was asked for
    /// before the state was read.
    pub(super) fn state(&self, key: &SealKey, sealed: Option<&[u8]>, version: i64) -> Option<SealState> {
        let state = sealed.and_then(|sealed| key.open(sealed).ok()).filter(|state| state.version >= version);
        let mut known = self.locked();
        if let Some(state) = state {
            known.version = known.version.max(state.version);
            known.breaches.retain(|found| found.breach != Breach::Stateless);
            return Some(state);
        }
        drop(known);
        self.note("seals", "", Breach::Stateless);
        None
    }
}

/// The seals of a database, shared by all that use it.
pub type SharedSeals = Arc<Seals>;
