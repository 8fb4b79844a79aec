//! Delivery: an agent's pending commands, in order and signed. A conversation (stream or poll)
//! requests the next commands and sends them. The protocol decides what to send when
//! (`protocol/src/delivery.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::{Owed, Rank, Session};
use riposte_protocol::key_statement::MAX_STATEMENTS;
use riposte_protocol::message::{MAX_FRAME_BYTES, MAX_ITEMS};
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;
use riposte_protocol::{MANAGER, jws};
use uuid::Uuid;

use super::Engine;
use super::decide::Protection;
use super::secret_values::SecretValues;
use super::signer::{KeyFor, NamedKey};
use crate::domain::action::Catalogue;
use crate::domain::id::made_at;
use crate::domain::protected::ProtectedSet;
use crate::store::database::{Db, Result, StoreError};
use crate::store::ledger::alerts;
use crate::store::ledger::commands::OwedCommand;
use crate::store::ledger::story::escape;

/// How long a delivered command may stay unacknowledged before it is sent again.
pub const LEASE: Duration = Duration::from_secs(30);
/// Bytes for commands in one message; the rest of the frame is for other fields.
const MESSAGE_BYTES: usize = MAX_FRAME_BYTES - 64 * 1024;
/// Overhead of a command in a message: quotes and a comma.
const SEPARATOR_BYTES: usize = 3;
/// Validity of a signed revert. It is signed again at each delivery, so it stays deliverable
/// without limit.
const REVERT_VALIDITY: Duration = Duration::from_hours(24);
/// The year 2000: an earlier event time means an unset clock.
const CLOCK_WAS_SET: Timestamp = Timestamp::from_millis(946_684_800_000);

/// A conversation with one agent.
#[derive(Debug)]
pub struct Conversation {
    engine: Arc<Engine>,
    agent: Uuid,
    /// The statement about the keys that the agent has accepted; `None` if it learns none.
    keys: Option<u64>,
    session: Session,
    is_full: bool,
    has_more: bool,
}

impl Conversation {
    /// Starts a conversation with an agent whose journal ends at `cursor`, and which has accepted the
    /// statements about the manager's keys up to `keys`; `None` if it learns none.
    pub fn new(engine: Arc<Engine>, agent: Uuid, cursor: u64, keys: Option<u64>) -> Self {
        if let Some(number) = keys {
            engine.confirm_keys(agent, number);
        }
        let keys = keys.map(|_| engine.signer.numbers.of(agent));
        Self { engine, agent, keys, session: Session::new(cursor), is_full: false, has_more: false }
    }

    /// A connection is new: what was sent on the one before may be lost, and is sent again.
    pub fn begin(&self) {
        self.engine.signer.numbers.forget_sent(self.agent);
    }

    /// The agent has accepted the statements about the manager's keys up to `number`.
    pub fn confirm_keys(&mut self, number: u64) {
        self.engine.confirm_keys(self.agent, number);
        self.keys = Some(self.engine.signer.numbers.of(self.agent));
    }

    /// The statements about the manager's keys that the agent has not accepted. Costs no I/O.
    pub fn key_statements(&self) -> Vec<String> {
        let Self { engine, agent, .. } = self;
        let Some(number) = self.keys.filter(|number| *number < engine.signer.last_number()) else { return Vec::new() };
        let statements = engine.signer.statements_after(number, MAX_STATEMENTS);
        if statements.is_empty() || !engine.signer.numbers.may_send(*agent, number, engine.clock.now()) {
            return Vec::new();
        }
        statements
    }

