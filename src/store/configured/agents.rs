//! Agents and enrolment tokens.

use std::collections::BTreeMap;

use riposte_protocol::key::VerifyingKey;
use riposte_protocol::message::{Capability, Platform};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::agent::Agent;
use crate::domain::agent_key::AgentKey;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::columns::{id, json};
use crate::store::database::{Bind, Db, Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::resync::REJECTS_FOR;
use crate::store::ledger::settle;
use crate::store::seals::known::Purpose;
use crate::store::seals::sets::{AGENTS, ENROLMENT_TOKENS};
use crate::views::agents::{AgentRow, TokenRow};

statements! {
    ALL = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds,
            key_since, key_ordered_at, previous_key, seal
        FROM agents ORDER BY id";
    ONE = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds,
            key_since, key_ordered_at, previous_key, seal
        FROM agents WHERE id = $1";
    PAGE = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds,
            key_since, key_ordered_at, previous_key
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
    EXPIRED_TOKENS = "SELECT id FROM enrollment_tokens WHERE expires_at < $1";
    FORGET_TOKENS = "DELETE FROM enrollment_tokens WHERE expires_at < $1";
    SEEN = "UPDATE agents SET last_seen_at = CAST(v.column2 AS BIGINT)
        FROM (VALUES {2}) AS v WHERE agents.id = v.column1";
    SKEWED = "UPDATE agents SET clock_skew_seconds = CAST(v.column2 AS BIGINT)
        FROM (VALUES {2}) AS v WHERE agents.id = v.column1";
}

impl TryFrom<AgentRow> for Agent {
    type Error = StoreError;

    fn try_from(row: AgentRow) -> Result<Self> {
        let parsed =
            |key: &str| VerifyingKey::parse(key).map_err(|_| StoreError::Corrupt("an agent's public key".into()));
        let key = AgentKey {
            public: parsed(&row.public_key)?,
            previous: row.previous_key.as_deref().map(parsed).transpose()?,
            since: row.key_since.unwrap_or(row.enrolled_at).into(),
            is_ordered: row.key_ordered_at.is_some(),
        };
        Ok(Self {
            id: id(&row.id)?,
            name: row.name,
            key,
            labels: row.labels.read()?,
            version: row.version,
            capabilities: row.capabilities.read()?,
            revoked_at: row.revoked_at.map(Timestamp::from),
        })
    }
}

/// All agents, including revoked ones.
pub async fn all(db: &Db) -> Result<Vec<Agent>> {
    db.sealed_set::<AgentRow>(&AGENTS, ALL, Purpose::Force).await?.into_iter().map(Agent::try_from).collect()
}

/// The agent of that id.
pub async fn find(db: &Db, agent: Uuid) -> Result<Option<AgentRow>> {
    db.optional(ONE, binds![agent]).await
}

/// The agent of that id, if its seal is right.
pub async fn find_sealed(db: &Db, agent: Uuid) -> Result<Option<AgentRow>> {
    Ok(db.sealed(&AGENTS.rows, ONE, binds![agent]).await?.pop())
}

/// A page of agents in the order of enrolment, after `after`; revoked ones only on request.
pub async fn list(
    db: &Db,
    name: Option<&str>,
    with_revoked: bool,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AgentRow>> {
    db.all(PAGE, binds![after.unwrap_or(Uuid::nil()), name, with_revoked, limit]).await
}

/// Numbers of agents with a problem, without revoked ones.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Troubles {
    /// Agents whose identity two hosts share.
    pub in_incident: i64,
    /// Agents without a recent contact.
    pub silent: i64,
    /// Agents that reject this manager's commands.
    pub rejecting: i64,
    /// Agents whose host clock is off.
    pub clock_skewed: i64,
}

/// Counts agents with a problem, for the metrics; an agent is silent if its last contact is before
/// `since`.
pub async fn troubles(db: &Db, since: Timestamp, now: Timestamp) -> Result<Troubles> {
    db.optional(TROUBLES, binds![since, now.minus(REJECTS_FOR)]).await?.ok_or(StoreError::NotFound)
}

/// What an agent submits at enrolment.
#[derive(Debug)]
pub struct Enrollment {
    /// UUIDv7, assigned by the manager.
    pub id: Uuid,
    /// Requested name.
    pub name: String,
    /// Ed25519 public key in base64url.
    pub public_key: String,
    /// Operating system, version and architecture.
    pub platform: Platform,
    /// Version of the agent program.
    pub version: String,
    /// Capabilities of the host.
    pub capabilities: Vec<Capability>,
}

#[derive(sqlx::FromRow)]
struct FoundToken {
    id: String,
}

/// Whether an unexpired enrolment token with this hash exists. The enrolment itself checks whether
/// uses are left.
pub async fn is_token(db: &Db, token_hash: Vec<u8>, now: Timestamp) -> Result<bool> {
    Ok(db.optional::<FoundToken>(IS_TOKEN, binds![token_hash, now]).await?.is_some_and(|found| !found.id.is_empty()))
}

/// An agent, as this transaction sees it.
pub async fn find_in(ledger: &mut LedgerTx, agent: Uuid) -> Result<Option<AgentRow>> {
    ledger.tx.optional(ONE, binds![agent]).await
}

/// Replaces an agent's labels.
///
/// # Errors
/// [`StoreError::NotFound`] if the agent does not exist or is revoked.
pub async fn set_labels(
    ledger: &mut LedgerTx,
    agent: Uuid,
    labels: &BTreeMap<String, String>,
    by: &Actor,
    now: Timestamp,
) -> Result<()> {
    ledger.makes_stale(Cache::Fleet);
    ledger.reseals(&AGENTS, &agent.to_string()).await?;
    let labels = json(labels)?;
    if ledger.tx.execute(SET_LABELS, binds![agent, labels.as_str()]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, by.clone(), AuditEvent::AgentLabelled, agent.to_string(), labels, now);
    Ok(())
}

/// Stores the capabilities that an agent reports.
pub async fn set_capabilities(ledger: &mut LedgerTx, agent: Uuid, list: &[Capability], now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Agent(agent));
    let unavailable: Vec<&str> = list.iter().filter(|c| !c.available).map(|c| c.action.as_str()).collect();
    let detail = format!("{} actions, unavailable: {}", list.len(), unavailable.join(", "));
    ledger.tx.execute(SET_CAPABILITIES, binds![agent, json(&list)?]).await?;
    record(ledger, Actor::Agent(agent), AuditEvent::AgentCapabilitiesAnnounced, agent.to_string(), detail, now);
    Ok(())
}

