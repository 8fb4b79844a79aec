//! Opens PostgreSQL: session settings, and detection of a pooler that changes the server session
//! between transactions. Session state (settings, prepared statements) would then leak to other
//! clients.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::db::{ACQUIRE_TIMEOUT, Db, STATEMENTS, Writes};
use super::error::{Result, StoreError};
use super::reconnects::Reconnects;
use crate::store::ledger::story::{Ended, Names};
use crate::store::seals::known::SharedSeals;

/// Statements here touch a few hundred rows by an index. Without statistics on a young table,
/// PostgreSQL may JIT-compile them, which pays only for long scans.
const NO_JIT: &str = "SET jit = off";
/// For the same reason it may scan a whole table for a few rows until statistics exist. Every write
/// finds its rows by an index.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
/// A manager that is stopped within a transaction must not block its successor at the audit head.
const NO_HOSTAGE: &str = "SET idle_in_transaction_session_timeout = '5s'";
/// For the lease. A renewal lost in a crash is harmless, so it need not wait for a disk.
const RELAXED: &str = "SET synchronous_commit = off; SET statement_timeout = '2s'; SET lock_timeout = '2s'";
/// How long a lease renewal waits for its connection.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Sent without parameters, so it is not prepared.
const WHICH: &str = "SELECT CAST(pg_backend_pid() AS TEXT) AS pid";

fn options(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).map_err(|_| StoreError::Address("not a PostgreSQL URL".into()))?;
    // Poolers refuse unknown start-up parameters, and this one only matters for floating-point
    // numbers.
    Ok(options.extra_float_digits(None).application_name("riposte"))
}

/// Opens the database at `url` without checking its schema.
///
/// # Errors
/// If it cannot be reached, or a pooler stands in front of it ([`StoreError::Pooled`]).
pub(in crate::store) async fn open(url: &str) -> Result<Db> {
    let options = options(url)?.statement_cache_capacity(STATEMENTS);
    look_for_pooler(&options).await?;
    let reconnects = Reconnects::default();
    let pool = || {
        let pool = reconnecting(&reconnects).acquire_timeout(ACQUIRE_TIMEOUT);
        pool.after_connect(|connection, _| Box::pin(async { connection.execute(NO_JIT).await.map(drop) }))
    };
    let write = pool().after_connect(|connection, _| {
        Box::pin(async {
            connection.execute(NO_JIT).await?;
            connection.execute(NO_HOSTAGE).await?;
            connection.execute(BY_INDEX).await.map(drop)
        })
    });
    let write = write.max_connections(1).min_connections(1).connect_with(options.clone()).await?;
    let lease = reconnecting(&reconnects).max_connections(1).acquire_timeout(LEASE_TIMEOUT);
    let lease = lease.after_connect(|connection, _| Box::pin(async { connection.execute(RELAXED).await.map(drop) }));
    let lease = lease.connect_lazy_with(options.clone());
    let read = pool().max_connections(9).connect_with(options).await?;
    Ok(database(write, read, lease, reconnects))
}

/// A pool whose connections can be given up.
fn reconnecting(reconnects: &Reconnects) -> PgPoolOptions {
    let reconnects = reconnects.clone();
    PgPoolOptions::new().before_acquire(move |_, connection| {
        let is_usable = reconnects.is_usable(connection.age);
        Box::pin(async move { Ok(is_usable) })
    })
}

/// Opens the database at `url` read-only.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_to_look(url: &str) -> Result<Db> {
    let options = options(url)?;
    look_for_pooler(&options).await?;
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(ACQUIRE_TIMEOUT).connect_with(options).await?;
    let (write, read, lease) = (pool.clone(), pool.clone(), pool);
    Ok(database(write, read, lease, Reconnects::default()))
}

fn database(write: PgPool, read: PgPool, lease: PgPool, reconnects: Reconnects) -> Db {
    let (writes, names, ended, seals) = (Writes::default(), Names::default(), Ended::default(), SharedSeals::default());
    Db::Postgres { write, read, lease, writes, reconnects, names, ended, seals }
}

/// Checks whether two simultaneous connections share one server session.
async fn look_for_pooler(options: &PgConnectOptions) -> Result<()> {
    let (mut one, mut other) = (options.connect().await?, options.connect().await?);
    let is_shared = pid(&mut one).await? == pid(&mut other).await?;
    one.close().await?;
    other.close().await?;
    if is_shared { Err(StoreError::Pooled) } else { Ok(()) }
}

async fn pid(connection: &mut PgConnection) -> Result<String> {
    let row: PgRow = connection.fetch_one(WHICH).await?;
    Ok(row.try_get("pid")?)
}
