//! The audit log's rows and the head of its chain. Every transaction that changes the ledger locks
//! the head before it reads what it decides by. On PostgreSQL this serialises the writers of all
//! nodes, so a decision inside the transaction holds for all of them. Alerts that cause nothing are
//! stored without it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use tokio::sync::Notify;

use super::audit_head::{CachedAuditHead, LedgerHead};
use super::contained::{Containment, TimeToContain};
use super::events::{LooseEvent, NewEvents};
use super::removed_texts::RemovedTexts;
use super::story::{About, Ended, Story};
use super::trace_queue::{TraceQueue, Traced};
use crate::domain::audit::{AuditEntry, GENESIS, hash};
use crate::domain::checkpoint::{ChainHash, LogBeginning};
use crate::domain::commitments::{Commitments, RANDOM_BYTES};
use crate::domain::forgotten::ForgettingKey;
use crate::domain::outcome::ResponseOutcome;
use crate::store::configured::caches::Cache;
use crate::store::configured::changes;
use crate::store::database::reconnects::Reconnects;
use crate::store::database::{Bind, Db, Result, Row, StoreError, Tx, binds, nodes, statements};
use crate::store::seals::known::{Purpose, SharedSeals};
use crate::store::seals::ledger::Reseals;
use crate::store::seals::sets::{SealedSet, SealedTable};
use crate::store::seals::value::{SealedRow, WithSeal};
use crate::views::audit::{AuditProof, AuditRow};
use riposte_protocol::time::Timestamp;

statements! {
    FIRST_HEAD = "INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, $1) ON CONFLICT (id) DO NOTHING";
    TAKE_HEAD = "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, hash, epoch, deciding_epoch, events";
    MOVE_HEAD = "UPDATE audit_head SET seq = $1, hash = $2, epoch = $3, deciding_epoch = $4, events = $5
        WHERE id = 1";
    DECIDING_EPOCH = "SELECT deciding_epoch FROM audit_head WHERE id = 1";
    HEAD = "SELECT seq, hash, epoch, deciding_epoch, events FROM audit_head WHERE id = 1";
    PAGE = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, commitments FROM audit
        WHERE seq < $1 AND ($2 IS NULL OR noun = $2) AND ($3 IS NULL OR noun_id = $3)
        ORDER BY seq DESC LIMIT $4";
    FORWARD = "SELECT seq, at, actor, verb, noun, noun_id, detail, hash, commitments FROM audit
        WHERE seq > $1 ORDER BY seq LIMIT $2";
    INSERT = "INSERT INTO audit (seq, at, actor, verb, noun, noun_id, detail, hash, commitments) VALUES {9}";
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    seq: i64,
    hash: Vec<u8>,
    epoch: i64,
    deciding_epoch: i64,
    events: i64,
}

impl HeadRow {
    fn head(self) -> Result<LedgerHead> {
        let Self { seq, hash, epoch, deciding_epoch, events } = self;
        let hash = hash.try_into().map_err(|_| StoreError::Corrupt("the audit head's hash".into()))?;
        Ok(LedgerHead { seq, hash, epoch, deciding_epoch, events })
    }
}

#[derive(sqlx::FromRow)]
struct DecidingEpoch {
    deciding_epoch: i64,
}

/// A transaction that may change the ledger. It holds the head of the audit chain, and every change
/// must record an entry. Entries are written at commit.
#[derive(Debug)]
pub struct LedgerTx {
    /// The underlying transaction.
    pub(in crate::store) tx: Tx,
    /// The head, once it is locked.
    head: Option<LedgerHead>,
    /// The node that writes, if its lease is checked at the commit.
    node: Option<String>,
    entries: Vec<AuditEntry>,
    events: NewEvents,
    /// Told of the commit, if it has events.
    feed: Arc<Notify>,
    story: Story,
    stale: BTreeSet<Cache>,
    /// The rows that are sealed anew at the commit.
    reseals: Reseals,
    /// What became of the responses that it ended, counted once it is durable.
    ended: Vec<ResponseOutcome>,
    counter: Ended,
    /// The effects that it brought into force, observed once it is durable.
    contained: Vec<Containment>,
    time_to_contain: TimeToContain,
    /// What belongs into traces, put into the queue once it is durable.
    traced: Vec<Traced>,
    traces: TraceQueue,
    /// Where the head is kept for the next transaction, once this one is durable, and by which number this one took it.
    kept: Option<(CachedAuditHead, u64)>,
    /// Told when the server refuses writes.
    reconnects: Reconnects,
}

