//! Responses that a person orders. They are judged like a policy's: protection holds, agents that cannot carry them out are left
//! out, and a repetition of the same request changes nothing.

use std::sync::Arc;
use std::time::Duration;

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::Engine;
use super::decide::{Protection, able, unable};
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use crate::domain::action::Action;
use crate::domain::agent::Agent;
use crate::domain::audit::reason_fault;
use crate::domain::effect::Until;
use crate::domain::fault::Fault;
use crate::domain::field_reader::FieldReader;
use crate::domain::filing::Filing;
use crate::domain::fleet::{Fleet, Origin};
use crate::domain::id::new_id;
use crate::domain::policy::{On, OnSilence};
use crate::domain::principal::Principal;
use crate::domain::response::{Await, NewResponse, Spared, Verdict};
use crate::domain::right::Right;
use crate::store::StoreError;
use crate::store::ledger::approvals::{ApprovalDecision, ApprovalOutcome};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::commands;
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::responses;
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
    /// The agents as a policy names them, beside those.
    pub on: Option<Value>,
    /// For how long; until it is lifted if absent.
    pub duration: Option<Duration>,
    /// Why; kept in the audit log.
    pub reason: String,
    /// Parameters of the action.
    pub arguments: Vec<String>,
    /// The W3C trace context of the request.
    pub trace: Option<String>,
    /// Whether it acts where a second person would have to approve.
    pub break_glass: bool,
    /// How it is filed.
    pub filing: Filing,
}

/// What becomes of an order.
#[derive(Debug)]
pub struct JudgedOrder {
    /// The response.
    pub response: NewResponse,
    /// The agents that the order names and the response leaves out.
    pub unable: Vec<(Arc<Agent>, Spared)>,
}

/// Seconds in the answer to an order over the limit of a scope, at least.
const MIN_WAIT_SECS: u64 = 1;

impl Engine {
    /// Makes a response by hand, once for each idempotency key. Returns its id.
    ///
    /// # Errors
    /// Faults of the order.
    pub async fn respond(&self, order: Order, once: Option<Once>, by: &Principal) -> UseCase<Uuid> {
        let request = IdempotentRequest::find(&self.db, once.clone()).await?;
        // A repetition is not judged anew: what stands against it now did not then.
        if let Some(kept) = request.answered() {
            let unreadable = |_| StoreError::Corrupt(format!("the answer that was kept: {kept}"));
            let id = serde_json::from_str(kept).map_err(unreadable)?;
            self.undo.look_again();
            return Ok(id);
        }
        let response = decide(self, order, by)?.response;
        let (until, is_forced) = (response.until.instant(), response.break_glass.is_some());
        let id = match self.writer.respond(response, by.scopes.responses_per_hour(), once).await? {
            Ok(IdempotentOutcome::Done(id)) => id,
            Ok(IdempotentOutcome::KeyReused) => return Err(Refusal::KeyReused),
            Err(until) => return Err(self.over_scope(until)),
        };
        if is_forced {
            self.announce_break_glass(id, by);
        }
        if let Some(until) = until {
            self.undo.expect(until);
        }
        Ok(id)
    }

    /// What a response by hand would do; nothing is changed.
    ///
    /// # Errors
    /// Faults of the order.
    pub fn preview(&self, order: Order, by: &Principal) -> UseCase<JudgedOrder> {
        decide(self, order, by)
    }

    /// Records a person's decision on a response.
    ///
    /// # Errors
    /// If the scope allows no further approval now.
    pub async fn decide_response(
        &self,
        response: Uuid,
        said: ApprovalDecision,
        by: &Principal,
    ) -> UseCase<ApprovalOutcome> {
        let is_forced = said.break_glass;
        let outcome = self.writer.decide(response, by.at(), said).await?;
        match outcome {
            ApprovalOutcome::Full(until) => return Err(self.over_scope(until)),
            ApprovalOutcome::Carried => self.undo.look_again(),
            _ => {}
        }
        if is_forced && outcome == ApprovalOutcome::Carried {
            self.announce_break_glass(response, by);
        }
        Ok(outcome)
    }

    /// Files a response: under a case, or as confidential as it is. Both are said of it from then on.
    ///
    /// # Errors
    /// If there is no such response.
    pub async fn file_response(&self, response: Uuid, filing: &Filing, by: &Principal) -> UseCase<()> {
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let filed = responses::file(&mut ledger, response, filing, &by.at(), self.clock.now()).await;
        filed.map_err(|error| match error {
            StoreError::NotFound => Refusal::NotFound("the response does not exist".to_owned()),
            error => error.into(),
        })?;
        Ok(ledger.commit().await?)
    }

    /// Tells the people who watch the log and the metrics.
    fn announce_break_glass(&self, response: Uuid, by: &Principal) {
        self.metrics.break_glass.inc();
        let principal = by.actor.to_string();
        tracing::warn!(%response, principal, "{principal} used break-glass: response {response} acts without a second person");
    }

    fn over_scope(&self, until: Timestamp) -> Refusal {
        let wait = until.since(self.clock.now()).as_secs().max(MIN_WAIT_SECS);
        Refusal::TooMany("your scope allows no more responses within this hour", wait)
    }

