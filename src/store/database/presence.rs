//! Which manager each agent talks to, for the managers that share a PostgreSQL database. A row is
//! written when a stream begins or ends, and when a run of an agent polls for the first time. Each
//! connection has a number: the newest of an agent counts, on whichever manager.

use std::collections::HashMap;

use sqlx::postgres::{PgPool, Postgres};
use uuid::Uuid;

use super::columns::id;
use super::db::Tx;
use super::error::{Result, StoreError};
use super::nodes::now;
use super::{Bind, statements};
use crate::domain::presence::{POLL_GRACE, Presence};
use crate::domain::runs::AgentRuns;

statements! {
    /// Those whose results come by an older connection than the newest.
    NEWEST = "SELECT agent_id, number FROM presence WHERE agent_id IN (VALUES {1})";
}

/// Registers a connection. Only PostgreSQL runs these.
const CONNECT: &str = concat!(
    "INSERT INTO presence (agent_id, node, number, transport, runs, since) VALUES ($1, $2, 1, $3, '', ",
    now!(),
    ") ON CONFLICT (agent_id) DO UPDATE SET node = excluded.node, number = presence.number + 1,
        transport = excluded.transport, since = excluded.since
    RETURNING number, runs"
);
const FORMER: &str = concat!(
    "SELECT presence.node FROM presence JOIN nodes ON nodes.id = presence.node AND nodes.lease_until > ",
    now!(),
    " WHERE presence.agent_id = $1 AND presence.node <> $2"
);
const SET_RUNS: &str = "UPDATE presence SET runs = $2 WHERE agent_id = $1";
const LEFT: &str =
    "UPDATE presence SET node = '' FROM UNNEST(CAST($1 AS TEXT[]), CAST($2 AS BIGINT[])) AS gone (agent_id, number)
    WHERE presence.agent_id = gone.agent_id AND presence.number = gone.number AND presence.node = $3";
const ALL_LEFT: &str = "UPDATE presence SET node = '' WHERE node = $1";
const ELSEWHERE: &str = concat!(
    "SELECT presence.agent_id, presence.transport FROM presence
    JOIN nodes ON nodes.id = presence.node AND nodes.lease_until > ",
    now!(),
    " JOIN agents ON agents.id = presence.agent_id
    WHERE presence.node <> $1 AND (presence.transport = 'stream' OR agents.last_seen_at > ",
    now!(),
    " - $2)"
);

/// A registered connection.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Its number.
    pub number: i64,
    /// The manager that the agent talked to before, if it is another one that lives.
    pub former: Option<String>,
    /// The last runs of the agent.
    pub runs: AgentRuns,
}

#[derive(sqlx::FromRow)]
struct ConnectedRow {
    number: i64,
    runs: String,
}

/// Registers a connection of an agent to the manager `node`.
///
/// # Errors
/// If the database cannot be written.
pub async fn connect(pool: &PgPool, node: &str, agent: Uuid, is_stream: bool) -> Result<Connected> {
    let agent = agent.to_string();
    let former = sqlx::query_scalar::<Postgres, String>(FORMER).bind(&agent).bind(node).fetch_optional(pool).await?;
    let transport = if is_stream { "stream" } else { "poll" };
    let connect = sqlx::query_as::<Postgres, ConnectedRow>(CONNECT).bind(&agent).bind(node).bind(transport);
    let ConnectedRow { number, runs } = connect.fetch_one(pool).await?;
    // What cannot be read was written by another version: the agent's runs are told apart from now on.
    Ok(Connected { number, former, runs: serde_json::from_str(&runs).unwrap_or_default() })
}

/// Keeps the last runs of an agent.
///
/// # Errors
/// If the database cannot be written.
pub async fn set_runs(pool: &PgPool, agent: Uuid, runs: &AgentRuns) -> Result<()> {
    let runs = serde_json::to_string(runs).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    sqlx::query::<Postgres>(SET_RUNS).bind(agent.to_string()).bind(runs).execute(pool).await?;
    Ok(())
}

/// Connections of these numbers to the manager `node` have ended.
///
/// # Errors
/// If the database cannot be written.
pub async fn left(pool: &PgPool, node: &str, gone: &[(Uuid, i64)]) -> Result<()> {
    let (agents, numbers): (Vec<String>, Vec<i64>) =
        gone.iter().map(|(agent, number)| (agent.to_string(), *number)).unzip();
    sqlx::query::<Postgres>(LEFT).bind(agents).bind(numbers).bind(node).execute(pool).await?;
    Ok(())
}

/// All connections to the manager `node` have ended.
///
/// # Errors
/// If the database cannot be written.
pub async fn all_left(pool: &PgPool, node: &str) -> Result<()> {
    sqlx::query::<Postgres>(ALL_LEFT).bind(node).execute(pool).await?;
    Ok(())
}

/// The agents that talk to another manager than `node`.
///
/// # Errors
/// If the database cannot be read.
pub async fn elsewhere(pool: &PgPool, node: &str) -> Result<HashMap<Uuid, Presence>> {
    let grace = super::nodes::millis(POLL_GRACE);
    let rows: Vec<(String, String)> = sqlx::query_as(ELSEWHERE).bind(node).bind(grace).fetch_all(pool).await?;
    let presence = |transport: &str| if transport == "stream" { Presence::Streaming } else { Presence::Polling };
    rows.into_iter().map(|(agent, transport)| Ok((id(&agent)?, presence(&transport)))).collect()
}

#[derive(sqlx::FromRow)]
struct NewestRow {
    agent_id: String,
    number: i64,
}

/// The numbers of the newest connections of these agents.
pub(in crate::store) async fn newest(tx: &mut Tx, agents: impl Iterator<Item = Uuid>) -> Result<HashMap<Uuid, i64>> {
    let rows: Vec<Vec<Bind>> = agents.map(|agent| vec![Bind::from(agent)]).collect();
    let rows: Vec<NewestRow> = tx.each_row(NEWEST, rows, vec![]).await?;
    rows.iter().map(|row| Ok((id(&row.agent_id)?, row.number))).collect()
}
