//! Effects that an agent holds and the ledger does not know: they are newer than the backup from
//! which the ledger was restored. The agent ends those with an end. The others would stay for good,
//! so a revert is sent.

use riposte_protocol::command::Op;
use riposte_protocol::message::HeldEffect;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use super::queue::{NewCommand, queue};
use crate::domain::action;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::effect::{Actual, Desired, Until};
use crate::store::database::{Result, binds, statements};

statements! {
    KNOWN = "SELECT id FROM effects WHERE id IN (VALUES {1})";
    UNDER_WAY = "SELECT effect_id AS id FROM commands WHERE state IN ('queued', 'delivered', 'acknowledged')
        AND effect_id IN (VALUES {1})";
    /// If another effect with the same action and target is known, the revert is queued without a row.
    /// Its result shows in its command and in the agent's next report.
    ADOPT = "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments, desired, actual,
    actual_seq, created_at, changed_at, wanted_at, in_force_at) VALUES {13} ON CONFLICT DO NOTHING";
}

/// Maximum number of reverts per report; the rest follows at the next report.
const AT_ONCE: usize = 500;
/// Maximum number of effects named in the log.
const EXAMPLES: usize = 3;

#[derive(sqlx::FromRow)]
struct Id {
    id: String,
}

/// Finds effects among `held` that the ledger does not know, logs them, and queues reverts for
/// those without an end. Returns the agents with new commands.
pub(super) async fn meet<'a>(
    ledger: &mut LedgerTx,
    agent: Uuid,
    held: impl Iterator<Item = &'a HeldEffect>,
    now: Timestamp,
) -> Result<Vec<Uuid>> {
    let mut held: Vec<&HeldEffect> = held.filter(|held| held.released.is_none()).collect();
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<_> = held.iter().map(|held| binds![held.effect]).collect();
    let mut known: Vec<Id> = ledger.tx.each_row(KNOWN, rows.clone(), vec![]).await?;
    known.extend(ledger.tx.each_row::<Id>(UNDER_WAY, rows, vec![]).await?);
    let known: std::collections::HashSet<String> = known.into_iter().map(|row| row.id).collect();
    held.retain(|held| !known.contains(&held.effect.to_string()));
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let endless: Vec<&HeldEffect> = held.iter().copied().filter(|held| held.until.is_none()).collect();
    let (can_lift, cannot): (Vec<&HeldEffect>, Vec<&HeldEffect>) =
        endless.iter().copied().partition(|held| is_sound(held));
    let detail = format!(
        "{} effects unknown to this ledger, among them {}; {} have an end and are ended by the agent, {} have none and are \
         lifted",
        held.len(),
        names(&held),
        held.len() - endless.len(),
        can_lift.len()
    );
    tracing::warn!(%agent, "agent {agent} holds {detail}");
    record(ledger, agent, AuditEvent::AgentHoldsStrangers, detail, now);
    if !cannot.is_empty() {
        let detail = format!(
            "{} effects without an end whose targets are invalid in a command: {}",
            cannot.len(),
            names(&cannot)
        );
        tracing::error!(%agent, "agent {agent} holds {detail}; `riposte-agent release` on its host lifts them");
        record(ledger, agent, AuditEvent::AgentHoldsUnliftable, detail, now);
    }
    order(ledger, agent, &can_lift[..can_lift.len().min(AT_ONCE)], now).await
}

/// Whether the reported effect is valid: it becomes part of commands and rows.
fn is_sound(held: &HeldEffect) -> bool {
    action::is_name(&held.action) && !held.target.value().contains('\0')
}

async fn order(ledger: &mut LedgerTx, agent: Uuid, held: &[&HeldEffect], now: Timestamp) -> Result<Vec<Uuid>> {
    let rows = held.iter().map(|held| {
        let (kind, value) = (held.target.kind(), held.target.value());
        let head =
            binds![held.effect, agent, held.action.as_str(), kind, value, "[]", Desired::Absent, Actual::InForce];
        [head, binds![0_i64, now, now, now, now]].concat()
    });
    ledger.tx.execute_rows(ADOPT, rows.collect(), vec![]).await?;
    let commands = held.iter().map(|held| NewCommand {
        effect: held.effect,
        key: (agent, held.action.clone(), held.target.kind(), held.target.value().to_owned()),
        // No response of this ledger requested it.
        response: Uuid::nil(),
        op: Op::Revert,
        arguments: "[]".into(),
        until: Until::Never,
        one_shot: false,
        is_urgent: false,
        is_new: false,
    });
    Ok(queue(ledger, commands.collect(), now).await?.agents)
}

fn names(held: &[&HeldEffect]) -> String {
    let named = held.iter().take(EXAMPLES).map(|held| format!("{} {}", held.effect, held.target));
    named.collect::<Vec<_>>().join(", ").replace('\0', "\u{fffd}")
}

fn record(ledger: &mut LedgerTx, agent: Uuid, event: AuditEvent, detail: String, now: Timestamp) {
    let (actor, noun_id) = (Actor::Agent(agent), agent.to_string());
    ledger.record(AuditEntry { at: now, actor, event, noun_id, detail });
}