/// What a commit has done beside the changes.
#[derive(Debug)]
pub(in crate::store) struct CommittedTx {
    /// The log lines, which are not written yet.
    pub(in crate::store) story: Story,
    /// The number of the change of configuration, if it was one.
    pub(in crate::store) epoch: Option<i64>,
}

impl LedgerTx {
    /// Begins a transaction and locks the head.
    pub async fn begin(db: &Db) -> Result<Self> {
        let mut ledger = Self::begin_without_head(db).await?;
        ledger.lock_head().await?;
        Ok(ledger)
    }

    /// Begins a transaction that may store alerts, and nothing else until it has locked the head.
    pub(in crate::store) async fn begin_without_head(db: &Db) -> Result<Self> {
        let tx = db.begin().await?;
        let (mut kept, mut head, mut node) = (None, None, None);
        match db {
            Db::Sqlite { head: cached, .. } => {
                let (taker, end) = cached.lock().unwrap_or_else(PoisonError::into_inner).take();
                (kept, head) = (Some((Arc::clone(cached), taker)), end);
            }
            Db::Postgres { writes, .. } => node = writes.get().cloned(),
        }
        let (entries, story, stale) = (Vec::new(), Story::new(db.names().clone()), BTreeSet::new());
        let (ended, counter) = (Vec::new(), db.ended().clone());
        let (contained, time_to_contain) = (Vec::new(), db.time_to_contain().clone());
        let (traced, traces) = (Vec::new(), db.traces().clone());
        let reseals = Reseals::new(Arc::clone(db.seals()));
        let (events, feed) = (NewEvents::default(), Arc::clone(db.feed()));
        let reconnects = db.reconnects();
        Ok(Self {
            tx,
            head,
            node,
            entries,
            events,
            feed,
            story,
            stale,
            reseals,
            ended,
            counter,
            contained,
            time_to_contain,
            traced,
            traces,
            kept,
            reconnects,
        })
    }

    /// Locks the head, unless it is locked already. What is decided by rows of the ledger is read after this.
    pub(in crate::store) async fn lock_head(&mut self) -> Result<()> {
        if self.head.is_some() {
            return Ok(());
        }
        let row = self.tx.optional::<HeadRow>(TAKE_HEAD, vec![]).await;
        let mut row = row.inspect_err(|error| self.reconnects.after(error))?;
        if row.is_none() {
            self.tx.execute(FIRST_HEAD, binds![GENESIS.to_vec()]).await?;
            row = self.tx.optional(TAKE_HEAD, vec![]).await?;
        }
        self.head = Some(row.ok_or(StoreError::NotFound)?.head()?);
        Ok(())
    }

    /// The last change of configuration by which alerts are decided. Without the head, another one may be committed at the
    /// same time.
    pub(in crate::store) async fn deciding_epoch(&mut self) -> Result<i64> {
        if let Some(head) = &self.head {
            return Ok(head.deciding_epoch);
        }
        Ok(self.tx.optional::<DecidingEpoch>(DECIDING_EPOCH, vec![]).await?.map_or(0, |row| row.deciding_epoch))
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
        self.head.map_or(0, |head| head.seq) + i64::try_from(self.entries.len()).unwrap_or(0)
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
        let look = self.seals().look(Purpose::Look);
        let rows: Vec<WithSeal<T>> = self.tx.all(sql, binds).await?;
        Ok(rows.into_iter().filter_map(|row| self.reseals.checked(table, row, look)).collect())
    }

