//! Carries out a command: a response by hand for `deny` and `contain`, and the end of responses for the
//! others. An answer of 200 means that the ledger has it.

use riposte_protocol::target::TargetKind;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::caller::OpenC2Caller;
use crate::api::front::auth::Read;
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::fingerprint;
use crate::api::state::AppState;
use crate::compat::openc2::answer::{OpenC2Answer, OpenC2Status};
use crate::compat::openc2::command::{CommandActuator, CommandKind, OpenC2Command, PAIRS, ResponseRequested};
use crate::compat::openc2::times;
use crate::domain::canonical;
use crate::domain::feed::BLOCKING_ACTIONS;
use crate::domain::filing::Filing;
use crate::domain::principal::Principal;
use crate::domain::response::{Decision, EndReason, ResponseEnd, ResponseState};
use crate::domain::right::Right;
use crate::engine::refusal::Refusal;
use crate::engine::respond::Order;
use crate::store::StoreError;
use crate::store::ledger::approvals::{ApprovalDecision, ApprovalOutcome};
use crate::store::ledger::idempotency::Once;
use crate::store::ledger::openc2;
use crate::store::ledger::responses::{self, ResponseFilter};
use crate::views::responses::ResponseRow;

/// The action of `deny`.
const DROP: &str = "firewall-drop";
/// The action of `contain`.
const ISOLATE: &str = "isolate-host";
/// Responses that one `allow` or `restore` ends. More is a case for `POST /v1/responses/lift`.
const MAX_ENDED: i64 = 500;

/// What a command came with.
pub(super) struct Given<'a> {
    /// The command as it was sent.
    pub(super) command: &'a Map<String, Value>,
    /// The producer's id of the request.
    pub(super) request_id: Option<&'a str>,
    /// `traceparent` of the request.
    pub(super) trace: Option<String>,
}

/// An answer, or an error that is none of the command.
type Carried = ApiResult<OpenC2Answer>;

/// Carries out a command.
///
/// # Errors
/// Missing rights, limits, and a ledger that cannot be used.
pub(super) async fn carry_out(
    state: &AppState,
    caller: &OpenC2Caller<Read>,
    command: OpenC2Command,
    given: Given<'_>,
) -> Carried {
    if let CommandKind::Query(features) = &command.kind {
        return Ok(answer_query(state, features));
    }
    caller.may(Right::Respond)?;
    let by = caller.principal();
    match command.kind.clone() {
        CommandKind::Query(_) => Ok(OpenC2Answer::new(OpenC2Status::Ok, "")),
        CommandKind::Deny { address, both } => {
            let arguments = if both { vec!["output".to_owned()] } else { Vec::new() };
            let target = (Some(TargetKind::Ip), address);
            let agent = agent_of(state, by, &named(&command.actuator));
            make(state, by, (DROP, target, arguments), agent, command, given).await
        }
        CommandKind::Contain(device) => {
            let agent = agent_of(state, by, &[&[device.as_str()], &named(&command.actuator)[..]].concat());
            let target = (Some(TargetKind::Host), String::new());
            make(state, by, (ISOLATE, target, Vec::new()), agent, command, given).await
        }
        CommandKind::Allow(address) => {
            let target = Some(canonical::target(&address));
            let filter = ResponseFilter { target, ..ResponseFilter::default() };
            let agent = agent_of(state, by, &named(&command.actuator));
            end_matching(state, by, filter, &BLOCKING_ACTIONS, agent).await
        }
        CommandKind::Restore(device) => {
            let filter = ResponseFilter { action: Some(ISOLATE.to_owned()), ..ResponseFilter::default() };
            let agent = agent_of(state, by, &[&[device.as_str()], &named(&command.actuator)[..]].concat());
            end_matching(state, by, filter, &[ISOLATE], agent).await
        }
        CommandKind::Cancel(command) => {
            let found = openc2::commanded(&state.engine.db, &by.actor, &command).await?;
            end_one(state, caller, found, "/target/command: you sent no command with this id").await
        }
        CommandKind::Delete(rule_number) => {
            let found = openc2::numbered(&state.engine.db, rule_number).await?;
            end_one(state, caller, found, "/target/slpf:rule_number: no rule has this number").await
        }
    }
}

fn answer_query(state: &AppState, features: &[&str]) -> OpenC2Answer {
    let answer = OpenC2Answer::new(OpenC2Status::Ok, "Riposte takes OpenC2 1.0");
    features.iter().fold(answer, |answer, feature| {
        let value = match *feature {
            "versions" => json!(["1.0"]),
            "profiles" => json!(["slpf"]),
            "rate_limit" => json!(state.limits.requests_per_minute),
            _ => PAIRS
                .iter()
                .map(|(action, targets)| ((*action).to_owned(), json!(targets)))
                .collect::<Map<_, _>>()
                .into(),
        };
        answer.with(feature, value)
    })
}