    /// Returns the next signed commands, in order: at most `max`, and no more than fit into one
    /// message. They count as delivered.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn next(&mut self, max: usize) -> Result<Vec<String>> {
        // Another manager may have taken over while this one was paused. It learns so within a
        // second, and sends nothing until then.
        if !self.engine.lease.is_held() {
            return Err(StoreError::Busy);
        }
        let Engine { db, owed_reader, clock, writer, signer, metrics, protected, actions, secrets, .. } = &*self.engine;
        let is_held_back = || self.engine.held_back().is_some();
        let KeyFor::Sign(key) = signer.key_for(self.agent, self.keys) else {
            (self.is_full, self.has_more) = (false, false);
            return Ok(Vec::new());
        };
        let mut owed = owed_reader.of(self.agent, is_held_back()).await?;
        let of = |rank| owed.iter().filter(|command| command.rank == rank).count();
        self.is_full = (0..=2).any(|rank| of(rank) >= MAX_ITEMS);
        let now = clock.now();
        // In this order: what holds back is in force before it is no longer held back for being unknown.
        let is_held_back = is_held_back();
        let (protected, actions, secrets) = (protected.load_full(), actions.load_full(), secrets.load_full());
        // The sweep ends expired commands. Those for protected targets end here, because they block
        // the others.
        let mut withdrawn = BTreeMap::new();
        let unsent = |command: &OwedCommand| {
            protection(command, self.agent, &protected, now).or_else(|| unresolved(command, &secrets))
        };
        owed.retain(|command| match unsent(command) {
            Some(why) => {
                tracing::warn!(command = %command.id, "command {} is not delivered: {why}", command.id);
                withdrawn.insert(command.id, why);
                false
            }
            None => is_deliverable(command, is_held_back, now),
        });
        if !withdrawn.is_empty() {
            writer.withdraw(withdrawn);
        }
        let states: Vec<Owed> = owed.iter().map(state).collect();
        let lease_until = now.plus(LEASE);
        let chosen = self.session.choose(&states, now, lease_until, max.min(MAX_ITEMS));
        self.has_more = chosen.len() >= max;
        let (mut signed, mut ids) = (Vec::with_capacity(chosen.len()), Vec::with_capacity(chosen.len()));
        let mut room = MESSAGE_BYTES;
        for (nth, position) in chosen.iter().enumerate() {
            let command = &owed[*position];
            let token = sign(command, self.agent, (&actions, &secrets), db, &key, now).await;
            let size = token.as_ref().map_or(0, |token| token.len() + SEPARATOR_BYTES);
            let token = if size > room && !signed.is_empty() { None } else { Some(token) };
            let Some(Ok(token)) = token else {
                // Commands beyond the message are not in flight.
                chosen[nth..].iter().for_each(|position| self.session.take_back(owed[*position].seq));
                if let Some(Err(error)) = token {
                    if signed.is_empty() {
                        return Err(error);
                    }
                    tracing::warn!(command = %command.id, "command {} cannot be signed, retrying: {error}", command.id);
                }
                self.has_more = true;
                break;
            };
            room = room.saturating_sub(size);
            ids.push(command.id);
            signed.push(token);
        }
        if !ids.is_empty() && tracing::enabled!(tracing::Level::INFO) {
            let sent = owed.iter().filter(|command| ids.contains(&command.id));
            let name = db.names().agent(self.agent);
            sent.for_each(|command| tell(command, self.agent, name.as_deref()));
        }
        if !ids.is_empty() {
            metrics.commands_sent.inc_by(ids.len() as u64);
            writer.delivered(ids, lease_until);
        }
        Ok(signed)
    }

    /// Whether the last call reached the limit of commands in flight, so more may be pending.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether the last call found more than one message holds.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// End of the next lease: when to ask again without a wake-up.
    pub fn next_lease_end(&self) -> Option<Timestamp> {
        self.session.next_lease_end()
    }
}

/// Logs the delivery of a command.
fn tell(command: &OwedCommand, agent: Uuid, agent_name: Option<&str>) {
    let OwedCommand { id, op, action, response, effect, alert, .. } = command;
    let (policy, alert) = (command.policy.as_deref(), alert.map(|alert| alert.to_string()));
    let target = escape(&command.target.to_string());
    let op = op.as_str();
    tracing::info!(
        command = %id, %response, %effect, alert, policy, %agent, agent_name, action, target, "command delivered: {op}"
    );
}

/// Signs a command, with the program and the alert if its action needs them.
async fn sign(
    command: &OwedCommand,
    agent: Uuid,
    (actions, secrets): (&Catalogue, &SecretValues),
    db: &Db,
    key: &NamedKey,
    now: Timestamp,
) -> Result<String> {
    let mut claims = claims(command, agent, now);
    // A revert needs none: the agent reverts what its journal holds.
    if let Ok(arguments) = secrets.resolve(&command.action, &command.arguments) {
        claims.arguments = arguments;
    }
    if command.op == Op::Apply && command.target.kind() == TargetKind::Process {
        claims.as_of = Some(as_of(command, db).await?);
    }
    let Some(action) = actions.find(&command.action) else { return key.sign(&claims) };
    claims.script.clone_from(&action.script);
    if action.wants_alert {
        claims.alert = alert(db, command).await?;
    }
    let token = key.sign(&claims)?;
    if token.len() <= jws::MAX_BYTES || claims.alert.is_none() {
        return Ok(token);
    }
    tracing::warn!(command = %command.id, "the alert of command {} is too large to be sent with it", command.id);
    claims.alert = None;
    key.sign(&claims)
}