/// Keeps which version an agent runs.
pub async fn set_version(ledger: &mut LedgerTx, agent: Uuid, version: &str, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Agent(agent));
    ledger.tx.execute(SET_VERSION, binds![agent, version]).await?;
    record(ledger, Actor::Agent(agent), AuditEvent::AgentVersionAnnounced, agent.to_string(), version.into(), now);
    Ok(())
}

/// Revokes an agent: nothing it says counts any more, and nothing is owed to it. Responses that were to be in force there alone
/// end. Returns other agents that have something to fetch.
///
/// # Errors
/// [`StoreError::NotFound`] if the agent does not exist or is already revoked.
pub async fn revoke(ledger: &mut LedgerTx, agent: Uuid, by: &Actor, now: Timestamp) -> Result<Vec<Uuid>> {
    mark_revoked(ledger, agent, now).await?;
    end_revoked(ledger, agent, by, now).await
}

/// Frees the agent's name and Wazuh id; [`end_revoked`] must follow in the same transaction.
///
/// # Errors
/// As [`revoke`].
pub(super) async fn mark_revoked(ledger: &mut LedgerTx, agent: Uuid, now: Timestamp) -> Result<()> {
    ledger.makes_stale(Cache::Fleet);
    ledger.reseals(&AGENTS, &agent.to_string()).await?;
    if ledger.tx.execute(REVOKE, binds![agent, now]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    Ok(())
}

/// Ends the pending commands of a revoked agent, and the responses that act on it alone.
pub(super) async fn end_revoked(ledger: &mut LedgerTx, agent: Uuid, by: &Actor, now: Timestamp) -> Result<Vec<Uuid>> {
    let (ended, wake) = settle::revoke(ledger, agent, now).await?;
    ledger.tx.execute(FORGET_RETRIES, binds![agent]).await?;
    let detail = format!("{ended} pending commands ended");
    record(ledger, by.clone(), AuditEvent::AgentRevoked, agent.to_string(), detail, now);
    Ok(wake)
}

/// Records the last contact of agents.
pub(in crate::store) async fn seen(ledger: &mut LedgerTx, agents: Vec<(Uuid, Timestamp)>) -> Result<()> {
    let rows: Vec<Vec<Bind>> = agents.into_iter().map(|(agent, at)| binds![agent, at]).collect();
    ledger.tx.execute_rows(SEEN, rows, vec![]).await?;
    Ok(())
}

/// Records the clock skew of agents, in seconds.
pub(in crate::store) async fn skewed(ledger: &mut LedgerTx, agents: Vec<(Uuid, i64)>) -> Result<()> {
    let rows: Vec<Vec<Bind>> = agents.into_iter().map(|(agent, ahead)| binds![agent, ahead]).collect();
    ledger.tx.execute_rows(SKEWED, rows, vec![]).await?;
    Ok(())
}

/// An enrolment token to create.
#[derive(Debug)]
pub struct NewToken {
    /// UUIDv7.
    pub id: Uuid,
    /// SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// Labels set on agents that enrol with it.
    pub labels: BTreeMap<String, String>,
    /// Maximum number of enrolments.
    pub uses: i64,
    /// Expiry time.
    pub expires_at: Timestamp,
}

/// Creates an enrolment token.
pub async fn create_token(ledger: &mut LedgerTx, token: &NewToken, by: &Actor, now: Timestamp) -> Result<()> {
    let NewToken { id, hash, labels, uses, expires_at } = token;
    let labels = json(labels)?;
    let binds = binds![*id, hash.clone(), labels.as_str(), *uses, *expires_at, now, by];
    ledger.reseals(&ENROLMENT_TOKENS, &id.to_string()).await?;
    ledger.tx.execute(INSERT_TOKEN, binds).await?;
    let detail = format!("{uses} uses until {expires_at}, labels {labels}");
    record(ledger, by.clone(), AuditEvent::TokenCreated, id.to_string(), detail, now);
    Ok(())
}

/// A page of enrolment tokens.
pub async fn tokens(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<TokenRow>> {
    db.all(TOKENS, binds![after.unwrap_or(Uuid::nil()), limit]).await
}

/// Deletes an enrolment token.
///
/// # Errors
/// [`StoreError::NotFound`] if it does not exist.
pub async fn delete_token(ledger: &mut LedgerTx, token: Uuid, by: &Actor, now: Timestamp) -> Result<()> {
    ledger.reseals(&ENROLMENT_TOKENS, &token.to_string()).await?;
    if ledger.tx.execute(DELETE_TOKEN, binds![token]).await? == 0 {
        return Err(StoreError::NotFound);
    }
    record(ledger, by.clone(), AuditEvent::TokenDeleted, token.to_string(), String::new(), now);
    Ok(())
}

/// Deletes tokens that expired before `cutoff`.
pub(in crate::store) async fn forget_tokens(ledger: &mut LedgerTx, cutoff: Timestamp) -> Result<u64> {
    for FoundToken { id } in ledger.tx.all(EXPIRED_TOKENS, binds![cutoff]).await? {
        ledger.reseals(&ENROLMENT_TOKENS, &id).await?;
    }
    ledger.tx.execute(FORGET_TOKENS, binds![cutoff]).await
}

fn record(ledger: &mut LedgerTx, actor: Actor, event: AuditEvent, noun_id: String, detail: String, now: Timestamp) {
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
