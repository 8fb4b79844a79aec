//! Detects a pooler that changes the server session between transactions. Session state (settings,
//! prepared statements, the lease's relaxed commits) would then leak to other clients.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::db::{Result, StoreError};

/// Sent without parameters, so it is not prepared.
const WHICH: &str = "SELECT CAST(pg_backend_pid() AS TEXT) AS pid";

/// Checks whether two simultaneous connections share one server session.
///
/// # Errors
/// [`StoreError::Pooled`] if they do.
pub(super) async fn look(options: &PgConnectOptions) -> Result<()> {
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
