//! Enrolment. A name and a Wazuh id each belong to one agent that is not revoked. A reinstalled
//! host may replace its former agent: that agent is revoked, and its effects are applied again on
//! the new one.

use std::collections::BTreeMap;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::agents::{self, Enrollment};
use super::caches::Cache;
use crate::domain::actor::Actor;
use crate::domain::agent::Agent;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::host_name::{HostName, is_same_host};
use crate::domain::labels::{WAZUH_ID, WAZUH_NAME};
use crate::store::database::columns::{id, json};
use crate::store::database::{Result, StoreError, binds, statements};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::{responses, standing};
use crate::store::seals::sets::{AGENTS, EFFECTS, ENROLMENT_TOKENS, PROTECTED, RESPONSES};
use crate::views::agents::AgentRow;
use crate::views::columns::JsonText;

statements! {
    INSERT = "INSERT INTO agents (id, name, public_key, labels, platform, version, capabilities, enrolled_at, key_since)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)";
    TOKEN = "SELECT id FROM enrollment_tokens WHERE hash = $1";
    USE_TOKEN = "UPDATE enrollment_tokens SET uses_left = uses_left - 1
        WHERE hash = $1 AND uses_left > 0 AND expires_at > $2 RETURNING id, labels";
    ENROLLED = "SELECT id FROM agents WHERE name = $1 AND public_key = $2 AND revoked_at IS NULL
        AND EXISTS (SELECT 1 FROM enrollment_tokens WHERE hash = $3 AND expires_at > $4
            AND (enrollment_tokens.labels = agents.labels OR $5))";
    OF_NAME = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds,
            key_since, key_ordered_at, previous_key
        FROM agents WHERE revoked_at IS NULL AND (lower(name) LIKE $1 OR lower(labels) LIKE $2) ORDER BY id";
    OF_LABEL = "SELECT id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at, last_seen_at,
            incident, rejected_orders, rejected_reason, rejected_at, clock_skew_seconds,
            key_since, key_ordered_at, previous_key
        FROM agents WHERE labels LIKE $1 AND revoked_at IS NULL ORDER BY id";
    WANTED = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, until, seal FROM effects
        WHERE agent_id = $1 AND desired = 'in_force'";
    MOVE_EFFECTS = "UPDATE effects SET agent_id = $2, actual = 'absent', actual_seq = 0, changed_at = $3
        WHERE agent_id = $1 AND desired = 'in_force'";
    MOVED_EFFECT = "SELECT id, agent_id, action, target_kind, target_value, arguments, desired, until, seal FROM effects
        WHERE id = $1";
    SEAL_EFFECT = "UPDATE effects SET seal = $2 WHERE id = $1";
    FRESH = "UPDATE effects SET actual = 'absent', last_apply = NULL, last_reason = '', in_force_at = NULL
        WHERE agent_id = $1";
    RESPONSES_OF = "SELECT id, policy, policy_version, action, target_kind, target_value, arguments, agents, until, requested_by, quorum,
            answer_by, on_silence, duration_millis, waves, one_shot, seal
        FROM responses WHERE state IN ('active', 'awaiting_approval') AND agents LIKE $1";
    MOVE_RESPONSES = "UPDATE responses SET agents = replace(agents, $1, $2)
        WHERE state IN ('active', 'awaiting_approval') AND agents LIKE $3";
    PROTECTED_OF = "SELECT id FROM protected_entries WHERE kind IN ('host', 'agent') AND value = $1";
    MOVE_PROTECTED = "UPDATE protected_entries SET value = $2 WHERE kind IN ('host', 'agent') AND value = $1";
}

#[derive(sqlx::FromRow)]
struct UsedToken {
    id: String,
    labels: JsonText,
}

#[derive(sqlx::FromRow)]
struct Found {
    id: String,
}

/// Outcome of an enrolment.
#[derive(Debug)]
pub enum EnrolmentOutcome {
    /// The agent is enrolled.
    Enrolled {
        /// Id of the agent.
        agent: Uuid,
        /// Ids of the replaced agents, now revoked.
        replaced: Vec<Uuid>,
    },
    /// Another agent has the name or the Wazuh id; the text says which.
    Taken(String),
}

