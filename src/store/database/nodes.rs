//! The manager's lease on the ledger. One manager at a time holds it, by the database's clock, and
//! renews it each second. A second manager is refused and told the holder. A manager that was
//! paused until another took over cannot write: every transaction checks its own run id at the
//! audit head.
//!
//! Only PostgreSQL needs a lease. A SQLite file is locked by the process that uses it
//! (`src/cli/keyfiles.rs`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use riposte_protocol::time::Timestamp;
use sqlx::FromRow;
use sqlx::postgres::{PgPool, Postgres};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::db::Db;
use super::error::{Result, StoreError};
use crate::domain::audit::GENESIS;

/// How long a lease is valid after a renewal.
const TTL: Duration = Duration::from_secs(5);
/// Interval between renewals.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Time limit of one renewal.
const RENEW_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a starting manager checks whether another lease has expired.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it checks: a killed manager's lease has expired by then, and a live one has renewed it.
const PATIENCE: Duration = Duration::from_secs(6);

/// The lease's only row.
const ID: &str = "manager";

// Only PostgreSQL runs these, by its own clock, so host clocks do not matter. They are not among
// the portable statements.
const TAKE: &str = "INSERT INTO nodes (id, incarnation, name, started_at, lease_until)
    VALUES ($1, $2, $3, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT),
        CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) + $4)
    ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, name = excluded.name,
        started_at = excluded.started_at, lease_until = excluded.lease_until
        WHERE nodes.lease_until <= CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)
    RETURNING name, started_at";
const HOLDER: &str = "SELECT name, started_at FROM nodes WHERE id = $1";
const RENEW: &str = "UPDATE nodes SET lease_until = CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) + $3
    WHERE id = $1 AND incarnation = $2";
const RELEASE: &str = "UPDATE nodes SET lease_until = 0 WHERE id = $1 AND incarnation = $2";
const FIRST_HEAD: &str = "INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, $1) ON CONFLICT (id) DO NOTHING";
const HOLD_HEAD: &str = "UPDATE audit_head SET holder = $1 WHERE id = 1";
const DURABLY: &str = "SET LOCAL synchronous_commit = on";

/// The manager that holds the lease.
#[derive(Clone, Debug, FromRow)]
struct Holder {
    name: String,
    started_at: i64,
}

impl Holder {
    fn text(&self) -> String {
        format!("{}, since {}", self.name, Timestamp::from_millis(self.started_at))
    }
}

#[derive(Debug)]
struct Renewal {
    at: Instant,
    fault: Option<String>,
}

/// The right to write a ledger.
#[derive(Debug)]
pub struct Lease {
    /// `None` for SQLite, where the file lock is enough.
    pool: Option<PgPool>,
    db: Db,
    incarnation: String,
    last: Mutex<Renewal>,
    released: CancellationToken,
}

