//! Responses that a person orders. They are judged like a policy's: protection holds, agents that cannot carry them out are left
//! out, and a repetition of the same request changes nothing.

use std::time::Duration;

use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

use super::Engine;
use super::decide::{Protection, able};
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use crate::domain::action::Action;
use crate::domain::actor::Actor;
use crate::domain::audit::reason_fault;
use crate::domain::effect::Until;
use crate::domain::fault::Fault;
use crate::domain::id::new_id;
use crate::domain::response::{NewResponse, Spared, Verdict};
use crate::store::StoreError;
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::commands;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::settle;
use crate::store::writer::IdempotentOutcome;

/// A target as a person writes it: its kind, which most actions imply, and its value.
pub type WrittenTarget = (Option<TargetKind>, String);

/// A response that a person orders.
#[derive(Clone, Debug)]
pub struct Order {
    /// The action's name.
    pub action: String,
    /// What it is aimed at.
    pub target: Option<WrittenTarget>,
    /// The agents, by name or id.
    pub agents: Vec<String>,
    /// For how long; until it is lifted if absent.
    pub duration: Option<Duration>,
    /// Why; kept in the audit log.
    pub reason: String,
    /// Parameters of the action.
    pub arguments: Vec<String>,
    /// The W3C trace context of the request.
    pub trace: Option<String>,
}

impl Engine {
    /// Makes a response by hand, once for each idempotency key. Returns its id.
    ///
    /// # Errors
    /// Faults of the order.
    pub async fn respond(&self, order: Order, once: Option<Once>, by: &Actor) -> UseCase<Uuid> {
        let request = IdempotentRequest::find(&self.db, once.clone()).await?;
        // A repetition is not judged anew: what stands against it now did not then.
        if let Some(kept) = request.answered() {
            let unreadable = |_| StoreError::Corrupt(format!("the answer that was kept: {kept}"));
            let id = serde_json::from_str(kept).map_err(unreadable)?;
            self.undo.look_again();
            return Ok(id);
        }
        let response = decide(self, order, by)?;
        let until = response.until.instant();
        let id = match self.writer.respond(response, once).await? {
            IdempotentOutcome::Done(id) => id,
            IdempotentOutcome::KeyReused => return Err(Refusal::KeyReused),
        };
        if let Some(until) = until {
            self.undo.expect(until);
        }
        Ok(id)
    }

    /// Cancels an apply that is still queued.
    ///
    /// # Errors
    /// If there is no such command, or it is a revert, delivered or over: what is applied is always reverted.
    pub async fn cancel(&self, command: Uuid, why: &str, by: &Actor) -> UseCase<()> {
        let row = commands::find(&self.db, command).await?;
        let row = row.ok_or_else(|| Refusal::NotFound("the command does not exist".to_owned()))?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let cancelled = settle::cancel(&mut ledger, command, by, why, self.clock.now()).await;
        let wake = cancelled.map_err(|error| match error {
            StoreError::Conflict => {
                let (op, state) = (row.op.as_str(), row.state.as_str());
                let why = format!("only an apply that is still queued can be cancelled; this {op} is {state}");
                Refusal::Conflict(why)
            }
            other => other.into(),
        })?;
        ledger.commit().await?;
        self.hub.wake(&wake);
        Ok(())
    }
}

/// A person is told what is wrong at once; only what depends on the fleet's state becomes a spared response.
fn decide(engine: &Engine, order: Order, by: &Actor) -> UseCase<NewResponse> {
    let Order { action: name, target, agents: words, duration, reason, arguments, trace } = order;
    let mut faults = Vec::new();
    let actions = engine.actions.load();
    let action = actions.find(&name);
    if action.is_none() {
        let meant = actions.nearest(&name);
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        faults.push(Fault::at("/action", format!("is not a known action{hint}")));
    }
    let target = action.and_then(|action| manual_target(action, target, &mut faults));
    faults.extend(reason_fault(&reason));
    if let Some(action) = action {
        faults.extend(action.check_arguments(&arguments, "/arguments"));
        if !action.is_process_named(&arguments) {
            let detail = "must name the process, name=NAME or path=PATH: its number may belong to another process by \
                          the time the command arrives";
            faults.push(Fault::at("/arguments", detail));
        }
        if !action.undoable && duration.is_some() {
            faults.push(Fault::at("/for", format!("is not allowed: {name} leaves nothing to undo")));
        }
    }
    let fleet = engine.fleet.load();
    let mut agents = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        match fleet.called(word) {
            Some(agent) => agents.push(agent.clone()),
            None => faults.push(Fault::at(format!("/agents/{index}"), "the agent is not enrolled")),
        }
    }
    if words.is_empty() {
        faults.push(Fault::at("/agents", "must name at least one agent"));
    }
    let now = engine.clock.now();
    let set = engine.protected.load();
    let protection = Protection { set: &set, policy: None, now };
    if let Some(spared) = target.as_ref().and_then(|target| protection.of(target)) {
        faults.push(Fault::at("/target", spared.detail()));
    }
    let (Some(target), Some(action), true) = (target, action, faults.is_empty()) else {
        return Err(Refusal::Invalid(faults));
    };
    agents.sort_by_key(|agent| agent.id);
    agents.dedup_by_key(|agent| agent.id);
    let (agents, spared): (_, Option<Spared>) = able(agents, action, target.kind(), protection);
    Ok(NewResponse {
        id: new_id(now),
        one_shot: !action.undoable,
        is_urgent: true,
        action: name,
        target: Some(target),
        arguments,
        agents: agents.iter().map(|agent| agent.id).collect(),
        until: duration.map_or(Until::Never, |span| Until::At(now.plus(span))),
        verdict: spared.map_or(Verdict::Act, Verdict::Spare),
        note: reason,
        duration,
        requested_by: by.clone(),
        trace,
        ..NewResponse::default()
    })
}

fn manual_target(action: &Action, target: Option<WrittenTarget>, faults: &mut Vec<Fault>) -> Option<Target> {
    let (kind, value) = match target {
        None if action.target_kinds.contains(&TargetKind::None) => return Some(Target::none()),
        None if action.target_kinds.as_slice() == [TargetKind::Host] => return Some(Target::host()),
        None => {
            faults.push(Fault::at("/target", "is missing"));
            return None;
        }
        Some((Some(kind), value)) => (kind, value),
        Some((None, value)) => match action.target_kinds.as_slice() {
            [only] => (*only, value),
            _ => {
                let detail = "must include its kind: {\"kind\":\"ip\",\"value\":\"203.0.113.7\"}";
                faults.push(Fault::at("/target", detail));
                return None;
            }
        },
    };
    if !action.target_kinds.contains(&kind) {
        faults.push(Fault::at("/target/kind", format!("{} does not accept a target of kind {kind}", action.name)));
        return None;
    }
    // Blanks are part of a path; around anything else they come from copying.
    let value = if kind == TargetKind::File { value.as_str() } else { value.trim() };
    match Target::named(kind, value).and_then(|target| action.takes(&target).map(|()| target)) {
        Ok(target) => Some(target),
        Err(error) => {
            faults.push(Fault::at("/target/value", error.to_string()));
            None
        }
    }
}
