//! Creates commands: numbers them per agent, ranks them by urgency, and queues them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::delivery::Rank;
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::audit::LedgerTx;
use crate::domain::actor::Actor;
use crate::domain::audit::{AuditEntry, AuditEvent};
use crate::domain::command::CommandState;
use crate::domain::effect::Until;
use crate::domain::id::new_id;
use crate::domain::response::Hold;
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, binds, statements};
use crate::store::seals::sets::COMMANDS;

statements! {
    INSERT_COMMANDS = "INSERT INTO commands (id, agent_id, seq, effect_id, response_id, op, action, target_kind,
    target_value, arguments, until, state, created_at, expires_at, one_shot, rank, seal) VALUES {17}";
    /// Sets the rank of an effect's commands to the best among them, so that they stay in order.
    LEVEL = "UPDATE commands SET rank = (SELECT MIN(owed.rank) FROM commands AS owed
        WHERE owed.effect_id = commands.effect_id AND owed.state IN ('queued', 'delivered', 'acknowledged')
            AND owed.state <> 'acknowledged')
    WHERE state IN ('queued', 'delivered', 'acknowledged') AND state <> 'acknowledged'
        AND effect_id IN (VALUES {1})";
    /// A revoked agent fetches no commands, so none are queued for it.
    TAKE_NUMBERS = "UPDATE agents SET last_seq = last_seq + CAST(v.column2 AS BIGINT),
            queued_entry = COALESCE($1, queued_entry)
        FROM (VALUES {2}) AS v
        WHERE agents.id = v.column1 AND revoked_at IS NULL RETURNING agents.id, last_seq";
    /// Numbers of entries are in the order of the commits, so what is committed later is never below one that was seen.
    QUEUED_AFTER = "SELECT id, last_seq FROM agents WHERE queued_entry > $1";
}

/// How long an apply waits for an agent that is offline, unless the block ends before.
const COMMAND_TTL: Duration = Duration::from_hours(24);
/// How long a one-shot command waits: killing or restarting may be wrong an hour later.
const ONE_SHOT_TTL: Duration = Duration::from_hours(1);
/// How long a command for a process waits: a busy host reuses process ids within minutes.
const PROCESS_TTL: Duration = Duration::from_mins(5);

#[derive(sqlx::FromRow)]
struct Numbered {
    id: String,
    last_seq: i64,
}

/// Identity of an effect: agent, action, target.
pub(super) type EffectKey = (Uuid, String, TargetKind, String);

/// A command to number and queue.
pub(super) struct NewCommand {
    pub(in crate::store) effect: Uuid,
    pub(in crate::store) key: EffectKey,
    pub(in crate::store) response: Uuid,
    pub(in crate::store) op: Op,
    pub(super) arguments: String,
    pub(in crate::store) until: Until,
    pub(in crate::store) one_shot: bool,
    /// Whether a person requested it and waits.
    pub(super) is_urgent: bool,
    /// Whether this transaction created the effect.
    pub(in crate::store) is_new: bool,
}

/// Result of [`queue`].
pub(super) struct Queued {
    /// The agents with new commands.
    pub(in crate::store) agents: Vec<Uuid>,
    /// Holds of one-shot commands that cannot be sent to any agent.
    pub(super) unsent: Vec<Hold>,
    /// Effects of revoked agents, for which no command was queued.
    pub(super) unreached: Vec<Uuid>,
}

/// The agents for which commands were queued after the audit entry `entry`. Only known on PostgreSQL.
pub async fn queued_after(db: &Db, entry: i64) -> Result<Vec<Uuid>> {
    let rows: Vec<Numbered> = db.all(QUEUED_AFTER, binds![entry]).await?;
    rows.iter().map(|row| id(&row.id)).collect()
}

/// Numbers commands per agent, in order, and queues them.
pub(super) async fn queue(ledger: &mut LedgerTx, commands: Vec<NewCommand>, now: Timestamp) -> Result<Queued> {
    let mut per_agent: BTreeMap<Uuid, i64> = BTreeMap::new();
    for command in &commands {
        *per_agent.entry(command.key.0).or_insert(0) += 1;
    }
    let rows = per_agent.iter().map(|(agent, count)| binds![*agent, *count]).collect();
    let numbered: Vec<Numbered> = ledger.tx.each_row(TAKE_NUMBERS, rows, binds![ledger.entry_for_others()]).await?;
    let mut next: HashMap<Uuid, i64> = HashMap::with_capacity(numbered.len());
    for row in &numbered {
        let agent = id(&row.id)?;
        next.insert(agent, row.last_seq - per_agent.get(&agent).copied().unwrap_or(0));
    }
    let (mut rows, mut unsent, mut unreached) = (Vec::with_capacity(commands.len()), Vec::new(), Vec::new());
    let mut seen: HashSet<Uuid> = HashSet::new();
    let mut level: BTreeSet<Uuid> = BTreeSet::new();
    for command in commands {
        let NewCommand { effect, key, response, op, arguments, until, one_shot, is_urgent, is_new } = command;
        let (agent, action, kind, value) = key;
        if !seen.insert(effect) || !is_new {
            level.insert(effect);
        }
        let Some(seq) = next.get_mut(&agent) else {
            if one_shot {
                unsent.push(Hold { response_id: response, effect_id: effect });
            } else {
                unreached.push(effect);
            }
            continue;
        };
        *seq += 1;
        let command = new_id(now);
        // A revert stays pending until it is done; an apply is pointless after the block's end.
        let expires_at = match op {
            Op::Apply if one_shot && kind == TargetKind::Process => Some(now.plus(PROCESS_TTL)),
            Op::Apply if one_shot => Some(now.plus(ONE_SHOT_TTL)),
            Op::Apply => Until::At(now.plus(COMMAND_TTL)).min(until).instant(),
            Op::Revert => None,
        };
        let (until, detail) = (
            until.instant(),
            format!("{} {action} {} on agent {agent}, number {seq}", op.as_str(), format!("{kind} {value}").trim_end()),
        );
        let (event, noun_id) = (AuditEvent::CommandQueued, command.to_string());
        ledger.record(AuditEntry { at: now, actor: Actor::Riposte, event, noun_id, detail });
        let head = binds![command, agent, *seq, effect, response, op, action, kind, value, arguments, until];
        let rank = Rank::of(op, is_urgent).number();
        let tail = binds![CommandState::Queued, now, expires_at, one_shot, rank];
        let sealed: Vec<&Bind> = head.iter().chain(&tail[1..3]).collect();
        let seal = ledger.seal_of(&COMMANDS, &sealed);
        rows.push([head, tail, vec![seal]].concat());
    }
    ledger.tx.execute_rows(INSERT_COMMANDS, rows, vec![]).await?;
    let rows = level.into_iter().map(|effect| binds![effect]).collect();
    ledger.tx.execute_rows(LEVEL, rows, vec![]).await?;
    Ok(Queued { agents: per_agent.into_keys().collect(), unsent, unreached })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[tokio::test]
    async fn the_rank_of_an_effects_commands_is_read_from_its_open_ones() {
        let level = plan(LEVEL).await;
        assert_eq!(level.iter().filter(|step| step.contains("commands_open (effect_id=?)")).count(), 2, "{level:?}");
    }
}
