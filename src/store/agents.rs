//! Agents and the tokens they enrol with.

use std::collections::BTreeMap;

use riposte_protocol::jws;
use riposte_protocol::message::{Capability, Platform};
use riposte_protocol::time::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::columns::{JsonText, Millis, id, json};
use super::db::{Bind, Db, Result, StoreError, binds, statements};
use super::identity::REJECTS_FOR;
use super::settle;
use crate::domain::agent::Agent;
use crate::domain::audit::Entry;

statements! {
    ALL = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds
        FROM agents ORDER BY id";
    ONE = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds
        FROM agents WHERE id = $1";
    PAGE = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds
        FROM agents WHERE id > $1 AND ($2 IS NULL OR name = $2) AND (revoked_at IS NULL OR $3) ORDER BY id LIMIT $4";
    SET_LABELS = "UPDATE agents SET labels = $2 WHERE id = $1 AND revoked_at IS NULL";
    SET_CAPABILITIES = "UPDATE agents SET capabilities = $2 WHERE id = $1";
    SET_VERSION = "UPDATE agents SET version = $2 WHERE id = $1";
    REVOKE = "UPDATE agents SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    FORGET_RETRIES = "UPDATE effects SET next_revert_at = NULL WHERE agent_id = $1";
    TROUBLES = "SELECT COUNT(CASE WHEN incident IS NOT NULL THEN 1 END) AS in_incident,
            COUNT(CASE WHEN COALESCE(last_seen_at, enrolled_at) <= $1 THEN 1 END) AS silent,
            COUNT(CASE WHEN rejected_at > $2 THEN 1 END) AS rejecting,
            COUNT(CASE WHEN clock_skew_seconds <> 0 THEN 1 END) AS clock_skewed
        FROM agents WHERE revoked_at IS NULL";
    INSERT_TOKEN = "INSERT INTO enrollment_tokens (id, hash, labels, uses, uses_left, expires_at, created_at, created_by)
        VALUES ($1, $2, $3, $4, $4, $5, $6, $7)";
    IS_TOKEN = "SELECT id FROM enrollment_tokens WHERE hash = $1 AND expires_at > $2";
    TOKENS = "SELECT id, labels, uses, uses_left, expires_at, created_at, created_by FROM enrollment_tokens
        WHERE id > $1 ORDER BY id LIMIT $2";
    DELETE_TOKEN = "DELETE FROM enrollment_tokens WHERE id = $1";
    FORGET_TOKENS = "DELETE FROM enrollment_tokens WHERE expires_at < $1";
}

const SEEN: &str = "UPDATE agents SET last_seen_at = CAST(v.column2 AS BIGINT) FROM (";
const SKEWED: &str = "UPDATE agents SET clock_skew_seconds = CAST(v.column2 AS BIGINT) FROM (";
const SEEN_AFTER: &str = ") AS v WHERE agents.id = v.column1";

/// One agent.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, utoipa::ToSchema)]
pub struct AgentRow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its Ed25519 public key in base64url.
    pub public_key: String,
    /// Its labels.
    pub labels: JsonText,
    /// What it runs on.
    #[schema(value_type = Platform)]
    pub platform: JsonText,
    /// Its version.
    pub version: String,
    /// What it can do.
    #[schema(value_type = Vec<Capability>)]
    pub capabilities: JsonText,
    /// When it enrolled.
    pub enrolled_at: Millis,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Millis>,
    /// When it was last heard of; what is stored of it is written in batches.
    pub last_seen_at: Option<Millis>,
    /// What is wrong with its identity, if anything; revoking it and enrolling each host anew is what helps.
    pub incident: Option<String>,
    /// How many orders of this manager it did not believe.
    pub rejected_orders: i64,
    /// Why not, the last time, in a word: `unknown_key`, `signature`, `audience`, `expired` and others.
    pub rejected_reason: Option<String>,
    /// When it last said so.
    pub rejected_at: Option<Millis>,
    /// By how many seconds its host's clock was ahead of the manager's when it last told, behind if negative; 0 within the
    /// minute that clocks may differ. It is served by the manager's clock. Absent: it has not told, as older agents do not.
    pub clock_skew_seconds: Option<i64>,
}

impl TryFrom<AgentRow> for Agent {
    type Error = StoreError;

