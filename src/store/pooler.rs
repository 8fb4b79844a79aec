//! Whether a pooler that changes the server's connection between transactions stands in front of PostgreSQL. What a connection
//! keeps (settings, prepared statements, the lease's relaxed commits) would then be another's at the next statement.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};

use super::db::{Result, StoreError};

/// Without parameters it goes out as it is: nothing is prepared.
const WHICH: &str = "SELECT CAST(pg_backend_pid() AS TEXT) AS pid";

/// Looks whether two connections that are open at the same time are one at the server.
///
/// # Errors
/// [`StoreError::Pooled`] if they are.
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
