//! The audit log's rows and the head of its chain. Every transaction that changes the ledger locks
//! the head first. On PostgreSQL this serialises the writers of all nodes, so a decision inside the
//! transaction holds for all of them.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use super::audit_head::CachedAuditHead;
use super::story::{About, Ended, Story};
use crate::domain::audit::{AuditEntry, GENESIS, hash};
use crate::domain::checkpoint::{ChainHash, LogBeginning};
use crate::domain::outcome::ResponseOutcome;
use crate::store::configured::caches::Cache;
use crate::store::database::{Bind, Db, Result, Row, StoreError, Tx, binds, statements};
use crate::store::seals::known::SharedSeals;
use crate::store::seals::ledger::Reseals;
use crate::store::seals::sets::{SealedSet, SealedTable};
use crate::store::seals::value::{SealedRow, WithSeal};
use crate::views::audit::{AuditProof, AuditRow};

statements! {
    FIRST_HEAD = "INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, $1) ON CONFLICT (id) DO NOTHING";
    TAKE_HEAD = "UPDATE audit_head SET seq = seq WHERE id = 1 AND ($1 IS NULL OR holder = $1) RETURNING seq, hash";
    MOVE_HEAD = "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1";
    HEAD = "SELECT seq, hash FROM audit_head WHERE id = 1";
    PAGE = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash FROM audit
        WHERE seq < $1 AND ($2 IS NULL OR noun = $2) AND ($3 IS NULL OR noun_id = $3)
        ORDER BY seq DESC LIMIT $4";
    FORWARD = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash FROM audit
        WHERE seq > $1 ORDER BY seq LIMIT $2";
    INSERT = "INSERT INTO audit (seq, at, actor, verb, noun, noun_id, detail, hash) VALUES {8}";
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    seq: i64,
    hash: Vec<u8>,
}

/// A transaction that may change the ledger. It holds the head of the audit chain, and every change
/// must record an entry. Entries are written at commit.
#[derive(Debug)]
pub struct LedgerTx {
    /// The underlying transaction.
    pub(in crate::store) tx: Tx,
    seq: i64,
    hash: [u8; 32],
    entries: Vec<AuditEntry>,
    story: Story,
    stale: BTreeSet<Cache>,
    /// The rows that are sealed anew at the commit.
    reseals: Reseals,
    /// What became of the responses that it ended, counted once it is durable.
    ended: Vec<ResponseOutcome>,
    counter: Ended,
    /// Where the head is kept for the next transaction, once this one is durable, and by which number this one took it.
    kept: Option<(CachedAuditHead, u64)>,
}

impl LedgerTx {
    /// Begins a transaction and locks the head.
    pub async fn begin(db: &Db) -> Result<Self> {
        let mut tx = db.begin().await?;
        let (mut kept, mut known, mut holder) = (None, None, None);
        match db {
            Db::Sqlite { head, .. } => {
                let (taker, end) = head.lock().unwrap_or_else(PoisonError::into_inner).take();
                (kept, known) = (Some((Arc::clone(head), taker)), end);
            }
            Db::Postgres { writes, .. } => holder = writes.get().cloned(),
        }
        let (entries, story, stale) = (Vec::new(), Story::new(db.names().clone()), BTreeSet::new());
        let (ended, counter) = (Vec::new(), db.ended().clone());
        let reseals = Reseals::new(Arc::clone(db.seals()));
        if let Some((seq, hash)) = known {
            return Ok(Self { tx, seq, hash, entries, story, stale, reseals, ended, counter, kept });
        }
        let taken = tx.optional::<HeadRow>(TAKE_HEAD, binds![holder.as_deref()]).await;
        let head = match taken.inspect_err(|error| db.reconnect_after(error))? {
            Some(head) => head,
            // The head was taken by a run of a manager when it took the lease.
            None if holder.is_some() => return Err(StoreError::Superseded),
            None => {
                tx.execute(FIRST_HEAD, binds![GENESIS.to_vec()]).await?;
                tx.optional(TAKE_HEAD, binds![None::<&str>]).await?.ok_or(StoreError::NotFound)?
            }
        };
        let hash = head.hash.try_into().map_err(|_| StoreError::Corrupt("the audit head's hash".into()))?;
        Ok(Self { tx, seq: head.seq, hash, entries, story, stale, reseals, ended, counter, kept })
    }