    fn try_from(row: AgentRow) -> Result<Self> {
        let key = jws::parse_public_key(&row.public_key);
        Ok(Self {
            id: id(&row.id)?,
            name: row.name,
            public_key: key.map_err(|_| StoreError::Corrupt("an agent's public key".into()))?,
            labels: row.labels.read()?,
            version: row.version,
            capabilities: row.capabilities.read()?,
            revoked_at: row.revoked_at.map(Timestamp::from),
        })
    }
}

/// Every agent, the revoked ones too.
pub async fn all(db: &Db) -> Result<Vec<Agent>> {
    db.all::<AgentRow>(ALL, vec![]).await?.into_iter().map(Agent::try_from).collect()
}

/// The agent of that id.
pub async fn find(db: &Db, agent: Uuid) -> Result<Option<AgentRow>> {
    db.optional(ONE, binds![agent]).await
}

/// A page of agents in the order of enrolment, after `after`; revoked ones only if asked for.
pub async fn list(
    db: &Db,
    name: Option<&str>,
    with_revoked: bool,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AgentRow>> {
    db.all(PAGE, binds![after.unwrap_or(Uuid::nil()), name, with_revoked, limit]).await
}

/// How many agents that are not revoked are in trouble.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Troubles {
    /// Whose identity two hosts share.
    pub in_incident: i64,
    /// Of whom nothing was heard for some time.
    pub silent: i64,
    /// Who reject this manager's orders.
    pub rejecting: i64,
    /// Whose host's clock is off.
    pub clock_skewed: i64,
}

/// How many are in trouble, the silent ones since `since`; for the metrics.
pub async fn troubles(db: &Db, since: Timestamp, now: Timestamp) -> Result<Troubles> {
    db.optional(TROUBLES, binds![since, now.minus(REJECTS_FOR)]).await?.ok_or(StoreError::NotFound)
}

/// What an agent says of itself when it enrols.
#[derive(Debug)]
pub struct Enrollment {
    /// The id it gets.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its public key in base64url.
    pub public_key: String,
    /// What it runs on.
    pub platform: Platform,
    /// Its version.
    pub version: String,
    /// What it can do.
    pub capabilities: Vec<Capability>,
}

#[derive(sqlx::FromRow)]
struct FoundToken {
    id: String,
}

/// Whether there is an enrolment token of that hash that has not expired; whether it is used up is for the enrolment to say.
pub async fn is_token(db: &Db, token_hash: Vec<u8>, now: Timestamp) -> Result<bool> {
    Ok(db.optional::<FoundToken>(IS_TOKEN, binds![token_hash, now]).await?.is_some_and(|found| !found.id.is_empty()))
}

/// An agent, as this transaction finds it.
pub async fn find_in(ledger: &mut LedgerTx, agent: Uuid) -> Result<Option<AgentRow>> {
    ledger.tx.optional(ONE, binds![agent]).await
}

/// Replaces an agent's labels.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no living agent of that id.
pub async fn set_labels(
    ledger: &mut LedgerTx,
    agent: Uuid,
    labels: &BTreeMap<String, String>,
    by: &str,
    now: Timestamp,
) -> Result<()> {
    let labels = json(labels)?;
    if ledger.tx.execute(SET_LABELS, binds![agent, labels.as_str()]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, by.into(), "labelled", "agent", agent.to_string(), labels, now);
    Ok(())
}

/// Keeps what an agent says it can do.
pub async fn set_capabilities(ledger: &mut LedgerTx, agent: Uuid, list: &[Capability], now: Timestamp) -> Result<()> {
    let unavailable: Vec<&str> = list.iter().filter(|c| !c.available).map(|c| c.action.as_str()).collect();
    let detail = format!("{} actions, unavailable: {}", list.len(), unavailable.join(", "));
    ledger.tx.execute(SET_CAPABILITIES, binds![agent, json(&list)?]).await?;
    record(ledger, format!("agent:{agent}"), "announced capabilities", "agent", agent.to_string(), detail, now);
    Ok(())
}

/// Keeps which version an agent runs.
pub async fn set_version(ledger: &mut LedgerTx, agent: Uuid, version: &str, now: Timestamp) -> Result<()> {
    ledger.tx.execute(SET_VERSION, binds![agent, version]).await?;
    record(ledger, format!("agent:{agent}"), "announced its version", "agent", agent.to_string(), version.into(), now);
    Ok(())
}

/// Revokes an agent: nothing it says counts any more, and nothing is owed to it. Responses that were to be in force there alone
/// end. Returns other agents that have something to fetch.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no living agent of that id.
pub async fn revoke(ledger: &mut LedgerTx, agent: Uuid, by: &str, now: Timestamp) -> Result<Vec<Uuid>> {
    mark_revoked(ledger, agent, now).await?;
    end_revoked(ledger, agent, by, now).await
}

