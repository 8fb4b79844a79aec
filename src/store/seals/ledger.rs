//! Seals what a transaction changes. Each function that changes a sealed row says so before the change, so
//! that a row which another program changed is not sealed as if it were the manager's.

use std::collections::BTreeMap;

use super::known::{Look, Purpose, SharedSeals};
use super::read::{SET_STATE, STATE, StateRow};
use super::sets::{SealedSet, SealedTable};
use super::value::{SealedRow, WithSeal};
use crate::domain::seal::{Breach, SealState};
use crate::store::database::{Bind, Result, StoreError, Tx, binds};

/// A row before the change: its set, and its seal if it was there.
type Before = (&'static SealedSet, Option<Vec<u8>>);

/// The rows that a transaction changes, with the seals that they had before.
#[derive(Debug, Default)]
pub(in crate::store) struct Reseals {
    seals: SharedSeals,
    before: BTreeMap<(&'static str, String), Before>,
}

impl Reseals {
    /// Nothing is changed yet.
    pub(in crate::store) fn new(seals: SharedSeals) -> Self {
        Self { seals, before: BTreeMap::new() }
    }

    /// The row `name` of `set` is about to be created, changed or deleted.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if another program has changed it.
    pub(in crate::store) async fn row(&mut self, tx: &mut Tx, set: &'static SealedSet, name: &str) -> Result<()> {
        let place = (set.rows.table, name.to_owned());
        let Some(key) = self.seals.key() else { return Ok(()) };
        if self.before.contains_key(&place) {
            return Ok(());
        }
        let row: Option<SealedRow> = tx.optional(set.one, binds![name]).await?;
        if let Some(row) = &row
            && !row.is_right(key, &set.rows)
        {
            self.seals.note(set.rows.table, name, Breach::Foreign);
            return Err(StoreError::Sealed(Breach::Foreign.describe(set.rows.table, name)));
        }
        self.before.insert(place, (set, row.and_then(|row| row.seal().map(<[u8]>::to_vec))));
        Ok(())
    }

    /// Seals the rows as they are now, and what their sets are then. The last audit entry of the transaction is `seq`.
    ///
    /// If an entry says that a sealed row was changed (`is_recorded`), the state is written in any case: one that ended
    /// before such an entry looks at the next start as if it had been put back, and that start refuses every caller.
    pub(in crate::store) async fn write(&mut self, tx: &mut Tx, seq: i64, is_recorded: bool) -> Result<()> {
        let is_changed = !self.before.is_empty();
        let Some(key) = self.seals.key().filter(|_| is_changed || is_recorded) else { return Ok(()) };
        debug_assert!(is_changed, "an audit entry says that a sealed row was changed, and none was");
        let look = self.seals.look(Purpose::Look);
        let stored: Option<StateRow> = tx.optional(STATE, vec![]).await?;
        let state = self.seals.state(key, stored.as_ref().map(|row| row.state.as_slice()), look);
        let mut state: SealState = state.ok_or_else(|| StoreError::Sealed(Breach::Stateless.describe("", "")))?;
        for ((table, name), (set, before)) in std::mem::take(&mut self.before) {
            let digest = state.sets.entry(table.to_owned()).or_default();
            if let Some(before) = before {
                digest.remove(key, &before);
            }
            let row: Option<SealedRow> = tx.optional(set.one, binds![name.as_str()]).await?;
            if let Some(seal) = row.and_then(|row| row.right_seal(key, &set.rows)) {
                digest.add(key, &seal);
                tx.execute(set.write, binds![name, seal]).await?;
            }
        }
        state.version += 1;
        state.seq = seq;
        let closed = key.close(&state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        tx.execute(SET_STATE, binds![closed]).await?;
        Ok(())
    }

    /// The seal of values that are about to be stored in `table`.
    pub(in crate::store) fn of(&self, table: &SealedTable, values: &[&Bind]) -> Bind {
        self.seals.of(table, values)
    }

    /// The names of these rows of `table`, with the seals that they should have.
    pub(in crate::store) fn anew(&self, table: &SealedTable, rows: &[SealedRow]) -> Vec<(String, Vec<u8>)> {
        let Some(key) = self.seals.key() else { return Vec::new() };
        rows.iter().filter_map(|row| Some((row.name(table), row.right_seal(key, table)?))).collect()
    }

    /// The row, if its seal is right, or if this transaction has changed it, since its seal follows.
    pub(in crate::store) fn checked<T>(&self, table: &SealedTable, row: WithSeal<T>, look: Look) -> Option<T> {
        let place = (table.table, row.row.name(table));
        if self.before.contains_key(&place) { Some(row.value) } else { self.seals.checked(table, row, look) }
    }

    /// The row, and whether its seal is right.
    pub(in crate::store) fn with_rightness<T>(&self, table: &SealedTable, row: WithSeal<T>) -> (T, bool) {
        let is_right = self.seals.key().is_some_and(|key| row.row.is_right(key, table));
        (row.value, is_right)
    }

    /// The seals of the database.
    pub(in crate::store) const fn seals(&self) -> &SharedSeals {
        &self.seals
    }
}