    /// Adds an entry.
    pub fn record(&mut self, entry: AuditEntry) {
        self.record_about(entry, About::default());
    }

    /// Records that a cache of the engine is stale once this is committed.
    pub(in crate::store) fn makes_stale(&mut self, cache: Cache) {
        self.stale.insert(cache);
    }

    /// The row `name` of `set` is about to be created, changed or deleted: its seal follows at the commit.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if another program has changed it.
    pub(in crate::store) async fn reseals(&mut self, set: &'static SealedSet, name: &str) -> Result<()> {
        self.reseals.row(&mut self.tx, set, name).await
    }

    /// The seal of values that are about to be stored in `table`, in the order of its columns.
    pub(in crate::store) fn seal_of(&self, table: &SealedTable, values: &[&Bind]) -> Bind {
        self.reseals.of(table, values)
    }

    /// Seals the rows of `read` as they are; `write` takes the id of a row and its seal. They were checked before this
    /// transaction changed them.
    pub(in crate::store) async fn seal_again(
        &mut self,
        table: &SealedTable,
        read: &'static str,
        write: &'static str,
        name: &str,
    ) -> Result<()> {
        for (id, seal) in self.reseals.anew(table, &self.tx.all::<SealedRow>(read, binds![name]).await?) {
            self.tx.execute(write, binds![id, seal]).await?;
        }
        Ok(())
    }

    /// The last entry that this transaction has so far.
    pub(in crate::store) fn last_seq(&self) -> i64 {
        self.seq + i64::try_from(self.entries.len()).unwrap_or(0)
    }

    /// The seals of the database.
    pub(in crate::store) const fn seals(&self) -> &SharedSeals {
        self.reseals.seals()
    }

    /// The rows of `sql` whose seals are right, as this transaction sees them.
    pub(in crate::store) async fn sealed<T: Row>(
        &mut self,
        table: &SealedTable,
        sql: &'static str,
        binds: Vec<Bind>,
    ) -> Result<Vec<T>>
    where
        WithSeal<T>: Row,
    {
        let rows: Vec<WithSeal<T>> = self.tx.all(sql, binds).await?;
        Ok(rows.into_iter().filter_map(|row| self.reseals.checked(table, row)).collect())
    }

    /// The caches that are stale once this is committed.
    pub fn stale(&self) -> &BTreeSet<Cache> {
        &self.stale
    }

    /// Adds an entry, and says in the log what it is about.
    pub(super) fn record_about(&mut self, mut entry: AuditEntry, about: About) {
        if let Some(address) = entry.actor.address() {
            let detail = std::mem::take(&mut entry.detail);
            entry.detail =
                if detail.is_empty() { format!("from {address}") } else { format!("{detail} (from {address})") };
        }
        self.story.add(&entry, about);
        self.entries.push(entry);
    }

    /// Adds a log line for a consequence of another entry.
    pub(super) fn mention(&mut self, entry: &AuditEntry, about: About) {
        self.story.add(entry, about);
    }

    /// A response ends, and this became of it.
    pub(super) fn count_ended(&mut self, outcome: ResponseOutcome) {
        self.ended.push(outcome);
    }

    /// What an agent is called; its id if it is not known.
    pub(in crate::store) fn name_of(&self, agent: uuid::Uuid) -> String {
        self.story.name_of(agent)
    }

    /// Records the pipeline's id of an alert that gets a response.
    pub(in crate::store) fn knows(&mut self, alert: uuid::Uuid, own_id: &str) {
        self.story.knows(alert, own_id);
    }

    /// Writes the entries, commits durably, then writes the log lines.
    pub async fn commit(self) -> Result<()> {
        self.commit_untold().await?.tell();
        Ok(())
    }

