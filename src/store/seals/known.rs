//! The key of the seals, and what was found wrong with sealed rows.

use std::collections::{BTreeMap, BTreeSet};
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
    fn forgets(self, set: &str) -> bool {
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
    /// What is wrong, each with the number of the find that said so last.
    breaches: BTreeMap<SealBreach, u64>,
    /// Finds so far.
    finds: u64,
    /// Those that the audit log has.
    recorded: BTreeSet<SealBreach>,
}

/// A look at rows, made before they are read. It forgets only what was found before: what another look finds in between may be
/// newer than what this one reads.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Look {
    purpose: Purpose,
    /// The newest version of the state that was seen: one that is read from now on is not older.
    version: i64,
    finds: u64,
}

impl Look {
    /// Whether what was wrong with a set before is forgotten when it is right again.
    pub(super) fn forgets(self, set: &str) -> bool {
        self.purpose.forgets(set)
    }
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
        self.locked().breaches.keys().cloned().collect()
    }

    /// Why a row is not used, if it is not.
    pub fn refuses(&self, set: &str, row: &str) -> Option<String> {
        let known = self.locked();
        let mut here = known.breaches.keys().filter(|found| found.set == set && found.row == row);
        here.next().map(SealBreach::describe)
    }

    /// What is wrong and not in the audit log yet.
    pub fn unrecorded(&self) -> Vec<SealBreach> {
        let known = self.locked();
        known.breaches.keys().filter(|found| !known.recorded.contains(found)).cloned().collect()
    }

    /// The audit log has these. Returns whether it had any before that are over.
    pub fn record(&self, now: Vec<SealBreach>) -> bool {
        let mut known = self.locked();
        known.recorded.extend(now);
        let before = known.recorded.len();
        let KnownSeals { breaches, recorded, .. } = &mut *known;
        recorded.retain(|found| breaches.contains_key(found));
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
        self.locked().breaches.keys().any(is_unknown)
    }

    /// Why nothing may be removed by its age: a legal hold may be missing.
    pub fn keeps_all(&self) -> Option<SealBreach> {
        let is_unknown = |found: &&SealBreach| found.set == KEEPING || found.breach == Breach::Stateless;
        self.locked().breaches.keys().find(is_unknown).cloned()
    }

    /// Why only pipelines may call: a key or a person may be back that was revoked.
    pub fn refuses_callers(&self) -> Option<SealBreach> {
        let is_unknown = |found: &&SealBreach| match found.breach {
            Breach::Foreign => false,
            Breach::Incomplete => CALLERS.contains(&found.set),
            Breach::Stateless => true,
        };
        self.locked().breaches.keys().find(is_unknown).cloned()
    }

    pub(super) fn note(&self, set: &'static str, row: &str, breach: Breach) {
        let found = SealBreach { set, row: row.to_owned(), breach };
        let text = found.describe();
        let mut known = self.locked();
        // The rows are not used in any case.
        let has_room = known.breaches.len() < MAX_BREACHES || breach != Breach::Foreign;
        known.finds += 1;
        let find = known.finds;
        let is_new = has_room && known.breaches.insert(found, find).is_none();
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

    /// A look at rows begins.
    pub(in crate::store) fn look(&self, purpose: Purpose) -> Look {
        let known = self.locked();
        Look { purpose, version: known.version, finds: known.finds }
    }

    /// Keeps of what was wrong before `look` that which `still` says.
    pub(super) fn keep(&self, look: Look, mut still: impl FnMut(&SealBreach) -> bool) {
        self.locked().breaches.retain(|found, find| *find > look.finds || still(found));
    }

    fn clear(&self, set: &str, row: &str, look: Look) {
        self.keep(look, |found| found.set != set || found.row != row || found.breach != Breach::Foreign);
    }

    /// The seal of values that are about to be stored in `table`, in the order of its columns. Empty without
    /// a key.
    pub(in crate::store) fn of(&self, table: &SealedTable, values: &[&Bind]) -> Bind {
        debug_assert_eq!(values.len(), table.columns.len(), "{}", table.table);
        let values: Vec<_> = values.iter().map(|bind| stored(bind)).collect();
        Bind::from(self.key().map_or_else(Vec::new, |key| key.seal(table.table, &values)))
    }

    /// The row, which was read since `look` was made, and whether its seal is right; one whose seal is not is noted.
    pub(in crate::store) fn looked_at<T>(&self, table: &SealedTable, sealed: WithSeal<T>, look: Look) -> (T, bool) {
        let Some(key) = self.key() else { return (sealed.value, true) };
        let is_right = sealed.row.is_right(key, table);
        let name = sealed.row.name(table);
        if is_right && look.forgets(table.table) {
            self.clear(table.table, &name, look);
        } else if !is_right {
            self.note(table.table, &name, Breach::Foreign);
        }
        (sealed.value, is_right)
    }

    /// The row, if its seal is right. One whose seal is not is noted, and not returned.
    pub(in crate::store) fn checked<T>(&self, table: &SealedTable, sealed: WithSeal<T>, look: Look) -> Option<T> {
        let (value, is_right) = self.looked_at(table, sealed, look);
        is_right.then_some(value)
    }

    /// Decrypts the state of all sets, which was read since `look` was made, and notes one that is missing or older than the newest that
    /// was seen before.
    pub(super) fn state(&self, key: &SealKey, sealed: Option<&[u8]>, look: Look) -> Option<SealState> {
        let state = sealed.and_then(|sealed| key.open(sealed).ok()).filter(|state| state.version >= look.version);
        let mut known = self.locked();
        if let Some(state) = state {
            known.version = known.version.max(state.version);
            known.breaches.retain(|found, find| *find > look.finds || found.breach != Breach::Stateless);
            return Some(state);
        }
        drop(known);
        self.note("seals", "", Breach::Stateless);
        None
    }
}

/// The seals of a database, shared by all that use it.
pub type SharedSeals = Arc<Seals>;

#[cfg(test)]
mod tests {
    use super::{Look, Purpose, Seals};
    use crate::domain::seal::Breach;

    fn entry_is_right(seals: &Seals, look: Look) {
        seals.keep(look, |_| false);
    }

    #[test]
    fn a_look_forgets_nothing_that_was_found_after_it_began() {
        let seals = Seals::default();
        let before = seals.look(Purpose::Force);
        seals.note("protected_entries", "", Breach::Incomplete);
        entry_is_right(&seals, before);
        assert!(seals.holds_back(), "rows from before the entry was removed say nothing about now");
        let between = seals.look(Purpose::Force);
        seals.note("protected_entries", "", Breach::Incomplete);
        entry_is_right(&seals, between);
        assert!(seals.holds_back(), "found again since");
        entry_is_right(&seals, seals.look(Purpose::Force));
        assert!(!seals.holds_back());
    }
}