    /// Cancels an apply that is still queued.
    ///
    /// # Errors
    /// If there is no such command, or it is a revert, delivered or over: what is applied is always reverted.
    pub async fn cancel(&self, command: Uuid, why: &str, by: &Principal) -> UseCase<()> {
        let row = commands::find(&self.db, command).await?;
        let not_found = || Refusal::NotFound("the command does not exist".to_owned());
        let row = row.ok_or_else(not_found)?;
        let fleet = self.fleet.load();
        let agent = row.agent_id.parse().ok().and_then(|id| fleet.get(id)).map(AsRef::as_ref);
        if by.scopes.limit_agents() && !agent.is_some_and(|agent: &Agent| by.scopes.take_agent(agent)) {
            return Err(not_found());
        }
        by.scopes.check_response(&row.action, None, [agent])?;
        let mut ledger = LedgerTx::begin(&self.db).await?;
        let cancelled = settle::cancel(&mut ledger, command, &by.actor, why, self.clock.now()).await;
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
fn decide(engine: &Engine, order: Order, by: &Principal) -> UseCase<JudgedOrder> {
    let Order { action: name, target, agents: words, on, duration, reason, arguments, trace, break_glass, filing } =
        order;
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
        faults.extend(engine.secrets.load().faults(&name, &arguments, "/arguments"));
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
            // A hidden agent is as one that is not there.
            Some(agent) if by.scopes.take_agent(&**agent) => agents.push(agent.clone()),
            _ => faults.push(Fault::at(format!("/agents/{index}"), "the agent is not enrolled")),
        }
    }
    if let Some(on) = on {
        agents.extend(selected(&on, &fleet, by, &mut faults)?);
    } else if words.is_empty() {
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
    by.scopes.check_response(&name, None, agents.iter().map(|agent| Some(&**agent)))?;
    let why_not =
        |agent: &Arc<Agent>| unable(agent, action, target.kind(), &protection).map(|why| (Arc::clone(agent), why));
    let unable = agents.iter().filter_map(why_not).collect();
    let (agents, spared): (_, Option<Spared>) = able(agents, action, target.kind(), protection);
    let second = engine.rules.by_hand.why_second_person(&name, agents.len());
    let (verdict, remark, break_glass) = match (spared, second) {
        (Some(spared), _) => (Verdict::Spare(spared), String::new(), None),
        (None, None) => (Verdict::Act, String::new(), None),
        (None, Some(why)) if break_glass => {
            may_break_glass(by)?;
            (Verdict::Act, format!("by break-glass: {why}"), Some(by.at()))
        }
        (None, Some(why)) => {
            // A service key is no person, so two of them must agree.
            let quorum = if by.person().is_some() { 1 } else { 2 };
            let answer_by = now.plus(engine.rules.by_hand.decide_within);
            let verdict = Verdict::Await(Await { quorum, answer_by, on_silence: OnSilence::Reject });
            (verdict, format!("waits for a second person: {why}"), None)
        }
    };
    let response = NewResponse {
        id: new_id(now),
        one_shot: !action.undoable,
        is_urgent: true,
        action: name,
        target: Some(target),
        arguments,
        agents: agents.iter().map(|agent| agent.id).collect(),
        until: duration.map_or(Until::Never, |span| Until::At(now.plus(span))),
        verdict,
        remark,
        break_glass,
        note: reason,
        duration,
        requested_by: by.actor.clone(),
        trace,
        filing,
        ..NewResponse::default()
    };
    Ok(JudgedOrder { response, unable })
}

/// The agents that `on` selects, among those that the principal may see.
fn selected(on: &Value, fleet: &Fleet, by: &Principal, faults: &mut Vec<Fault>) -> UseCase<Vec<Arc<Agent>>> {
    let mut read = FieldReader::default();
    let on = On::read(&mut read, on, "/on");
    let found = read.into_faults();
    if !found.is_empty() {
        faults.extend(found);
        return Ok(Vec::new());
    }
    if on == On::Origin {
        faults.push(Fault::at("/on", "must not be origin: a response by hand has no alert"));
        return Ok(Vec::new());
    }
    if let On::Agents(words) = &on {
        let unknown = words.iter().enumerate().filter(|(_, word)| fleet.called(word).is_none());
        faults.extend(unknown.map(|(index, _)| Fault::at(format!("/on/agents/{index}"), "the agent is not enrolled")));
    }
    let mut agents = fleet.select(&on, &Origin::Unknown, None).map_err(Refusal::Conflict)?;
    agents.retain(|agent| by.scopes.take_agent(&**agent));
    if agents.is_empty() && faults.is_empty() {
        return Err(Refusal::Conflict("on selects no enrolled agent".to_owned()));
    }
    Ok(agents)
}

/// Refuses a principal that cannot stand in for the missing people: a program, or a person without the right to
/// approve.
///
/// # Errors
/// If it may not.
pub fn may_break_glass(by: &Principal) -> UseCase<()> {
    let is_person_or_admin = by.person().is_some() || by.may(Right::Administer);
    if is_person_or_admin && by.may(Right::Approve) {
        return Ok(());
    }
    let why = "break-glass is for people with the right to approve, and for the admin key";
    Err(Refusal::Forbidden(why.to_owned()))
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