    /// Like [`LedgerTx::commit`], but does not write the log yet: the caller answers its waiting
    /// requests first.
    pub(in crate::store) async fn commit_untold(mut self) -> Result<Story> {
        let last = self.last_seq();
        self.reseals.write(&mut self.tx, last).await?;
        if !self.entries.is_empty() {
            let mut rows: Vec<Vec<Bind>> = Vec::with_capacity(self.entries.len());
            for entry in std::mem::take(&mut self.entries) {
                self.seq += 1;
                self.hash = entry.hash(&self.hash, self.seq);
                let AuditEntry { at, actor, event, noun_id, detail } = entry;
                let (verb, noun) = (event.verb(), event.noun());
                rows.push(binds![self.seq, at, &actor, verb, noun, noun_id, detail, self.hash.to_vec()]);
            }
            self.tx.execute_rows(INSERT, rows, vec![]).await?;
            self.tx.execute(MOVE_HEAD, binds![self.seq, self.hash.to_vec()]).await?;
        }
        self.tx.commit().await?;
        for outcome in self.ended {
            self.counter.add(outcome, 1);
        }
        if let Some((kept, taker)) = &self.kept {
            kept.lock().unwrap_or_else(PoisonError::into_inner).put_back(*taker, (self.seq, self.hash));
        }
        Ok(self.story)
    }
}

/// Which entries to list.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only this kind of thing.
    pub noun: Option<String>,
    /// Only this one.
    pub noun_id: Option<String>,
}

/// A page of entries, newest first, older than `before`.
pub async fn list(db: &Db, filter: AuditFilter, before: Option<i64>, limit: i64) -> Result<Vec<AuditRow>> {
    db.all(PAGE, binds![before.unwrap_or(i64::MAX), filter.noun, filter.noun_id, limit]).await
}

/// Position and hash of the last entry, as the stored head says; `None` before the first.
pub async fn head(db: &Db) -> Result<Option<(i64, [u8; 32])>> {
    let Some(head) = db.optional::<HeadRow>(HEAD, vec![]).await?.filter(|head| head.seq > 0) else { return Ok(None) };
    let hash = head.hash.try_into().map_err(|_| StoreError::Corrupt("the audit head's hash".into()))?;
    Ok(Some((head.seq, hash)))
}

/// The entries after `seq`, oldest first.
pub async fn after(db: &Db, seq: i64, limit: i64) -> Result<Vec<AuditRow>> {
    db.all(FORWARD, binds![seq, limit]).await
}

/// Recomputes the chain to its head, in bounded memory: from the first entry, or from `begins`, before
/// which entries were removed. Passes on the position and the hash of every entry that is in the chain,
/// and of the last one that was removed.
pub(super) async fn walk(
    db: &Db,
    begins: Option<&LogBeginning>,
    mut each: impl FnMut(i64, [u8; 32]),
) -> Result<AuditProof> {
    const PAGE_ROWS: i64 = 1000;
    let head: Option<HeadRow> = db.optional(HEAD, vec![]).await?;
    let (mut previous, mut seq) = (GENESIS, 0);
    if let Some(LogBeginning { seq: last, hash: ChainHash(hash), .. }) = begins {
        (previous, seq) = (*hash, *last);
        each(seq, previous);
    }
    let first = seq;
    let broken = |seq| Ok(AuditProof::of(seq - 1 - first, Some(seq)));
    loop {
        let rows: Vec<AuditRow> = db.all(FORWARD, binds![seq, PAGE_ROWS]).await?;
        for row in &rows {
            seq += 1;
            previous = hash(&previous, seq, &row.entry());
            if row.seq != seq || row.hash != previous {
                return broken(seq);
            }
            each(seq, previous);
        }
        if rows.is_empty() {
            break;
        }
    }
    // The head that was read first may lag behind entries written meanwhile, but never be ahead of
    // them.
    match head {
        Some(head) if head.seq > seq => broken(seq + 1),
        _ => Ok(AuditProof::of(seq - first, None)),
    }
}