    /// The rows of `sql`, and of each whether its seal is right, without a word about those that are not.
    pub(super) async fn with_rightness<T: Row>(
        &mut self,
        table: &SealedTable,
        sql: &'static str,
        binds: Vec<Bind>,
    ) -> Result<Vec<(T, bool)>>
    where
        WithSeal<T>: Row,
    {
        let rows: Vec<WithSeal<T>> = self.tx.all(sql, binds).await?;
        Ok(rows.into_iter().map(|row| self.reseals.with_rightness(table, row)).collect())
    }

    /// Whether other managers may write this ledger.
    pub(super) const fn is_shared(&self) -> bool {
        self.kept.is_none()
    }

    /// The number of the next entry, if other managers look by it for what is new.
    pub(super) fn entry_for_others(&self) -> Option<i64> {
        self.is_shared().then(|| self.last_seq() + 1)
    }

    /// The caches that are stale once this is committed.
    pub fn stale(&self) -> &BTreeSet<Cache> {
        &self.stale
    }

    /// Adds an entry, and says in the log what it is about.
    pub(super) fn record_about(&mut self, mut entry: AuditEntry, about: About) {
        self.events.add_entry(&entry, &about);
        self.traced.extend(self.traces.change(&entry));
        if let Some(address) = entry.actor.address() {
            let detail = std::mem::take(&mut entry.detail);
            entry.detail =
                if detail.is_empty() { format!("from {address}") } else { format!("{detail} (from {address})") };
        }
        self.story.add(&entry, about);
        self.entries.push(entry);
    }

    /// Adds a log line and an event for a consequence of another entry.
    pub(super) fn mention(&mut self, entry: &AuditEntry, about: About) {
        self.events.add_entry(entry, &about);
        self.story.add(entry, about);
    }

    /// Adds an event that is no entry of the audit log.
    pub(in crate::store) fn tell(&mut self, event: &LooseEvent, about: &About, now: Timestamp) {
        self.events.add_loose(event, about, now);
    }

    /// A response ends, and this became of it.
    pub(super) fn count_ended(&mut self, outcome: ResponseOutcome) {
        self.ended.push(outcome);
    }

    /// An effect came into force.
    pub(super) fn count_contained(&mut self, contained: Containment) {
        self.contained.push(contained);
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
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] if the node's lease has ended: other nodes do not wait for it any more.
    pub async fn commit(self) -> Result<()> {
        self.commit_change().await.map(drop)
    }

    /// As [`LedgerTx::commit`]; returns the number of the change of configuration, if it was one.
    ///
    /// # Errors
    /// As [`LedgerTx::commit`].
    pub async fn commit_change(self) -> Result<Option<i64>> {
        let CommittedTx { story, epoch } = self.commit_untold().await?;
        story.tell();
        Ok(epoch)
    }