/// Takes the agent's name and number from it; [`end_revoked`] must follow in the same transaction.
///
/// # Errors
/// As [`revoke`].
pub(super) async fn mark_revoked(ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> Result<()> {
    if ledger.tx.execute(REVOKE, binds![agent, now]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    Ok(())
}

/// Ends what is owed to an agent that is marked as revoked, and what can come into force there alone.
pub(super) async fn end_revoked(ledger: &mut LedgerTx, agent: Uuid, by: &str, now: Timestamp) -> Result<Vec<Uuid>> {
    let (ended, wake) = settle::revoke(ledger, agent, now).await?;
    ledger.tx.execute(FORGET_RETRIES, binds![agent]).await?;
    let detail = format!("{ended} commands that were owed to it ended");
    record(ledger, by.into(), "revoked", "agent", agent.to_string(), detail, now);
    Ok(wake)
}

/// Notes when agents were last heard of.
pub(super) async fn seen(ledger: &mut LedgerTx, agents: Vec<(Uuid, Timestamp)>) -> Result<()> {
    let rows: Vec<Vec<Bind>> = agents.into_iter().map(|(agent, at)| binds![agent, at]).collect();
    ledger.tx.execute_rows(SEEN, rows, SEEN_AFTER, vec![]).await?;
    Ok(())
}

/// Notes by how many seconds agents' clocks are ahead.
pub(super) async fn skewed(ledger: &mut LedgerTx, agents: Vec<(Uuid, i64)>) -> Result<()> {
    let rows: Vec<Vec<Bind>> = agents.into_iter().map(|(agent, ahead)| binds![agent, ahead]).collect();
    ledger.tx.execute_rows(SKEWED, rows, SEEN_AFTER, vec![]).await?;
    Ok(())
}

/// An enrolment token, without its secret.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, utoipa::ToSchema)]
pub struct TokenRow {
    /// Its id.
    pub id: String,
    /// Labels of the agents that enrol with it.
    pub labels: JsonText,
    /// How many agents may use it.
    pub uses: i64,
    /// How many still may.
    pub uses_left: i64,
    /// Until when.
    pub expires_at: Millis,
    /// When it was made.
    pub created_at: Millis,
    /// By whom.
    pub created_by: String,
}

/// A token to be made.
#[derive(Debug)]
pub struct NewToken {
    /// The id it gets.
    pub id: Uuid,
    /// SHA-256 of its secret.
    pub hash: Vec<u8>,
    /// Labels of the agents that enrol with it.
    pub labels: BTreeMap<String, String>,
    /// How many agents may use it.
    pub uses: i64,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Makes an enrolment token.
pub async fn create_token(ledger: &mut LedgerTx, token: &NewToken, by: &str, now: Timestamp) -> Result<()> {
    let NewToken { id, hash, labels, uses, expires_at } = token;
    let labels = json(labels)?;
    let binds = binds![*id, hash.clone(), labels.as_str(), *uses, *expires_at, now, by];
    ledger.tx.execute(INSERT_TOKEN, binds).await?;
    let detail = format!("{uses} uses until {expires_at}, labels {labels}");
    record(ledger, by.into(), "created", "enrollment_token", id.to_string(), detail, now);
    Ok(())
}

/// A page of enrolment tokens.
pub async fn tokens(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<TokenRow>> {
    db.all(TOKENS, binds![after.unwrap_or(Uuid::nil()), limit]).await
}

/// Deletes an enrolment token.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete_token(ledger: &mut LedgerTx, token: Uuid, by: &str, now: Timestamp) -> Result<()> {
    if ledger.tx.execute(DELETE_TOKEN, binds![token]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, by.into(), "deleted", "enrollment_token", token.to_string(), String::new(), now);
    Ok(())
}

/// Forgets tokens that expired before `cutoff`.
pub(super) async fn forget_tokens(ledger: &mut LedgerTx, cutoff: Timestamp) -> Result<u64> {
    ledger.tx.execute(FORGET_TOKENS, binds![cutoff]).await
}

fn record(
    ledger: &mut LedgerTx,
    actor: String,
    verb: &'static str,
    noun: &'static str,
    noun_id: String,
    detail: String,
    now: Timestamp,
) {
    ledger.record(Entry { at: now, actor, verb, noun, noun_id, detail });
}