/// Consumes one use of the token with this hash, and enrols the agent with the token's labels. A
/// retry with the same name and key returns the first outcome. With `replace` the host's former
/// agent is revoked.
///
/// # Errors
/// [`StoreError::NotFound`] if the token is invalid. A token's use counts only once committed.
pub async fn enroll(
    ledger: &mut LedgerTx,
    token_hash: Vec<u8>,
    agent: Enrollment,
    replace: bool,
    now: Timestamp,
) -> Result<EnrolmentOutcome> {
    let same = binds![agent.name.as_str(), agent.public_key.as_str(), token_hash.clone(), now, replace];
    if let Some(enrolled) = ledger.tx.optional::<Found>(ENROLLED, same).await? {
        return Ok(EnrolmentOutcome::Enrolled { agent: id(&enrolled.id)?, replaced: Vec::new() });
    }
    if let Some(token) = ledger.tx.optional::<Found>(TOKEN, binds![token_hash.clone()]).await? {
        ledger.reseals(&ENROLMENT_TOKENS, &token.id).await?;
    }
    let used: Option<UsedToken> = ledger.tx.optional(USE_TOKEN, binds![token_hash, now]).await?;
    let token = used.ok_or(StoreError::NotFound)?;
    let mut labels: BTreeMap<String, String> = token.labels.read()?;
    let holders = holders(ledger, &agent.name, &labels).await?;
    let name = labels.get(WAZUH_NAME).unwrap_or(&agent.name);
    for holder in &holders {
        let is_same = [&holder.name[..], holder.wazuh_name()]
            .iter()
            .any(|other| is_same_host(other, &agent.name) || is_same_host(other, name));
        if !replace || !is_same {
            return Ok(EnrolmentOutcome::Taken(taken(holder, &labels, is_same)));
        }
    }
    let mut replaced = Vec::new();
    for holder in &holders {
        // From here the name is free for the new agent.
        agents::mark_revoked(ledger, holder.id, now).await?;
        // The token's labels win; the operator's other labels are kept.
        for (key, value) in &holder.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        replaced.push(holder.id);
    }
    let Enrollment { id, name, public_key, platform, version, capabilities } = agent;
    let (platform, capabilities) = (json(&platform)?, json(&capabilities)?);
    let binds = binds![id, name.as_str(), public_key, json(&labels)?, platform, version, capabilities, now];
    ledger.reseals(&AGENTS, &id.to_string()).await?;
    ledger.tx.execute(INSERT, binds).await?;
    ledger.makes_stale(Cache::Agent(id));
    let instead: Vec<String> = replaced.iter().map(|old| format!(", in the place of {old}")).collect();
    let detail = format!("{name}, with enrolment token {}{}", token.id, instead.concat());
    let actor = Actor::Agent(id);
    let (event, noun_id) = (AuditEvent::AgentEnrolled, id.to_string());
    ledger.record(AuditEntry { at: now, actor: actor.clone(), event, noun_id, detail });
    for old in &replaced {
        // Before the old agent's responses end: those that can act on the new agent must not end.
        carry_over(ledger, *old, id, now).await?;
        agents::end_revoked(ledger, *old, &actor, now).await?;
    }
    ledger.tx.execute(FRESH, binds![id]).await?;
    Ok(EnrolmentOutcome::Enrolled { agent: id, replaced })
}

/// Living agents that a name of the new one could name too, or with the number in `labels`.
async fn holders(ledger: &mut LedgerTx, name: &str, labels: &BTreeMap<String, String>) -> Result<Vec<Agent>> {
    let mut holders = of_name(ledger, name, labels).await?;
    let other = labels.get(WAZUH_NAME).map(String::as_str).filter(|other| !is_same_host(other, name));
    let more = match other {
        Some(other) => of_name(ledger, other, labels).await?,
        None => Vec::new(),
    };
    for holder in more.into_iter().chain(of_number(ledger, labels).await?) {
        if holders.iter().all(|known| known.id != holder.id) {
            holders.push(holder);
        }
    }
    Ok(holders)
}

/// Living agents that an alert from the host `name` could mean, by their own name or the one in Wazuh. Case does not count, and
/// neither does a domain that only one of the two names has: alerts of one of them would find both, so neither is answered.
/// Those of another Wazuh manager than in `labels` are told apart by it.
pub async fn of_name(ledger: &mut LedgerTx, name: &str, labels: &BTreeMap<String, String>) -> Result<Vec<Agent>> {
    let host = HostName::new(name);
    // More than what is meant: `_` takes any character, and a longer name may begin alike.
    let (like_name, like_label) = (format!("{}%", host.short()), format!("%\"{WAZUH_NAME}\":\"{}%", host.short()));
    let rows: Vec<AgentRow> = ledger.tx.all(OF_NAME, binds![like_name, like_label]).await?;
    let agents = rows.into_iter().map(Agent::try_from).collect::<Result<Vec<Agent>>>()?;
    let is_meant = |agent: &Agent| {
        let is_named = is_same_host(&agent.name, name) || is_same_host(agent.wazuh_name(), name);
        is_named && (agent.can_share_manager(labels) || agent.name.eq_ignore_ascii_case(name))
    };
    Ok(agents.into_iter().filter(is_meant).collect())
}

