//! The rotation of agents' own keys. Each change names the key that it replaces, so a repeated or late
//! one changes nothing.

use riposte_protocol::key_change::ChangedKeys;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::store::database::{Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::seals::sets::AGENTS;

statements! {
    REPLACE = "UPDATE agents SET public_key = $3, previous_key = $2, key_since = $4, key_ordered_at = NULL
        WHERE id = $1 AND public_key = $2 AND revoked_at IS NULL";
    ORDER = "UPDATE agents SET key_ordered_at = $2 WHERE id = $1 AND revoked_at IS NULL AND key_ordered_at IS NULL";
    SET_INCIDENT = "UPDATE agents SET incident = $2 WHERE id = $1 AND incident IS NULL AND revoked_at IS NULL";
}

/// Replaces the key of an agent. Returns whether the old one was its key until now.
pub async fn replace(ledger: &mut LedgerTx, agent: Uuid, keys: &ChangedKeys, now: Timestamp) -> Result<bool> {
    let (old, new) = (keys.old.text(), keys.new.text());
    ledger.reseals(&AGENTS, &agent.to_string()).await?;
    if ledger.tx.execute(REPLACE, binds![agent, old.as_str(), new.as_str(), now]).await? == 0 {
        return Ok(false);
    }
    ledger.makes_stale(Cache::Agent(agent));
    let detail = format!("{} in the place of {}", keys.new.kid(), keys.old.kid());
    record(ledger, Actor::Agent(agent), AuditEvent::AgentKeyRotated, agent, detail, now);
    Ok(true)
}

/// Orders an agent to replace its key. An order that waits already stays as it is.
///
/// # Errors
/// [`StoreError::NotFound`] if the agent does not exist or is revoked.
pub async fn order(ledger: &mut LedgerTx, agent: Uuid, by: &Actor, now: Timestamp) -> Result<()> {
    let known = super::agents::find_in(ledger, agent).await?.filter(|known| known.revoked_at.is_none());
    if known.ok_or(StoreError::NotFound)?.key_ordered_at.is_none()
        && ledger.tx.execute(ORDER, binds![agent, now]).await? > 0
    {
        ledger.makes_stale(Cache::Agent(agent));
        record(ledger, by.clone(), AuditEvent::AgentKeyOrdered, agent, String::new(), now);
    }
    Ok(())
}

/// Records that the old key of an agent was used after its rotation: an incident. Returns whether it
/// is new.
pub async fn flag_copy(ledger: &mut LedgerTx, agent: Uuid, since: Timestamp, now: Timestamp) -> Result<bool> {
    let detail = format!(
        "its old key was used after the rotation of {since}: two hosts have it, and one of them rotated it. Revoke the \
         agent and enrol its host anew"
    );
    let is_news = ledger.tx.execute(SET_INCIDENT, binds![agent, detail.as_str()]).await? > 0;
    if is_news {
        tracing::error!(%agent, "agent {}: {detail}", ledger.name_of(agent));
        record(ledger, Actor::Riposte, AuditEvent::AgentKeyCopied, agent, detail, now);
    }
    Ok(is_news)
}

fn record(ledger: &mut LedgerTx, actor: Actor, event: AuditEvent, agent: Uuid, detail: String, now: Timestamp) {
    ledger.record(AuditEntry { at: now, actor, event, noun_id: agent.to_string(), detail });
}
