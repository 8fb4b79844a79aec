//! The managers that share a PostgreSQL database, and the lease of each. A manager renews its lease
//! each second, by the database's clock. The commit of every change checks it under the lock of the
//! audit head. A manager without a lease delivers nothing and answers no request, so the others need
//! not wait for it: whatever they change meanwhile it reads before it goes on.
//!
//! A SQLite file is locked by the process that uses it (`src/cli/keyfiles.rs`), and needs no lease.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use riposte_protocol::time::Timestamp;
use sqlx::FromRow;
use sqlx::postgres::{PgPool, Postgres};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::db::Db;
use super::error::{Result, StoreError};
use super::reconnects::Reconnects;
use crate::clock::Clock;
use crate::domain::audit::GENESIS;

/// How long a lease is valid after a renewal.
pub const TTL: Duration = Duration::from_secs(5);
/// Interval between renewals.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Time limit of one renewal.
const RENEW_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a starting manager checks whether the lease of an earlier version has expired.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it checks: a killed manager's lease has expired by then, and a live one has renewed it.
const PATIENCE: Duration = Duration::from_secs(6);
/// A clock that differs from the database's by more disqualifies a manager from duties.
pub const MAX_CLOCK_OFF: Duration = Duration::from_secs(5);
/// What a manager has in force that does not serve yet: no change waits for it.
const NOT_SERVING: i64 = i64::MAX;
/// What a manager has in force whose lease had ended: each change waits for it, and it may commit nothing.
const BEHIND_ALL: i64 = -1;
/// How long a lease that has ended stays listed, in milliseconds.
const LISTED_MILLIS: i64 = 3_600_000;

/// The row of a manager of an earlier version, which shares the ledger with no other.
const EARLIER: &str = "manager";

/// PostgreSQL's clock in milliseconds. Only PostgreSQL runs the statements with it, so host clocks do not matter; they are
/// not among the portable statements.
macro_rules! now {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    };
}
pub(in crate::store) use now;

