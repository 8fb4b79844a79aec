//! Who writes this ledger. One manager at a time: it holds a lease, by the database's clock, and renews it each second. A second
//! one is refused and told who holds it; one that was paused for so long that another took over writes nothing any more,
//! because every transaction that changes the ledger looks for its own run at the head of the audit chain.
//!
//! Only PostgreSQL needs this. A SQLite file is locked by the process that uses it (`src/cli/keyfiles.rs`).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use riposte_protocol::time::Timestamp;
use sqlx::FromRow;
use sqlx::postgres::{PgPool, Postgres};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::db::{Db, Result, StoreError};
use crate::domain::audit::GENESIS;

/// How long a manager is taken to be alive after it last renewed its lease.
const TTL: Duration = Duration::from_secs(5);
/// How often it does.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long one renewal may take.
const RENEW_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a manager that starts looks whether the lease of another one has run out.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it does: a manager that was killed has let go by then, and one that lives has renewed.
const PATIENCE: Duration = Duration::from_secs(6);

/// The one manager that there may be.
const ID: &str = "manager";

// PostgreSQL alone runs these, by its own clock, so that clocks of hosts do not matter; hence they are not among the portable
// statements.
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
/// A renewal that a crash takes back does no harm; what is written by it must not wait for a disk.
pub(super) const RELAXED: &str = "SET synchronous_commit = off; SET statement_timeout = '2s'; SET lock_timeout = '2s'";
const DURABLY: &str = "SET LOCAL synchronous_commit = on";

/// The run of the manager that a [`Db`] writes for; unset where no manager runs, such as in a tool.
pub type Writes = Arc<OnceLock<String>>;

/// Which manager holds the ledger.
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

/// The right to write a ledger, as long as it is kept.
#[derive(Debug)]
pub struct Lease {
    /// `None` where the file's lock is all that is needed.
    pool: Option<PgPool>,
    incarnation: String,
    last: Mutex<Renewal>,
    released: CancellationToken,
}

impl Lease {
    /// Takes the ledger for this run of a manager, called `name`. The lease of a manager that was killed is waited out.
    ///
    /// # Errors
    /// [`StoreError::Held`] if another manager holds it.
    pub async fn take(db: &Db, name: &str) -> Result<Self> {
        let incarnation = Uuid::now_v7().to_string();
        let last = Mutex::new(Renewal { at: Instant::now(), fault: None });
        let released = CancellationToken::new();
        let Db::Postgres { lease, writes, .. } = db else {
            return Ok(Self { pool: None, incarnation, last, released });
        };
        let begun = Instant::now();
        let mut has_said = false;
        loop {
            let is_last = begun.elapsed() >= PATIENCE;
            let holder = match try_take(lease, &incarnation, name).await {
                Ok(Ok(())) => break,
                Ok(Err(holder)) => holder.map_or_else(|| "another one".to_owned(), |holder| holder.text()),
                // A manager that was stopped in the middle of a transaction keeps the head until the database ends that.
                Err(error) if !is_last && error.is_wait() => "another one, in the middle of a transaction".to_owned(),
                Err(error) => return Err(error),
            };
            if is_last {
                return Err(StoreError::Held(holder));
            }
            if !has_said {
                tracing::info!(
                    "another manager has this ledger ({holder}); waiting up to {PATIENCE:?} for its lease to end"
                );
                has_said = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // A second manager in one `Db` cannot be: each opens its own.
        let _ = writes.set(incarnation.clone());
        Ok(Self { pool: Some(lease.clone()), incarnation, last, released })
    }

    /// Renews it until it is released. Returns early only if another manager has taken the ledger over.
    ///
    /// # Errors
    /// [`StoreError::Held`] by whom it was taken over.
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
                Ok(Err(error)) => Some(error.in_words()),
                Err(_) => Some("it does not answer".to_owned()),
            };
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if fault.is_some() != last.fault.is_some() {
                match &fault {
                    Some(fault) => tracing::warn!("PostgreSQL cannot be used: {fault}; trying again each second"),
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

    /// What is wrong with the connection to the database, in plain words, and for how long, if anything is.
    pub fn trouble(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = last.fault.as_ref()?;
        Some(format!("PostgreSQL cannot be used for {} s: {fault}", last.at.elapsed().as_secs().max(1)))
    }

    /// Whether this manager may still be taken to be the one: false once its lease may have run out.
    pub fn is_held(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.is_none() || last.at.elapsed() < TTL
    }

    /// Gives the ledger up, so that the next manager need not wait. If that fails, the lease runs out.
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

/// `Err` with the holder if there is one.
async fn try_take(pool: &PgPool, incarnation: &str, name: &str) -> Result<std::result::Result<(), Option<Holder>>> {
    let mut tx = pool.begin().await?;
    sqlx::query::<Postgres>(DURABLY).execute(&mut *tx).await?;
    let take = sqlx::query_as::<Postgres, Holder>(TAKE).bind(ID).bind(incarnation).bind(name).bind(millis(TTL));
    if take.fetch_optional(&mut *tx).await?.is_none() {
        tx.rollback().await?;
        return Ok(Err(holder(pool).await?));
    }
    // Behind whatever the earlier holder is still about to commit, and before anything that it begins later.
    sqlx::query::<Postgres>(FIRST_HEAD).bind(GENESIS.to_vec()).execute(&mut *tx).await?;
    sqlx::query::<Postgres>(HOLD_HEAD).bind(incarnation).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

async fn holder(pool: &PgPool) -> Result<Option<Holder>> {
    Ok(sqlx::query_as::<Postgres, Holder>(HOLDER).bind(ID).fetch_optional(pool).await?)
}
