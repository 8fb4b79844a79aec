//! Lists of Wazuh's agents, and the claims of new agents that wait for one.

use uuid::Uuid;

use crate::domain::wazuh_claim::ListedAgent;
use crate::store::database::{Db, Result, binds, statements};

statements! {
    CLEAR = "DELETE FROM wazuh_agents WHERE manager = $1";
    INSERT = "INSERT INTO wazuh_agents (manager, id, name) VALUES {3} ON CONFLICT (manager, id) DO UPDATE SET name = excluded.name";
    LISTED = "SELECT manager, id, name FROM wazuh_agents WHERE id = $1 ORDER BY manager";
    MANAGERS = "SELECT COUNT(DISTINCT manager) AS count FROM wazuh_agents";
    CLAIM = "INSERT INTO wazuh_claims (agent_id, number, name) VALUES ($1, $2, $3)
        ON CONFLICT (agent_id) DO UPDATE SET number = excluded.number, name = excluded.name, doubt = NULL";
    CLAIMS = "SELECT agent_id, number, name, doubt FROM wazuh_claims ORDER BY agent_id";
    DOUBT = "UPDATE wazuh_claims SET doubt = $2 WHERE agent_id = $1";
    SETTLED = "DELETE FROM wazuh_claims WHERE agent_id = $1";
}

/// Rows of one statement.
const CHUNK: usize = 1000;

/// A claim that waits.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct WaitingClaim {
    /// Id of the agent.
    pub agent_id: String,
    /// Its id in Wazuh, as it says.
    pub number: String,
    /// Its name in Wazuh, as it says.
    pub name: String,
    /// Why it is not believed.
    pub doubt: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ListedRow {
    manager: String,
    id: String,
    name: String,
}

#[derive(sqlx::FromRow)]
struct Count {
    count: i64,
}

/// Replaces the list of a Wazuh manager.
pub async fn replace(db: &Db, manager: &str, agents: &[(String, String)]) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.execute(CLEAR, binds![manager]).await?;
    for part in agents.chunks(CHUNK) {
        let rows = part.iter().map(|(id, name)| binds![manager, id.as_str(), name.as_str()]).collect();
        tx.execute_rows(INSERT, rows, vec![]).await?;
    }
    tx.commit().await
}

/// The agents with this id in all lists, and the number of lists.
pub async fn listed(db: &Db, id: &str) -> Result<(Vec<ListedAgent>, usize)> {
    let rows: Vec<ListedRow> = db.all(LISTED, binds![id]).await?;
    let managers: Option<Count> = db.optional(MANAGERS, vec![]).await?;
    let managers = managers.map_or(0, |row| usize::try_from(row.count).unwrap_or_default());
    Ok((rows.into_iter().map(|ListedRow { manager, id, name }| ListedAgent { manager, id, name }).collect(), managers))
}

/// Stores what an agent says of itself.
pub async fn claim(db: &Db, agent: Uuid, number: &str, name: &str) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.execute(CLAIM, binds![agent, number, name]).await?;
    tx.commit().await
}

/// All claims that wait.
pub async fn claims(db: &Db) -> Result<Vec<WaitingClaim>> {
    db.all(CLAIMS, vec![]).await
}

/// Notes why a claim is not believed; `None` ends it.
pub async fn settle(db: &Db, agent: &str, doubt: Option<&str>) -> Result<()> {
    let mut tx = db.begin().await?;
    match doubt {
        Some(doubt) => tx.execute(DOUBT, binds![agent, doubt]).await?,
        None => tx.execute(SETTLED, binds![agent]).await?,
    };
    tx.commit().await
}
