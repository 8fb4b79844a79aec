//! Reads sealed rows: those whose seals are right, and whether their set is complete.

use std::collections::BTreeSet;

use super::known::{Look, Purpose, Seals};
use super::sets::{SealedSet, SealedTable};
use super::value::{SealedRow, WithSeal};
use crate::domain::seal::{Breach, SealKey, SealState, SetDigest};
use crate::store::database::{Bind, Db, Result, Row, statements};

statements! {
    pub(super) STATE = "SELECT state FROM seals WHERE id = 1";
    pub(super) SET_STATE = "INSERT INTO seals (id, state) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET state = excluded.state";
}

/// The state of all sets as it is stored.
#[derive(sqlx::FromRow)]
pub(super) struct StateRow {
    pub(super) state: Vec<u8>,
}

impl Db {
    /// The rows of `sql` whose seals are right.
    pub(in crate::store) async fn sealed<T: Row>(
        &self,
        table: &SealedTable,
        sql: &'static str,
        binds: Vec<Bind>,
    ) -> Result<Vec<T>>
    where
        WithSeal<T>: Row,
    {
        let look = self.seals().look(Purpose::Look);
        let rows: Vec<WithSeal<T>> = self.all(sql, binds).await?;
        Ok(rows.into_iter().filter_map(|row| self.seals().checked(table, row, look)).collect())
    }

    /// All rows of a set, which `sql` returns, as far as their seals are right; and notes whether one is missing. What was
    /// wrong before and is right now is forgotten only if the caller puts the rows into force.
    pub(in crate::store) async fn sealed_set<T: Row>(
        &self,
        set: &SealedSet,
        sql: &'static str,
        purpose: Purpose,
    ) -> Result<Vec<T>>
    where
        WithSeal<T>: Row,
    {
        let Some(key) = self.seals().key() else { return self.all(sql, vec![]).await };
        let look = self.seals().look(purpose);
        let mut snapshot = self.snapshot().await?;
        let state: Option<StateRow> = snapshot.optional(STATE, vec![]).await?;
        let rows: Vec<WithSeal<T>> = snapshot.all(sql, vec![]).await?;
        drop(snapshot);
        let state = self.seals().state(key, state.as_ref().map(|row| row.state.as_slice()), look);
        let (mut whole, mut right) = (Tally::default(), Vec::with_capacity(rows.len()));
        for row in rows {
            whole.add(key, &set.rows, &row.row);
            let (value, is_right) = self.seals().looked_at(&set.rows, row, look);
            right.extend(is_right.then_some(value));
        }
        whole.note(self.seals(), &set.rows, state.as_ref(), look);
        Ok(right)
    }
}

/// The digests of the rows of a set that was read.
#[derive(Debug, Default)]
struct Tally {
    /// Of those whose seal is right.
    right: SetDigest,
    /// Of all that have one. Equal to what should be if rows were changed where they stand.
    all: SetDigest,
    names: BTreeSet<String>,
}

impl Tally {
    fn add(&mut self, key: &SealKey, table: &SealedTable, row: &SealedRow) {
        self.names.insert(row.name(table));
        let Some(seal) = row.seal() else { return };
        self.all.add(key, seal);
        if row.is_right(key, table) {
            self.right.add(key, seal);
        }
    }

    /// Notes whether the set is complete, and forgets what was wrong with rows that are gone.
    fn note(&self, seals: &Seals, table: &SealedTable, state: Option<&SealState>, look: Look) {
        let Some(state) = state else { return };
        let should = state.sets.get(table.table).copied().unwrap_or_default();
        let is_complete = self.right == should || self.all == should;
        seals.keep(look, |found| {
            let is_here = found.set == table.table && look.forgets(table.table);
            !is_here || if found.breach == Breach::Foreign { self.names.contains(&found.row) } else { !is_complete }
        });
        if !is_complete {
            seals.note(table.table, "", Breach::Incomplete);
        }
    }
}