/// As the portable statement of `src/store/ledger/audit.rs`, for a node whose lease is valid at this moment.
pub(in crate::store) const MOVE_HEAD: &str = concat!(
    "UPDATE audit_head SET seq = $1, hash = $2, epoch = $3, deciding_epoch = $4, events = $5
        WHERE id = 1 AND EXISTS (SELECT 1 FROM nodes WHERE id = $6 AND epoch >= 0 AND lease_until > ",
    now!(),
    ")"
);
const HAS_NODES: &str = "SELECT to_regclass('nodes') IS NOT NULL";
const HOLDER: &str = concat!("SELECT name, started_at FROM nodes WHERE id = $1 AND lease_until > ", now!());
const REGISTER: &str = concat!(
    "INSERT INTO nodes (id, incarnation, name, version, started_at, lease_until, epoch) VALUES ($1, $1, $2, $3, ",
    now!(),
    ", ",
    now!(),
    " + $4, $5) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until, epoch = excluded.epoch"
);
/// Only while it is valid: others may have stopped waiting for one that has ended.
const RENEW: &str = concat!(
    "UPDATE nodes SET lease_until = ",
    now!(),
    " + $2, clock_off = $3 - ",
    now!(),
    " WHERE id = $1 AND lease_until > ",
    now!(),
    " RETURNING clock_off"
);
const APPLIED: &str = "UPDATE nodes SET epoch = $2 WHERE id = $1";
const RELEASE: &str = "DELETE FROM nodes WHERE id = $1";
const FORGET: &str = concat!("DELETE FROM nodes WHERE lease_until < ", now!(), " - $1");
const FIRST_HEAD: &str = "INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, $1) ON CONFLICT (id) DO NOTHING";
/// Those that serve and have not put the change `$2` into force.
const BEHIND: &str = concat!("SELECT COUNT(*) FROM nodes WHERE id <> $1 AND epoch < $2 AND lease_until > ", now!());
/// Waits for the commits of nodes whose lease has ended in between; later ones are refused.
const BARRIER: &str = "SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE";
const ALL: &str = concat!(
    "SELECT id, name, version, started_at, epoch, clock_off, lease_until - ",
    now!(),
    " AS lease_millis FROM nodes WHERE id <> 'manager' ORDER BY id"
);

/// The manager of an earlier version that holds the ledger.
#[derive(Clone, Debug, FromRow)]
struct Holder {
    name: String,
    started_at: i64,
}

/// A manager, as the others see it.
#[derive(Clone, Debug, FromRow)]
pub struct NodeRow {
    /// This run of it.
    pub id: String,
    /// Host, process and address.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Since when it runs, in milliseconds.
    pub started_at: i64,
    /// The last change of configuration that is in force there; the largest number: it does not serve yet.
    pub epoch: i64,
    /// Its clock minus the database's, in milliseconds.
    pub clock_off: i64,
    /// How long its lease is still valid, in milliseconds; not positive if it has ended.
    pub lease_millis: i64,
}

impl NodeRow {
    /// Whether it serves: it has a lease, and had read the configuration when it renewed it.
    pub const fn serves(&self) -> bool {
        self.lease_millis > 0 && self.epoch != NOT_SERVING
    }
}

#[derive(Debug)]
struct Renewal {
    /// When the last renewal that succeeded was sent: the lease is valid for [`TTL`] from then, or longer.
    at: Instant,
    fault: Option<String>,
    /// Whether the configuration must be read before the lease counts: it had ended, or the manager starts.
    is_behind: bool,
    clock_off: i64,
}

/// This manager's right to serve.
#[derive(Debug)]
pub struct Lease {
    /// For renewals, which never wait behind anything; `None` for SQLite, where the file lock is enough.
    pool: Option<PgPool>,
    reconnects: Reconnects,
    /// For what else concerns the other managers.
    peers: Option<PgPool>,
    node: String,
    name: String,
    /// The last change of configuration that the others know to be in force here.
    published: AtomicI64,
    last: Mutex<Renewal>,
    /// Told when the lease has to be caught up with.
    lapsed: Notify,
    released: CancellationToken,
}

impl Lease {
    /// Takes a lease for this run of a manager, called `name`. It does not serve before [`Lease::caught_up`].
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn take(db: &Db, name: &str) -> Result<Self> {
        let node = Uuid::now_v7().to_string();
        let renewal = Renewal { at: Instant::now(), fault: None, is_behind: true, clock_off: 0 };
        let (pool, peers) = if let Db::Postgres { lease, peers, writes, .. } = db {
            sqlx::query::<Postgres>(FIRST_HEAD).bind(GENESIS.to_vec()).execute(lease).await?;
            sqlx::query::<Postgres>(FORGET).bind(LISTED_MILLIS).execute(lease).await?;
            // Always unset: each manager opens its own `Db`.
            let _ = writes.set(node.clone());
            (Some(lease.clone()), Some(peers.clone()))
        } else {
            (None, None)
        };
        let (published, last) = (AtomicI64::new(NOT_SERVING), Mutex::new(renewal));
        let (name, released, lapsed) = (name.to_owned(), CancellationToken::new(), Notify::new());
        let reconnects = db.reconnects();
        let lease = Self { pool, reconnects, peers, node, name, published, last, lapsed, released };
        if let Some(pool) = &lease.pool {
            lease.register(pool, NOT_SERVING).await?;
        }
        Ok(lease)
    }

    /// The id of this run.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Host, process and address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool for what concerns the other managers; `None` for SQLite.
    pub const fn peers(&self) -> Option<&PgPool> {
        self.peers.as_ref()
    }

    /// Renews the lease until it is released.
    pub async fn keep(&self) {
        let Some(pool) = &self.pool else {
            self.released.cancelled().await;
            return;
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = self.released.cancelled() => return,
            }
            let sent = Instant::now();
            let renewed = tokio::time::timeout(RENEW_TIMEOUT, self.renew(pool)).await;
            if self.released.is_cancelled() {
                return;
            }
            match renewed {
                Ok(Ok(renewed)) => self.renewed(sent, renewed),
                Ok(Err(error)) => {
                    self.reconnects.after(&error);
                    self.failed(error.in_words());
                }
                Err(_) => self.failed("it does not answer".to_owned()),
            }
        }
    }

    /// The lease was renewed; without `clock_off` after it had ended.
    fn renewed(&self, sent: Instant, clock_off: Option<i64>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.fault.take().is_some() {
            tracing::info!("PostgreSQL can be used again");
        }
        let has_ended = clock_off.is_none() || last.at.elapsed() >= TTL;
        if has_ended && !last.is_behind {
            last.is_behind = true;
            tracing::warn!("this manager's lease had ended; it serves again once it has read the configuration");
        }
        let clock_off = clock_off.unwrap_or(last.clock_off);
        let (was_off, is_off) = (is_clock_off(last.clock_off), is_clock_off(clock_off));
        if was_off != is_off {
            let secs = clock_off / 1000;
            if is_off {
                tracing::error!(
                    "this host's clock is {secs} s apart from the database's: this manager takes no duties"
                );
            } else {
                tracing::info!("this host's clock agrees with the database's again");
            }
        }
        (last.at, last.clock_off) = (sent, clock_off);
        let is_behind = last.is_behind;
        drop(last);
        if is_behind {
            self.lapsed.notify_one();
        }
    }

    fn failed(&self, fault: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.fault.is_none() {
            tracing::warn!("PostgreSQL cannot be used: {fault}; retrying every second");
        }
        last.fault = Some(fault);
    }

    /// Renews; returns by how much this host's clock is off, or nothing if the lease had ended.
    async fn renew(&self, pool: &PgPool) -> Result<Option<i64>> {
        let now = Clock::system().now().as_millis();
        let renew = sqlx::query_scalar::<Postgres, i64>(RENEW).bind(&self.node).bind(millis(TTL)).bind(now);
        if let Some(clock_off) = renew.fetch_optional(pool).await? {
            return Ok(Some(clock_off));
        }
        self.register(pool, BEHIND_ALL).await?;
        Ok(None)
    }

    async fn register(&self, pool: &PgPool, epoch: i64) -> Result<()> {
        self.published.store(epoch, Ordering::SeqCst);
        let version = env!("CARGO_PKG_VERSION");
        let register = sqlx::query::<Postgres>(REGISTER).bind(&self.node).bind(&self.name).bind(version);
        register.bind(millis(TTL)).bind(epoch).execute(pool).await?;
        Ok(())
    }

    /// Waits until the lease has to be caught up with.
    pub async fn lapsed(&self) {
        self.lapsed.notified().await;
    }

    /// Whether the configuration must be read before the lease counts.
    pub fn is_behind(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).is_behind
    }

    /// From now on the other managers wait until their changes are in force here, and this one commits nothing.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn announce(&self) -> Result<()> {
        self.write_epoch(BEHIND_ALL).await
    }

    /// Everything up to `epoch` is in force here, which was read after [`Lease::announce`]: this manager serves.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn caught_up(&self, epoch: i64) -> Result<()> {
        self.write_epoch(epoch).await?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pool.is_none() || last.at.elapsed() < TTL {
            last.is_behind = false;
        }
        Ok(())
    }

    /// Everything up to `epoch` is in force here. One that has to catch up says so later.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn publish(&self, epoch: i64) -> Result<()> {
        if self.is_behind() { Ok(()) } else { self.write_epoch(epoch).await }
    }

    async fn write_epoch(&self, epoch: i64) -> Result<()> {
        let Some(pool) = self.peers.as_ref().filter(|_| self.published.load(Ordering::SeqCst) != epoch) else {
            return Ok(());
        };
        sqlx::query::<Postgres>(APPLIED).bind(&self.node).bind(epoch).execute(pool).await?;
        self.published.store(epoch, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until each other manager that serves has the change `epoch` in force. One that has not loses its lease by then,
    /// and what it was about to commit is committed or refused.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn agreed(&self, epoch: i64) -> Result<()> {
        const FIRST: Duration = Duration::from_millis(2);
        const LONGEST: Duration = Duration::from_millis(100);
        let Some(pool) = &self.peers else { return Ok(()) };
        let (begun, mut wait) = (Instant::now(), FIRST);
        loop {
            let behind: i64 =
                sqlx::query_scalar::<Postgres, i64>(BEHIND).bind(&self.node).bind(epoch).fetch_one(pool).await?;
            if behind == 0 {
                break;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
        }
        // As long as that takes only if one did not answer: its lease has ended.
        if begun.elapsed() >= RENEW_EVERY {
            let mut barrier = pool.begin().await?;
            sqlx::query::<Postgres>(BARRIER).execute(&mut *barrier).await?;
            barrier.rollback().await?;
        }
        Ok(())
    }

    /// All managers that have a lease, or had one in the last hour; none for SQLite.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>> {
        let Some(pool) = &self.peers else { return Ok(Vec::new()) };
        Ok(sqlx::query_as::<Postgres, NodeRow>(ALL).fetch_all(pool).await?)
    }

    /// Describes a current problem of the database connection, and since when.
    pub fn trouble(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = last.fault.as_ref()?;
        Some(format!("PostgreSQL cannot be used for {} s: {fault}", last.at.elapsed().as_secs().max(1)))
    }

    /// Whether the lease is certainly still valid.
    pub fn is_held(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.is_none() || (!last.is_behind && last.at.elapsed() < TTL)
    }

    /// By how much this host's clock is off the database's, if too much for duties.
    pub fn clock_off(&self) -> Option<Duration> {
        let off = self.last.lock().unwrap_or_else(PoisonError::into_inner).clock_off;
        is_clock_off(off).then(|| Duration::from_millis(off.unsigned_abs()))
    }

    /// Releases the lease, so that no other manager waits for it. If that fails, it expires.
    pub async fn release(&self) {
        self.released.cancel();
        if let Some(pool) = &self.pool {
            let release = sqlx::query::<Postgres>(RELEASE).bind(&self.node).execute(pool);
            if let Ok(Err(error)) = tokio::time::timeout(RENEW_TIMEOUT, release).await {
                tracing::debug!("this manager's lease was not released and runs out: {error}");
            }
        }
    }
}

fn is_clock_off(millis: i64) -> bool {
    Duration::from_millis(millis.unsigned_abs()) > MAX_CLOCK_OFF
}

pub(in crate::store) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Waits until no manager of an earlier version holds the ledger: it would write beside this one, and its schema is about to
/// be changed.
///
/// # Errors
/// [`StoreError::Held`] if one goes on.
pub(super) async fn outlast_earlier(pool: &PgPool) -> Result<()> {
    if !sqlx::query_scalar::<Postgres, bool>(HAS_NODES).fetch_one(pool).await? {
        return Ok(());
    }
    let begun = Instant::now();
    let mut has_said = false;
    loop {
        let holder = sqlx::query_as::<Postgres, Holder>(HOLDER).bind(EARLIER).fetch_optional(pool).await?;
        let Some(Holder { name, started_at }) = holder else { return Ok(()) };
        let holder = format!("{name}, since {}", Timestamp::from_millis(started_at));
        if begun.elapsed() >= PATIENCE {
            return Err(StoreError::Held(holder));
        }
        if !has_said {
            tracing::info!("a manager of an earlier version holds this ledger ({holder}); waiting up to {PATIENCE:?}");
            has_said = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
