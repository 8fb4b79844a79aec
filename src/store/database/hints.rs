//! Hints between the managers that share a PostgreSQL database: something is new for an agent of
//! yours, the configuration has changed. Each manager listens to a channel of its own. A hint is sent
//! after the commit and outside of its transaction, because `NOTIFY` inside one takes a lock that all
//! databases of the server share. A hint may be lost: each manager looks by itself every one or two
//! seconds.

use sqlx::postgres::{PgListener, PgPool, Postgres};
use uuid::Uuid;

use super::error::Result;
use super::nodes::now;

/// Agents that one hint names; with more, the receiver looks. A payload may have 8,000 bytes.
const MAX_NAMED: i64 = 200;
/// Tells each node that serves agents of `$1` which. Only PostgreSQL runs these.
const WAKE: &str = concat!(
    "SELECT COUNT(pg_notify('riposte_' || node, agents)) FROM (
        SELECT presence.node, CASE WHEN COUNT(*) > $3 THEN 'look' ELSE 'wake ' || STRING_AGG(presence.agent_id, ' ') END AS agents
        FROM presence JOIN nodes ON nodes.id = presence.node AND nodes.lease_until > ",
    now!(),
    " WHERE presence.agent_id = ANY($1) AND presence.node <> $2 GROUP BY presence.node) AS hints"
);
const ALL: &str =
    concat!("SELECT COUNT(pg_notify('riposte_' || id, 'look')) FROM nodes WHERE id <> $1 AND lease_until > ", now!());
const CLOSE: &str = "SELECT pg_notify('riposte_' || $1, 'close ' || $2 || ' ' || $3 || ' ' || $4)";

/// A hint as it is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Commands were queued for these agents.
    Wake(Vec<Uuid>),
    /// Look at the ledger.
    Look,
    /// The agent has a newer connection, of this number, elsewhere; by this run, if it is known.
    Close(Uuid, i64, Option<Uuid>),
}

impl Hint {
    /// Reads a hint. What is not understood comes from another version, and means to look.
    pub fn parse(payload: &str) -> Self {
        let mut words = payload.split(' ');
        let read = match words.next() {
            Some("wake") => words.map(|word| word.parse().ok()).collect::<Option<Vec<_>>>().map(Self::Wake),
            Some("close") => {
                let (agent, number) = (words.next(), words.next());
                let agent = agent.and_then(|word| word.parse().ok());
                let number = number.and_then(|word| word.parse().ok());
                let run = words.next().and_then(|word| word.parse().ok());
                agent.zip(number).map(|(agent, number)| Self::Close(agent, number, run))
            }
            _ => None,
        };
        read.unwrap_or(Self::Look)
    }
}

/// Tells the other managers that commands were queued for their agents among these.
///
/// # Errors
/// If the database cannot be reached.
pub async fn wake(pool: &PgPool, node: &str, agents: &[Uuid]) -> Result<()> {
    let agents: Vec<String> = agents.iter().map(Uuid::to_string).collect();
    sqlx::query::<Postgres>(WAKE).bind(agents).bind(node).bind(MAX_NAMED).execute(pool).await?;
    Ok(())
}

/// Tells all other managers to look at the ledger.
///
/// # Errors
/// If the database cannot be reached.
pub async fn look(pool: &PgPool, node: &str) -> Result<()> {
    sqlx::query::<Postgres>(ALL).bind(node).execute(pool).await?;
    Ok(())
}

/// Tells the manager `node` that an agent has a newer connection elsewhere.
///
/// # Errors
/// If the database cannot be reached.
pub async fn close(pool: &PgPool, node: &str, agent: Uuid, number: i64, run: Option<Uuid>) -> Result<()> {
    let run = run.map(|run| run.to_string()).unwrap_or_default();
    let close = sqlx::query::<Postgres>(CLOSE).bind(node).bind(agent.to_string()).bind(number.to_string()).bind(run);
    close.execute(pool).await?;
    Ok(())
}

/// Listens for hints to this manager.
///
/// # Errors
/// If the database cannot be reached, or knows no `LISTEN`.
pub async fn listen(pool: &PgPool, node: &str) -> Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(&format!("riposte_{node}")).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_that_is_not_understood_means_to_look() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(Hint::parse(&format!("wake {one} {two}")), Hint::Wake(vec![one, two]));
        assert_eq!(Hint::parse(&format!("close {one} 7 {two}")), Hint::Close(one, 7, Some(two)));
        assert_eq!(Hint::parse(&format!("close {one} 7 ")), Hint::Close(one, 7, None));
        for other in ["look", "", "wake x", "close", "close 1 x", "dance"] {
            assert_eq!(Hint::parse(other), Hint::Look, "{other}");
        }
    }
}