/// When the process of a command was seen: at the alert's time, but not after its receipt; for a
/// manual command, at its request. The kernel may reuse the process id later.
async fn as_of(command: &OwedCommand, db: &Db) -> Result<Timestamp> {
    let decided =
        made_at(command.alert.unwrap_or(command.response)).map_or(command.created_at, |at| at.min(command.created_at));
    let Some(id) = command.alert else { return Ok(decided) };
    let Some(row) = alerts::find(db, id).await? else { return Ok(decided) };
    Ok(seen_at(row.time.into(), decided))
}

/// An alert's event time, as far as it is plausible for the time of receipt.
fn seen_at(time: Timestamp, received: Timestamp) -> Timestamp {
    if time < CLOCK_WAS_SET {
        return received;
    }
    // Some pipelines truncate to whole seconds.
    let time = if time.as_millis() % 1000 == 0 { time.plus(Duration::from_millis(999)) } else { time };
    time.min(received)
}

/// The alert behind a command. `None` for a manual command, and for an alert that was deleted or
/// cannot be decoded: the command is sent without it.
async fn alert(db: &Db, command: &OwedCommand) -> Result<Option<serde_json::Value>> {
    let Some(id) = command.alert else { return Ok(None) };
    let Some(row) = alerts::find(db, id).await? else { return Ok(None) };
    let raw = row.text().inspect_err(|error| {
        tracing::error!(command = %command.id, "the alert of command {} cannot be read: {error}", command.id);
    });
    Ok(raw.ok().and_then(|raw| serde_json::from_str(&raw).ok()))
}

fn state(command: &OwedCommand) -> Owed {
    Owed { seq: command.seq, effect: command.effect, lease_until: command.lease_until }
}

fn is_deliverable(command: &OwedCommand, is_held_back: bool, now: Timestamp) -> bool {
    command.expires_at.is_none_or(|at| at > now) && (command.op == Op::Revert || !is_held_back)
}

/// Why a command must not be delivered to a protected target. Reverts are always allowed: a
/// protected target must not stay blocked.
fn protection(command: &OwedCommand, agent: Uuid, set: &ProtectedSet, now: Timestamp) -> Option<String> {
    if command.op == Op::Revert {
        return None;
    }
    let protection = Protection { set, policy: command.policy.as_deref(), now };
    let of_agent = || set.agent(agent, command.target.kind(), protection.policy, now).map(|entry| entry.reason.clone());
    protection.of(&command.target).map(|spared| spared.detail()).or_else(of_agent)
}

/// Why an apply cannot be sent: it needs a secret that is not there, or not for its action.
fn unresolved(command: &OwedCommand, secrets: &SecretValues) -> Option<String> {
    let is_apply = command.op == Op::Apply;
    is_apply.then(|| secrets.resolve(&command.action, &command.arguments).err()).flatten()
}

fn claims(command: &OwedCommand, agent: Uuid, now: Timestamp) -> Command {
    let exp = command.expires_at.unwrap_or_else(|| now.plus(REVERT_VALIDITY)).as_secs();
    Command {
        iss: MANAGER.into(),
        aud: agent,
        jti: command.id,
        seq: command.seq,
        iat: command.created_at.as_secs(),
        exp,
        op: command.op,
        effect: command.effect,
        action: command.action.clone(),
        target: command.target.clone(),
        arguments: command.arguments.clone(),
        until: command.until,
        response: command.response,
        alert: None,
        script: None,
        as_of: None,
        urgent: command.rank == Rank::Urgent.number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_implausible_event_time_becomes_the_time_of_receipt() {
        let (at, received) = (Timestamp::from_millis, Timestamp::from_millis(1_795_514_400_500));
        assert_eq!(seen_at(at(1_795_514_300_123), received), at(1_795_514_300_123));
        assert_eq!(seen_at(at(1_795_514_300_000), received), at(1_795_514_300_999), "written in whole seconds");
        assert_eq!(seen_at(at(1_795_514_400_000), received), received);
        assert_eq!(seen_at(at(1_895_514_400_123), received), received, "the future");
        assert_eq!(seen_at(at(0), received), received, "a clock that was never set");
    }
}