/// What an actuator calls the host.
fn named(actuator: &CommandActuator) -> Vec<&str> {
    [&actuator.asset_id, &actuator.hostname].into_iter().flatten().map(String::as_str).collect()
}

/// The one agent that all words name; `None` without words.
fn agent_of(state: &AppState, by: &Principal, words: &[&str]) -> Result<Option<Uuid>, OpenC2Answer> {
    let fleet = state.engine.fleet.load();
    let mut found: Option<Uuid> = None;
    for &word in words {
        let mut labelled = fleet.iter().filter(|agent| agent.wazuh_id() == Some(word));
        let labelled = labelled.next().filter(|_| labelled.next().is_none());
        // A hidden agent is as one that is not there.
        let agent = fleet.called(word).or(labelled).filter(|agent| by.scopes.take_agent(&***agent));
        let agent = agent.ok_or_else(|| OpenC2Answer::nowhere("the actuator or device names no enrolled agent"))?;
        if found.is_some_and(|other| other != agent.id) {
            return Err(OpenC2Answer::bad("/actuator/slpf: hostname, asset_id and the device name different agents"));
        }
        found = Some(agent.id);
    }
    Ok(found)
}

/// Makes a response by hand.
async fn make(
    state: &AppState,
    by: &Principal,
    (action, target, arguments): (&str, (Option<TargetKind>, String), Vec<String>),
    agent: Result<Option<Uuid>, OpenC2Answer>,
    command: OpenC2Command,
    given: Given<'_>,
) -> Carried {
    let engine = &state.engine;
    let prepared =
        agent.and_then(|agent| times::lasting(command.times, engine.clock.now()).map(|duration| (agent, duration)));
    let (agent, duration) = match prepared {
        Ok(prepared) => prepared,
        Err(fault) => return Ok(fault),
    };
    let id = command.id.as_deref().or(given.request_id);
    let reason = match id {
        Some(id) => format!("OpenC2 command {}", id.chars().filter(char::is_ascii_graphic).collect::<String>()),
        None => "OpenC2 command".to_owned(),
    };
    let once = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic())).map(|id| {
        let body = Value::Object(given.command.clone()).to_string();
        let fingerprint = fingerprint("openc2\n", body.as_bytes());
        Once { principal: by.actor.clone(), key: format!("openc2 {id}"), fingerprint }
    });
    let target = if action == ISOLATE { None } else { Some(target) };
    let (agents, on) = match agent {
        Some(agent) => (vec![agent.to_string()], None),
        None => (Vec::new(), Some(json!("all"))),
    };
    let order = Order {
        action: action.to_owned(),
        target,
        agents,
        on,
        duration,
        reason,
        arguments,
        trace: given.trace,
        break_glass: false,
        filing: Filing::default(),
    };
    let response = match engine.respond(order, once, by).await {
        Ok(response) => response,
        Err(refusal) => return refused(refusal),
    };
    let number = engine.rule_number(response, id, by).await?;
    let row = responses::find(&engine.db, response).await?.ok_or(StoreError::NotFound)?;
    Ok(made(&row, command.requested).with("slpf", json!({"rule_number": number})))
}

/// What became of a response that a command has made.
fn made(row: &ResponseRow, requested: ResponseRequested) -> OpenC2Answer {
    let id = &row.id;
    let (status, text) = match row.state {
        ResponseState::Active if requested == ResponseRequested::Ack => {
            (OpenC2Status::Processing, format!("committed as response {id}"))
        }
        ResponseState::Active => {
            let text = format!("committed as response {id}; agents that are away get it when they come back");
            (OpenC2Status::Ok, text)
        }
        ResponseState::AwaitingApproval => {
            (OpenC2Status::Processing, format!("response {id} is awaiting_approval: {}", row.detail))
        }
        ResponseState::Ended => (OpenC2Status::Ok, format!("response {id} has ended: {}", row.detail)),
        ResponseState::Rejected | ResponseState::Lapsed => {
            (OpenC2Status::Forbidden, format!("response {id} was {}: {}", row.state.as_str(), row.detail))
        }
        ResponseState::Spared | ResponseState::Observed => {
            (OpenC2Status::Unavailable, format!("response {id} does not act ({}): {}", row.state.as_str(), row.detail))
        }
    };
    OpenC2Answer::new(status, text)
}

