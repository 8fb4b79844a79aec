//! Opens PostgreSQL: session settings, and detection of a pooler that changes the server session
//! between transactions. Session state (settings, prepared statements) would then leak to other
//! clients.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::bounds::{ACQUIRE_TIMEOUT, STATEMENTS};
use super::db::{Db, Writes};
use super::error::{Result, StoreError};
use super::reconnects::Reconnects;
use crate::store::ledger::contained::TimeToContain;
use crate::store::ledger::story::{Ended, Names};
use crate::store::ledger::trace_queue::TraceQueue;
use crate::store::seals::known::SharedSeals;

/// Statements here touch a few hundred rows by an index. Without statistics on a young table,
/// PostgreSQL may JIT-compile them, which pays only for long scans.
const NO_JIT: &str = "SET jit = off";
/// For the same reason it may scan a whole table for a few rows until statistics exist. Every write
/// finds its rows by an index.
const BY_INDEX: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
/// A manager that is stopped within a transaction, or cut off, must not hold up the others for longer: the server ends its
/// transaction. What waits for such a lock gives up before, and says so.
const NO_HOSTAGE: &str =
    "SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '4s'; SET statement_timeout = '30s'";
/// Reads hold no lock; the longest are pages of a backtest.
const NO_ENDLESS_READ: &str = "SET idle_in_transaction_session_timeout = '5min'; SET statement_timeout = '2min'";
/// The server notices within seconds that a host is gone. Without a meaning for a Unix socket.
const KEEP_ALIVE: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 10000";
/// For the lease. A renewal lost in a crash is harmless, so it need not wait for a disk.
const RELAXED: &str = "SET synchronous_commit = off; SET statement_timeout = '2s'; SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '5s'";
/// How long a lease renewal waits for its connection.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection that is given back may take to answer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections for hints, duties and presence.
const PEERS: u32 = 4;
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
    let pool = |settings: &'static [&'static str]| {
        let pool = reconnecting(&reconnects).acquire_timeout(ACQUIRE_TIMEOUT).after_release(|connection, _| {
            // A connection whose answer never came is closed, or it would take its place in the pool for ever.
            Box::pin(async move {
                match tokio::time::timeout(RELEASE_TIMEOUT, connection.ping()).await {
                    Ok(answered) => answered.map(|()| true),
                    Err(_) => Err(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut))),
                }
            })
        });
        pool.after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(KEEP_ALIVE).await?;
                for setting in settings {
                    connection.execute(*setting).await?;
                }
                Ok(())
            })
        })
    };
    let write = pool(&[NO_JIT, NO_HOSTAGE, BY_INDEX]).max_connections(1).min_connections(1);
    let write = write.connect_with(options.clone()).await?;
    let lease = pool(&[RELAXED]).max_connections(1).acquire_timeout(LEASE_TIMEOUT).connect_lazy_with(options.clone());
    let peers = pool(&[NO_JIT, RELAXED]).max_connections(PEERS).acquire_timeout(LEASE_TIMEOUT);
    let peers = peers.connect_lazy_with(options.clone());
    let read = pool(&[NO_JIT, NO_ENDLESS_READ]).max_connections(9).connect_with(options).await?;
    Ok(database(write, read, (lease, peers), reconnects))
}

/// A pool whose connections can be given up.
fn reconnecting(reconnects: &Reconnects) -> PgPoolOptions {
    let reconnects = reconnects.clone();
    PgPoolOptions::new().before_acquire(move |_, connection| {
        let is_usable = reconnects.is_usable(connection.age);
        Box::pin(async move { Ok(is_usable) })
    })
}

/// A connection without time limits, for the migrations.
///
/// # Errors
/// If the database cannot be reached.
pub(super) async fn unhurried(url: &str) -> Result<PgPool> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
    Ok(pool.connect_with(options(url)?).await?)
}

/// Opens the database at `url` read-only.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_to_look(url: &str) -> Result<Db> {
    let options = options(url)?;
    look_for_pooler(&options).await?;
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(ACQUIRE_TIMEOUT).connect_with(options).await?;
    Ok(database(pool.clone(), pool.clone(), (pool.clone(), pool), Reconnects::default()))
}

fn database(write: PgPool, read: PgPool, (lease, peers): (PgPool, PgPool), reconnects: Reconnects) -> Db {
    let (writes, names, ended, seals) = (Writes::default(), Names::default(), Ended::default(), SharedSeals::default());
    let (time_to_contain, traces, feed) = (TimeToContain::default(), TraceQueue::default(), Arc::default());
    Db::Postgres { write, read, lease, peers, writes, reconnects, names, ended, time_to_contain, traces, seals, feed }
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
