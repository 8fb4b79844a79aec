//! A model of the store: tables in memory; one function call is one transaction. Its files and
//! functions have the names of the manager's (`src/store/`), so that both can be read side by side.
//! The rules are the manager's own: `src/domain/effect.rs` for pending commands,
//! `src/domain/settlement.rs` for ended ones. What is committed is durable: the database guarantees
//! that.
//!
//! Left out: what does not affect the promises of delivery (audit, policies, waves, commands
//! without a lasting effect).

mod converge;
mod ledger;
mod nodes;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use riposte_protocol::command::Op;
use riposte_protocol::delivery::Rank;
use riposte_protocol::message::{CommandResult, MAX_ITEMS};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

pub use self::converge::Said;
pub use self::nodes::{Cluster, Configuration, Duty, TTL};

use crate::command::CommandState;
use crate::defect::Defect;
use crate::effect::Until;
use crate::settlement::EffectState;

/// A row of `effects`.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Number of its agent.
    pub agent: usize,
    /// Number of its target.
    pub target: usize,
    /// Its state, as the ends of its commands changed it.
    pub state: EffectState,
    /// End of its longest hold.
    pub until: Until,
    /// Its commands that are queued, delivered or acknowledged.
    pub under_way: BTreeSet<usize>,
    /// The responses that hold it.
    pub holds: BTreeMap<usize, Until>,
    /// The response that held it last.
    pub last_holder: usize,
}

/// A row of `responses`.
#[derive(Clone, Debug)]
pub struct Response {
    /// When it ends.
    pub until: Until,
    /// Whether it is active; otherwise it has ended.
    pub is_active: bool,
}

/// A row of `commands`.
#[derive(Clone, Debug)]
pub struct Row {
    /// Number of its agent.
    pub agent: usize,
    /// Its sequence number.
    pub seq: u64,
    /// Number of its effect.
    pub effect: usize,
    /// Number of the response that caused it.
    pub response: usize,
    /// Apply or revert.
    pub op: Op,
    /// When the effect ends.
    pub until: Until,
    /// Its state.
    pub state: CommandState,
    /// When it was committed.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// End of the lease of its last delivery.
    pub lease_until: Option<Timestamp>,
    /// When the agent acknowledged it.
    pub acknowledged_at: Option<Timestamp>,
}

/// All tables.
#[derive(Debug, Default)]
pub struct Store {
    /// By number.
    pub effects: Vec<Effect>,
    /// By number.
    pub responses: Vec<Response>,
    /// By number.
    pub commands: Vec<Row>,
    /// By number of the command.
    pub results: BTreeMap<usize, CommandResult>,
    /// The queued and delivered commands of each agent: an index.
    pub owed: Vec<BTreeMap<u64, usize>>,
    acknowledged: BTreeSet<usize>,
    active: BTreeSet<usize>,
    retries: BTreeSet<usize>,
    last_seq: Vec<u64>,
    by_key: BTreeMap<(usize, usize), usize>,
    /// Agents for which commands were queued since the last call that took this.
    pub woken: BTreeSet<usize>,
    /// What several managers share beside the ledger.
    pub cluster: Cluster,
    /// The built-in mistake.
    pub defect: Option<Defect>,
}

const EFFECT: u128 = 0xe << 64;
const COMMAND: u128 = 0xc << 64;

fn below(id: Uuid, kind: u128) -> Option<usize> {
    usize::try_from(id.as_u128().checked_sub(kind)?).ok()
}

/// The id of the effect of that number.
pub fn effect_id(effect: usize) -> Uuid {
    Uuid::from_u128(EFFECT + effect as u128)
}

/// The id of an agent.
pub fn agent_id(agent: usize) -> Uuid {
    Uuid::from_u128((0xa << 64) + agent as u128)
}

/// The id of the command of that number.
pub fn command_id(command: usize) -> Uuid {
    Uuid::from_u128(COMMAND + command as u128)
}

impl Store {
    /// An empty store with this many agents and managers.
    pub fn new(agents: usize, managers: usize, defect: Option<Defect>) -> Self {
        let cluster = Cluster::new(managers);
        Self { owed: vec![BTreeMap::new(); agents], last_seq: vec![0; agents], cluster, defect, ..Self::default() }
    }

    /// The effect of that id.
    pub fn effect_of(&self, id: Uuid) -> Option<usize> {
        below(id, EFFECT).filter(|number| *number < self.effects.len())
    }

    /// The command of that id.
    pub fn command_of(&self, id: Uuid) -> Option<usize> {
        below(id, COMMAND).filter(|number| *number < self.commands.len())
    }

    /// The commands of an agent that are not acknowledged, in the order of sending
    /// (`commands::owed`): of each rank as many as may be under way.
    pub fn owed(&self, agent: usize) -> Vec<usize> {
        let mut places: BTreeMap<usize, Rank> = BTreeMap::new();
        for command in self.owed[agent].values() {
            let row = &self.commands[*command];
            let rank = Rank::of(row.op, self.is_urgent(*command));
            places.entry(row.effect).and_modify(|place| *place = (*place).min(rank)).or_insert(rank);
        }
        let of = |rank: Rank| -> Vec<usize> {
            let owed = self.owed[agent].values().copied();
            owed.filter(|command| places[&self.commands[*command].effect] == rank).take(MAX_ITEMS).collect()
        };
        [Rank::Urgent, Rank::Revert, Rank::Apply].map(of).concat()
    }

    /// Whether a person asked for it: here, every fifth response.
    pub fn is_urgent(&self, command: usize) -> bool {
        self.commands[command].response.is_multiple_of(5)
    }

    /// The active responses that have ended (`responses::due`).
    pub fn due(&self, now: Timestamp) -> Vec<usize> {
        self.active.iter().copied().filter(|response| self.responses[*response].until.is_over(now)).collect()
    }

    /// When the next response ends or the next revert is retried (`responses::next_due`,
    /// `effects::next_retry`).
    pub fn next_due(&self) -> Option<Timestamp> {
        let ends = self.active.iter().filter_map(|response| self.responses[*response].until.instant());
        let retries = self.retries.iter().filter_map(|effect| self.effects[*effect].state.next_revert_at);
        ends.chain(retries).min()
    }

    /// The active responses to `target`.
    pub fn against(&self, target: usize) -> BTreeSet<usize> {
        let effects = self.effects.iter().filter(|effect| effect.target == target);
        effects.flat_map(|effect| effect.holds.keys().copied()).collect()
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// `UPDATE commands SET state`: keeps the indexes.
    fn set_state(&mut self, command: usize, state: CommandState) {
        use CommandState::{Acknowledged, Delivered, Queued};
        let row = &mut self.commands[command];
        row.state = state;
        let is_owed = matches!(state, Queued | Delivered);
        if is_owed {
            self.owed[row.agent].insert(row.seq, command);
        } else {
            self.owed[row.agent].remove(&row.seq);
        }
        if state == Acknowledged {
            self.acknowledged.insert(command);
        } else {
            self.acknowledged.remove(&command);
        }
        let under_way = &mut self.effects[row.effect].under_way;
        if is_owed || state == Acknowledged {
            under_way.insert(command);
        } else {
            under_way.remove(&command);
        }
    }

    /// `UPDATE effects SET next_revert_at`: keeps the index.
    fn set_next_revert(&mut self, effect: usize, at: Option<Timestamp>) {
        self.effects[effect].state.next_revert_at = at;
        if at.is_some() {
            self.retries.insert(effect);
        } else {
            self.retries.remove(&effect);
        }
    }
}