/// Living agents with the Wazuh id of `labels` at the same Wazuh manager.
pub async fn of_number(ledger: &mut LedgerTx, labels: &BTreeMap<String, String>) -> Result<Vec<Agent>> {
    let Some(number) = labels.get(WAZUH_ID) else { return Ok(Vec::new()) };
    // Labels are stored as compact JSON. An `_` in the pattern matches any character, which is
    // harmless here.
    let pattern = format!("%\"{WAZUH_ID}\":\"{number}\"%");
    let rows: Vec<AgentRow> = ledger.tx.all(OF_LABEL, binds![pattern]).await?;
    let agents = rows.into_iter().map(Agent::try_from).collect::<Result<Vec<Agent>>>()?;
    Ok(agents.into_iter().filter(|agent| agent.shares_wazuh_id(labels)).collect())
}

/// Says who has a name already.
pub fn name_taken(holder: &Agent) -> String {
    let also =
        if holder.wazuh_name() == holder.name { String::new() } else { format!(", {} in Wazuh,", holder.wazuh_name()) };
    format!("an agent called {}{also} ({}) is enrolled already", holder.name, holder.id)
}

/// Says who has the number of `labels` already.
pub fn number_taken(holder: &Agent) -> String {
    let number = holder.wazuh_id().unwrap_or_default();
    let at = holder.wazuh_manager().map_or_else(String::new, |manager| format!(" of {manager}"));
    format!("agent {} ({}) already has the wazuh_id {number}{at}", holder.name, holder.id)
}

fn taken(holder: &Agent, labels: &BTreeMap<String, String>, is_same: bool) -> String {
    if is_same && !holder.shares_wazuh_id(labels) {
        return format!(
            "{}; if this is the same host, installed anew, enrol it with --replace, else give it another name",
            name_taken(holder)
        );
    }
    let what = number_taken(holder);
    if is_same {
        return format!("{what}; if this is the same host, reinstalled, enrol it with --replace");
    }
    format!(
        "{what}; with two Wazuh managers, distinguish them by the label wazuh_manager; if the number was reassigned, \
         revoke {} or take the label from it",
        holder.name
    )
}

/// Moves the wanted effects of `old` to `new`, where they are not yet in force.
async fn carry_over(ledger: &mut LedgerTx, old: Uuid, new: Uuid, now: Timestamp) -> Result<()> {
    let wanted: Vec<Found> = ledger.sealed(&EFFECTS, WANTED, binds![old]).await?;
    ledger.tx.execute(MOVE_EFFECTS, binds![old, new, now]).await?;
    for effect in &wanted {
        ledger.seal_again(&EFFECTS, MOVED_EFFECT, SEAL_EFFECT, &effect.id).await?;
    }
    let (from, to) = (old.to_string(), new.to_string());
    let like = format!("%{from}%");
    let moved: Vec<Found> = ledger.sealed(&RESPONSES, RESPONSES_OF, binds![like.as_str()]).await?;
    ledger.tx.execute(MOVE_RESPONSES, binds![from.as_str(), to.as_str(), like]).await?;
    for response in moved {
        responses::seal(ledger, id(&response.id)?).await?;
    }
    for Found { id } in ledger.tx.all(PROTECTED_OF, binds![from.as_str()]).await? {
        ledger.reseals(&PROTECTED, &id).await?;
    }
    ledger.makes_stale(Cache::Protected);
    ledger.tx.execute(MOVE_PROTECTED, binds![from.as_str(), to.as_str()]).await?;
    let wanted = wanted.iter().map(|found| id(&found.id)).collect::<Result<Vec<Uuid>>>()?;
    if !wanted.is_empty() {
        let detail = format!("{} effects that were to be in force on {old}", wanted.len());
        let (actor, event) = (Actor::Agent(new), AuditEvent::AgentTookOver);
        ledger.record(AuditEntry { at: now, actor, event, noun_id: to, detail });
        standing::apply_again(ledger, wanted, now).await?;
    }
    Ok(())
}