    /// Like [`LedgerTx::commit`], but does not write the log yet: the caller answers its waiting
    /// requests first.
    pub(in crate::store) async fn commit_untold(mut self) -> Result<CommittedTx> {
        let last = self.last_seq();
        let is_recorded = self.entries.iter().any(|entry| entry.event.changes_sealed_row());
        self.reseals.write(&mut self.tx, last, is_recorded).await?;
        let has_changed = !self.stale.is_empty();
        let has_events = !self.events.is_empty();
        if has_changed || has_events || !self.entries.is_empty() {
            // Already locked by all that read before they decided.
            self.lock_head().await?;
            self.move_head().await?;
        }
        self.tx.commit().await?;
        if has_events {
            self.feed.notify_one();
        }
        for outcome in self.ended {
            self.counter.add(outcome, 1);
        }
        for contained in self.contained {
            self.time_to_contain.observe(contained);
        }
        for traced in self.traced {
            self.traces.put(traced);
        }
        if let (Some((kept, taker)), Some(head)) = (&self.kept, self.head) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).put_back(*taker, head);
        }
        let epoch = self.head.map(|head| head.epoch).filter(|_| has_changed);
        Ok(CommittedTx { story: self.story, epoch })
    }

    /// Writes the entries and the change of configuration, and moves the head behind them.
    async fn move_head(&mut self) -> Result<()> {
        let mut head = self.head.ok_or(StoreError::NotFound)?;
        let at = self.entries.iter().map(|entry| entry.at).max().unwrap_or(Timestamp::from_millis(0));
        let mut rows: Vec<Vec<Bind>> = Vec::with_capacity(self.entries.len());
        for entry in std::mem::take(&mut self.entries) {
            head.seq += 1;
            let commitments = if entry.names_person() { Some(new_commitments()?) } else { None };
            head.hash = entry.hash(&head.hash, head.seq, commitments);
            let AuditEntry { at, actor, event, noun_id, detail } = entry;
            let (verb, noun) = (event.verb(), event.noun());
            rows.push(binds![
                head.seq,
                at,
                &actor,
                verb,
                noun,
                noun_id,
                detail,
                head.hash.to_vec(),
                commitments.map(|stored| stored.to_bytes())
            ]);
        }
        self.tx.execute_rows(INSERT, rows, vec![]).await?;
        if !self.stale.is_empty() {
            head.epoch += 1;
            if self.stale.iter().any(|cache| cache.decides()) {
                head.deciding_epoch = head.epoch;
            }
            // Where this process is the only one, nothing else reads them.
            if self.is_shared() {
                changes::record(&mut self.tx, head.epoch, self.stale.iter().copied(), at).await?;
            }
        }
        head.events = std::mem::take(&mut self.events).write(&mut self.tx, head.events).await?;
        let mut place = binds![head.seq, head.hash.to_vec(), head.epoch, head.deciding_epoch, head.events];
        let statement = match self.node.take() {
            Some(node) => {
                place.extend(binds![node]);
                nodes::MOVE_HEAD
            }
            None => MOVE_HEAD,
        };
        if self.tx.execute(statement, place).await? == 0 {
            return Err(StoreError::LeaseLost);
        }
        self.head = Some(head);
        Ok(())
    }
}

fn new_commitments() -> Result<Commitments> {
    let mut random = [0; RANDOM_BYTES];
    let filled = getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()));
    filled.map_err(|error| StoreError::Unavailable(sqlx::Error::Io(error)))?;
    Ok(Commitments::new(random))
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
    let head = head.head()?;
    Ok(Some((head.seq, head.hash)))
}

/// The entries after `seq`, oldest first.
pub async fn after(db: &Db, seq: i64, limit: i64) -> Result<Vec<AuditRow>> {
    db.all(FORWARD, binds![seq, limit]).await
}

/// Recomputes the chain to its head, in bounded memory: from the first entry, or from `begins`, before
/// which entries were removed. Passes on the position and the hash of every entry that is in the chain,
/// and of the last one that was removed. With a key, lists of removed texts count only if the manager made them.
pub(super) async fn walk(
    db: &Db,
    begins: Option<&LogBeginning>,
    key: Option<&ForgettingKey>,
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
    let mut removals = RemovedTexts::default();
    loop {
        let rows: Vec<AuditRow> = db.all(FORWARD, binds![seq, PAGE_ROWS]).await?;
        for row in &rows {
            seq += 1;
            previous = hash(&previous, seq, &row.entry());
            if row.seq != seq || row.hash != previous {
                return broken(seq);
            }
            removals.look(row, key);
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
        _ => match removals.unexplained() {
            Some(seq) => broken(seq),
            None => Ok(AuditProof { forgotten: removals.count(), ..AuditProof::of(seq - first, None) }),
        },
    }
}
