//! What lifting responses would do on the agents: the effects that end, and those that stay because other responses
//! hold them. It only reads; `store/ledger/release.rs` lifts.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::store::database::{Db, Result, binds, statements};
use crate::views::responses::{LiftPlan, StayingEffect};

/// Maximum number of staying effects that are named.
const NAMED: usize = 50;

statements! {
    /// With the number of all holders of each effect.
    HELD = "SELECT holds.effect_id, effects.agent_id,
            (SELECT COUNT(*) FROM holds AS others WHERE others.effect_id = holds.effect_id AND others.released_at IS NULL)
                AS holders
        FROM (VALUES {1}) AS v JOIN holds ON holds.response_id = v.column1
        JOIN effects ON effects.id = holds.effect_id
        WHERE holds.released_at IS NULL
            AND NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = effects.agent_id AND agents.revoked_at IS NOT NULL)";
    HOLDERS = "SELECT holds.effect_id, effects.agent_id, agents.name AS agent, effects.action, effects.target_kind,
            effects.target_value, holds.response_id, responses.policy, responses.requested_by, holds.until
        FROM (VALUES {1}) AS v JOIN holds ON holds.effect_id = v.column1
        JOIN effects ON effects.id = holds.effect_id JOIN agents ON agents.id = effects.agent_id
        JOIN responses ON responses.id = holds.response_id
        WHERE holds.released_at IS NULL
        ORDER BY agents.name, holds.effect_id, COALESCE(holds.until, 9223372036854775807) DESC, holds.response_id";
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    effect_id: String,
    agent_id: String,
    holders: i64,
}

/// What lifting `responses` would do.
///
/// # Errors
/// If the store cannot be read.
pub async fn of(db: &Db, responses: &[Uuid]) -> Result<LiftPlan> {
    let rows = responses.iter().map(|response| binds![*response]).collect();
    let held: Vec<HeldRow> = db.each_row(HELD, rows, vec![]).await?;
    let mut effects: HashMap<String, (String, i64)> = HashMap::with_capacity(held.len());
    for HeldRow { effect_id, agent_id, holders } in held {
        // What is left of its holders, once these responses have let go.
        effects.entry(effect_id).or_insert((agent_id, holders)).1 -= 1;
    }
    let (staying, ending): (Vec<_>, Vec<_>) = effects.iter().partition(|(_, (_, holders))| *holders > 0);
    let agents =
        |of: &[(&String, &(String, i64))]| of.iter().map(|(_, (agent, _))| agent).collect::<HashSet<_>>().len();
    let mut named: Vec<&String> = staying.iter().map(|(effect, _)| *effect).collect();
    named.sort_unstable();
    named.truncate(NAMED);
    let rows = named.iter().map(|effect| binds![effect.as_str()]).collect();
    let mut holders: Vec<StayingEffect> = db.each_row(HOLDERS, rows, vec![]).await?;
    let lifted: HashSet<String> = responses.iter().map(ToString::to_string).collect();
    holders.retain(|holder| !lifted.contains(&holder.response_id));
    holders.dedup_by(|next, first| next.effect_id == first.effect_id);
    Ok(LiftPlan {
        effects: count(ending.len()),
        agents: count(agents(&ending)),
        stays: count(staying.len()),
        stays_agents: count(agents(&staying)),
        staying: holders,
    })
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