impl Lease {
    /// Takes the lease for this run of a manager, called `name`. Waits for the lease of a killed
    /// manager to expire.
    ///
    /// # Errors
    /// [`StoreError::Held`] if another manager holds it.
    pub async fn take(db: &Db, name: &str) -> Result<Self> {
        let incarnation = Uuid::now_v7().to_string();
        let last = Mutex::new(Renewal { at: Instant::now(), fault: None });
        let released = CancellationToken::new();
        let Db::Postgres { lease, writes, .. } = db else {
            return Ok(Self { pool: None, db: db.clone(), incarnation, last, released });
        };
        let begun = Instant::now();
        let mut has_said = false;
        loop {
            let is_last = begun.elapsed() >= PATIENCE;
            let holder = match try_take(lease, &incarnation, name).await {
                Ok(Ok(())) => break,
                Ok(Err(holder)) => holder.map_or_else(|| "another one".to_owned(), |holder| holder.text()),
                // A manager stopped within a transaction keeps the audit head until the database
                // ends the transaction.
                Err(error) if !is_last && error.is_wait() => "another one, in the middle of a transaction".to_owned(),
                Err(error) => return Err(error),
            };
            if is_last {
                return Err(StoreError::Held(holder));
            }
            if !has_said {
                tracing::info!(
                    "another manager holds this ledger ({holder}); waiting up to {PATIENCE:?} for its lease to expire"
                );
                has_said = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // Always unset: each manager opens its own `Db`.
        let _ = writes.set(incarnation.clone());
        Ok(Self { pool: Some(lease.clone()), db: db.clone(), incarnation, last, released })
    }

    /// Renews the lease until it is released. Returns early only if another manager has taken over.
    ///
    /// # Errors
    /// [`StoreError::Held`] with the new holder.
    pub async fn keep(&self) -> Result<()> {
        let Some(pool) = &self.pool else {
            self.released.cancelled().await;
            return Ok(());
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = self.released.cancelled() => return Ok(()),
            }
            let renewed = tokio::time::timeout(RENEW_TIMEOUT, self.renew(pool)).await;
            let fault = match renewed {
                Ok(Ok(true)) => None,
                Ok(Ok(false)) if self.released.is_cancelled() => return Ok(()),
                Ok(Ok(false)) => {
                    let holder = holder(pool).await.ok().flatten();
                    return Err(StoreError::Held(holder.map_or_else(|| "another one".into(), |holder| holder.text())));
                }
                Ok(Err(error)) => {
                    self.db.reconnect_after(&error);
                    Some(error.in_words())
                }
                Err(_) => Some("it does not answer".to_owned()),
            };
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if fault.is_some() != last.fault.is_some() {
                match &fault {
                    Some(fault) => tracing::warn!("PostgreSQL cannot be used: {fault}; retrying every second"),
                    None => tracing::info!("PostgreSQL can be used again"),
                }
            }
            if fault.is_none() {
                last.at = Instant::now();
            }
            last.fault = fault;
        }
    }

    async fn renew(&self, pool: &PgPool) -> Result<bool> {
        let renewed = sqlx::query::<Postgres>(RENEW).bind(ID).bind(&self.incarnation).bind(millis(TTL));
        Ok(renewed.execute(pool).await?.rows_affected() > 0)
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
        self.pool.is_none() || last.at.elapsed() < TTL
    }

    /// Releases the lease, so that the next manager need not wait. If that fails, the lease
    /// expires.
    pub async fn release(&self) {
        self.released.cancel();
        if let Some(pool) = &self.pool {
            let release = sqlx::query::<Postgres>(RELEASE).bind(ID).bind(&self.incarnation).execute(pool);
            if let Ok(Err(error)) = tokio::time::timeout(RENEW_TIMEOUT, release).await {
                tracing::debug!("the lease of the ledger was not released and runs out: {error}");
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Takes the lease; the inner `Err` is its current holder.
async fn try_take(pool: &PgPool, incarnation: &str, name: &str) -> Result<std::result::Result<(), Option<Holder>>> {
    let mut tx = pool.begin().await?;
    sqlx::query::<Postgres>(DURABLY).execute(&mut *tx).await?;
    let take = sqlx::query_as::<Postgres, Holder>(TAKE).bind(ID).bind(incarnation).bind(name).bind(millis(TTL));
    if take.fetch_optional(&mut *tx).await?.is_none() {
        tx.rollback().await?;
        return Ok(Err(holder(pool).await?));
    }
    // Locks the head: waits for the former holder's open commit, and precedes its later ones.
    sqlx::query::<Postgres>(FIRST_HEAD).bind(GENESIS.to_vec()).execute(&mut *tx).await?;
    sqlx::query::<Postgres>(HOLD_HEAD).bind(incarnation).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

async fn holder(pool: &PgPool) -> Result<Option<Holder>> {
    Ok(sqlx::query_as::<Postgres, Holder>(HOLDER).bind(ID).fetch_optional(pool).await?)
}