/// What a refusal is in OpenC2's words; one that is not about the command stays an error.
fn refused(refusal: Refusal) -> Carried {
    match refusal {
        Refusal::Invalid(faults) => {
            let told: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
            Ok(OpenC2Answer::bad(told.join("; ")))
        }
        Refusal::NotFound(what) => Ok(OpenC2Answer::nowhere(what)),
        Refusal::Conflict(why) => Ok(OpenC2Answer::bad(why)),
        Refusal::KeyReused => Ok(OpenC2Answer::bad("/command_id was used for another command; send a new one")),
        other => Err(other.into()),
    }
}

/// Ends the active responses with one of `actions` that a filter finds on an agent; on all without one.
async fn end_matching(
    state: &AppState,
    by: &Principal,
    filter: ResponseFilter,
    actions: &[&str],
    agent: Result<Option<Uuid>, OpenC2Answer>,
) -> Carried {
    let engine = &state.engine;
    let agent = match agent {
        Ok(agent) => agent,
        Err(fault) => return Ok(fault),
    };
    let filter = ResponseFilter { state: Some(ResponseState::Active), ..filter };
    let rows = responses::list(&engine.db, filter, None, MAX_ENDED).await?;
    let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= MAX_ENDED;
    let (mut ends, mut wider) = (Vec::new(), Vec::new());
    for row in rows {
        if !actions.contains(&row.action.as_str()) {
            continue;
        }
        match engine.check_scope_of_response(&row, by) {
            Ok(()) => {}
            Err(Refusal::NotFound(_) | Refusal::Forbidden(_)) => continue,
            Err(other) => return Err(other.into()),
        }
        let agents: Vec<Uuid> = row.agents.read().map_err(StoreError::from)?;
        let id: Uuid = row.id.parse().map_err(|error| ApiError::internal(&error))?;
        match agent {
            Some(agent) if !agents.contains(&agent) => {}
            Some(_) if agents.len() > 1 => wider.push(row.id),
            _ => ends.push(id),
        }
    }
    if let Some(id) = wider.first() {
        let count = wider.len();
        return Ok(OpenC2Answer::beyond(format!(
            "{count} responses act on other hosts too, such as {id}, and end only as a whole: leave the actuator out"
        )));
    }
    if is_full {
        return Ok(OpenC2Answer::beyond(format!("more than {MAX_ENDED} responses match; lift them in Riposte")));
    }
    let count = ends.len();
    if count > 0 {
        let detail = "OpenC2 command".to_owned();
        engine.writer.release(ends, ResponseEnd { reason: EndReason::Lifted, detail, by: by.at() }).await?;
    }
    Ok(OpenC2Answer::new(OpenC2Status::Ok, format!("{count} responses were lifted")))
}

/// Ends one response: lifts it, or rejects it if it waits.
async fn end_one(state: &AppState, caller: &OpenC2Caller<Read>, found: Option<Uuid>, unknown: &str) -> Carried {
    let (engine, by) = (&state.engine, caller.principal());
    let row = match found {
        Some(id) => responses::find(&engine.db, id).await?,
        None => None,
    };
    let Some(row) = row else { return Ok(OpenC2Answer::nowhere(unknown)) };
    match engine.check_scope_of_response(&row, by) {
        Ok(()) => {}
        Err(Refusal::NotFound(_)) => return Ok(OpenC2Answer::nowhere(unknown)),
        Err(other) => return Err(other.into()),
    }
    let id: Uuid = row.id.parse().map_err(|error| ApiError::internal(&error))?;
    let reason = "OpenC2 command".to_owned();
    match row.state {
        ResponseState::Active => {
            let why = ResponseEnd { reason: EndReason::Lifted, detail: reason, by: by.at() };
            engine.writer.release(vec![id], why).await?;
            Ok(OpenC2Answer::new(OpenC2Status::Ok, format!("response {id} was lifted")))
        }
        ResponseState::AwaitingApproval => {
            caller.may(Right::Approve)?;
            let per_hour = by.scopes.responses_per_hour();
            let said = ApprovalDecision { decision: Decision::Reject, break_glass: false, per_hour, reason };
            match engine.decide_response(id, said, by).await? {
                ApprovalOutcome::Counted | ApprovalOutcome::Carried => {
                    Ok(OpenC2Answer::new(OpenC2Status::Ok, format!("response {id} was rejected")))
                }
                ApprovalOutcome::NotYours | ApprovalOutcome::OwnPolicy => {
                    let why = "awaits approval, and acts only then: another person must reject it";
                    Ok(OpenC2Answer::new(OpenC2Status::Forbidden, format!("response {id} {why}")))
                }
                ApprovalOutcome::NotWaiting | ApprovalOutcome::Full(_) => {
                    Ok(OpenC2Answer::bad(format!("response {id} does not wait any more; send the command again")))
                }
            }
        }
        other => Ok(OpenC2Answer::new(OpenC2Status::Ok, format!("response {id} is over: {}", other.as_str()))),
    }
}
