//! `riposte response`: what was decided and what became of it, on each agent. Only words of the manager are shown: what is
//! called in force is what `GET /v1/responses` calls so.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use serde_json::{Map, Value};

use super::client::Remote;
use super::complete;
use super::night::phrases::{aim, state_of};
use super::night::resolve;
use super::night::timeline::{self, ConfirmArgs, TimelineArgs};
use super::night::unblock::{self, LiftArgs};
use super::reply::Said;
use super::shown::{ListForm, ShownArgs, WatchedArgs};
use super::terminal::cell;
use crate::domain::actor::Actor;
use crate::domain::effect::Actual;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::response::ResponseState;
use crate::views::agents::AgentView;
use crate::views::audit::AuditRow;
use crate::views::columns::JsonText;
use crate::views::effects::EffectRow;
use crate::views::keys::KeyRow;
use crate::views::page::Page;
use crate::views::responses::{AgentOutcomeView, JudgedResponse, OutcomeView, ResponseRow, ResponseView};

/// The most agents of which a manager tells with one response.
const TOLD: usize = 500;

/// Responses.
#[derive(Debug, Subcommand)]
pub enum ResponseCommand {
    /// List responses, newest first.
    List(ResponseList),
    /// Show one response: its agents, results, evidence, and who approved or lifted it.
    Show(OneResponse),
    /// Show what happened to one response, in the order of time.
    Timeline(TimelineArgs),
    /// Confirm a response that acted first, so that it is not undone.
    Confirm(ConfirmArgs),
    /// End a response now: what no other response holds is lifted on every agent.
    Lift(LiftArgs),
}

/// Which responses.
#[derive(Debug, Args)]
pub struct ResponseList {
    #[command(flatten)]
    watched: WatchedArgs,
    /// In this state.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(ResponseState::ALL.map(ResponseState::as_str)))]
    state: Option<String>,
}

/// Which response.
#[derive(Debug, Args)]
pub struct OneResponse {
    #[command(flatten)]
    shown: ShownArgs,
    /// Its id, or a part of it.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::responses))]
    id: String,
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, refuses, or knows no such response.
pub async fn run(command: ResponseCommand) -> anyhow::Result<ExitCode> {
    match command {
        ResponseCommand::List(args) => args.watched.again(async || list(&args).await).await?,
        ResponseCommand::Show(args) => show(args).await?,
        ResponseCommand::Timeline(args) => timeline::timeline(args).await?,
        ResponseCommand::Confirm(args) => return timeline::confirm(args).await,
        ResponseCommand::Lift(args) => return unblock::lift(args).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &ResponseList) -> anyhow::Result<()> {
    let ResponseList { watched, state } = args;
    let remote = &watched.shown.remote;
    let of = state.as_ref().map_or_else(String::new, |state| format!("&state={state}"));
    let page: Page<Said<JudgedResponse>> = remote.get(&format!("/v1/responses?limit={}{of}", watched.limit)).await?;
    let requesters = page.items.iter().map(|said| said.view.response.requested_by.as_str());
    let keys = key_names(remote, requesters).await;
    let form = ListForm {
        noun: ("response", "responses"),
        head: &["id", "when", "by", "action", "target", "state", "outcome", "until"],
        more: &["alert", "note", "detail"],
        row: &|JudgedResponse { response, outcome, .. }: &JudgedResponse| {
            vec![
                response.id.clone(),
                response.created_at.to_string(),
                by(response, &keys),
                response.action.clone(),
                aim(response),
                state_of(response),
                came_to(outcome),
                until(response),
                cell(response.alert_id.as_ref()),
                cell(Some(&response.note)),
                cell(Some(&response.detail)),
            ]
        },
        name: &|judged: &JudgedResponse| judged.response.id.clone(),
    };
    watched.shown.print(&page.items, &form, &watched.more(page.next_cursor.is_some(), "responses"))
}

/// A response with its entries of the audit log, as `-o json` prints it.
#[derive(Serialize)]
struct WithHistory<'a> {
    #[serde(flatten)]
    response: &'a Value,
    history: &'a [Said<AuditRow>],
}

async fn show(args: OneResponse) -> anyhow::Result<()> {
    let OneResponse { shown, id: word } = args;
    let remote = &shown.remote;
    let id = resolve::response(remote, &word, "").await?;
    let Said { json, view }: Said<ResponseView> = remote.get(&format!("/v1/responses/{id}")).await?;
    let mut history: Vec<Said<AuditRow>> = remote.items(&format!("/v1/audit?noun=response&noun_id={id}")).await?;
    history.reverse();
    let json = serde_json::to_value(WithHistory { response: &json, history: &history })?;
    let said = Said { json, view };
    if !shown.is_for_people() {
        return shown.print_one(&said, &id, |_| Vec::new());
    }
    let agents: Vec<AgentView> = remote.items("/v1/agents?revoked=true").await?;
    let history: Vec<AuditRow> = history.into_iter().map(|entry| entry.view).collect();
    let requester = said.view.response.response.requested_by.as_str();
    let actors = history.iter().map(|entry| entry.actor.as_str()).chain([requester]);
    let keys = key_names(remote, actors).await;
    let agents = agents.into_iter().map(|view| (view.agent.id, view.agent.name)).collect();
    let lines = text(&said.view, &history, &Names { keys, agents })?;
    shown.print_one(&said, &id, |_| lines)
}

/// What ids are called.
#[derive(Debug, Default)]
struct Names {
    keys: HashMap<String, String>,
    agents: HashMap<String, String>,
}

impl Names {
    fn agent<'a>(&'a self, id: &'a str) -> &'a str {
        self.agents.get(id).map_or(id, String::as_str)
    }
}

/// The names of API keys, if one of `actors` is a key and the caller may list them; else keys stay ids.
async fn key_names<'a>(remote: &Remote, mut actors: impl Iterator<Item = &'a str>) -> HashMap<String, String> {
    if !actors.any(|actor| matches!(Actor::parse(actor), Some(Actor::Key(_)))) {
        return HashMap::new();
    }
    let keys: Vec<KeyRow> = remote.items("/v1/api-keys").await.unwrap_or_default();
    keys.into_iter().map(|key| (Actor::Key(key.id).to_string(), key.name)).collect()
}

/// Who: `alice (key:ID)`, or `policy:NAME`, `agent:ID` and `riposte` as they are.
fn actor(word: &str, keys: &HashMap<String, String>) -> String {
    keys.get(word).map_or_else(|| word.to_owned(), |name| format!("{name} ({word})"))
}

fn by(response: &ResponseRow, keys: &HashMap<String, String>) -> String {
    match &response.policy {
        Some(policy) => format!("policy {policy}"),
        None => actor(&response.requested_by, keys),
    }
}

/// What became of it, with the counts by agent: `partly: in_force 2, failed 1`; `-` for one that did not act.
fn came_to(view: &OutcomeView) -> String {
    let Some(outcome) = view.outcome else { return "-".to_owned() };
    let OutcomeCounts { in_force, pending, failed, lifted } = view.agents_by_outcome.unwrap_or_default();
    let counts = [("in_force", in_force), ("pending", pending), ("failed", failed), ("lifted", lifted)];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(word, count)| format!("{word} {count}")).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    let unverified = Some(view.agents_unverified).filter(|count| *count > 0);
    let unverified = unverified.map_or_else(String::new, |count| format!(" ({count} unverified)"));
    format!("{}{counts}{unverified}", outcome.as_str())
}

fn until(response: &ResponseRow) -> String {
    match (response.until, response.state) {
        (Some(until), _) => until.to_string(),
        (None, ResponseState::Active | ResponseState::AwaitingApproval) if !response.one_shot => {
            "lifted by hand".to_owned()
        }
        (None, _) => "-".to_owned(),
    }
}

/// `: because`, if there is a reason.
fn colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// A response below its alert: what it does, where it stands, what became of it and why.
pub(super) fn below_alert(judged: &JudgedResponse) -> Vec<String> {
    let JudgedResponse { response, outcome, .. } = judged;
    let (id, action, policy) = (&response.id, &response.action, cell(response.policy.as_ref()));
    let mut lines = vec![format!("  response {id}  {policy}: {action} {}", aim(response))];
    lines.push(format!("    state    {}{}", state_of(response), colon(&response.detail)));
    if outcome.outcome.is_some() {
        lines.push(format!("    outcome  {}", came_to(outcome)));
    }
    lines.extend(outcome.agent_outcomes.iter().map(|agent| format!("      {}", of_agent(agent))));
    lines
}

/// `web-01: failed: refused: an address of this host`.
fn of_agent(view: &AgentOutcomeView) -> String {
    let outcome = view.outcome.as_str().replace('_', " ");
    format!("{}: {outcome}: {}", view.agent, view.reason)
}

fn text(view: &ResponseView, history: &[AuditRow], names: &Names) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![format!("response {}", view.response.response.id)];
    facts(&view.response, names, &mut lines);
    lines.push("agents:".into());
    agents(view, names, &mut lines)?;
    lines.push("commands and results:".into());
    commands(view, names, &mut lines)?;
    lines.push("history:".into());
    for AuditRow { at, verb, actor: who, detail, .. } in history {
        let who = match Actor::parse(who) {
            Some(Actor::Agent(id)) => format!("agent {}", names.agent(&id.to_string())),
            _ => actor(who, &names.keys),
        };
        lines.push(format!("  {at}  {verb} by {who}{}", colon(detail)));
    }
    Ok(lines)
}

fn facts(judged: &JudgedResponse, names: &Names, lines: &mut Vec<String>) {
    let JudgedResponse { response, outcome, d3fend } = judged;
    let mut fact = |name: &str, value: String| {
        if !matches!(value.as_str(), "-" | "" | "[]") {
            lines.push(format!("  {name:10} {value}"));
        }
    };
    fact("state", format!("{}{}", state_of(response), colon(&response.detail)));
    fact("outcome", came_to(outcome));
    let version = response.policy_version.map_or_else(String::new, |version| format!(", version {version}"));
    fact("decided", format!("{} by {}{version}", response.created_at, by(response, &names.keys)));
    fact("note", response.note.clone());
    fact("alert", cell(response.alert_id.as_ref()));
    fact("action", response.action.clone());
    fact("target", aim(response));
    fact("arguments", response.arguments.as_str().to_owned());
    fact("until", until(response));
    fact("ended", cell(response.ended_at));
    if let Some(quorum) = response.quorum {
        fact("approvals", format!("{quorum} needed"));
    }
    fact("answer by", cell(response.answer_by));
    fact("confirm by", cell(response.confirm_by));
    let mitre = response.mitre.as_ref().map(|mitre| mitre.read::<Vec<String>>().map(|ids| ids.join(", ")));
    fact("ATT&CK", mitre.and_then(Result::ok).unwrap_or_default());
    fact("D3FEND", d3fend.join(", "));
    fact("trace", cell(response.trace.as_ref()));
}

/// Every agent once: first those of which the manager says something, then those as their effects are.
fn agents(view: &ResponseView, names: &Names, lines: &mut Vec<String>) -> anyhow::Result<()> {
    let JudgedResponse { response, outcome, .. } = &view.response;
    let told = &outcome.agent_outcomes;
    lines.extend(told.iter().map(|agent| format!("  {}", of_agent(agent))));
    let effects: HashMap<&str, &EffectRow> =
        view.effects.iter().map(|effect| (effect.agent_id.as_str(), effect)).collect();
    let all: Vec<String> = response.agents.read()?;
    for id in &all {
        if told.iter().any(|agent| agent.agent_id == *id) {
            continue;
        }
        let stands = match effects.get(id.as_str()).map(|effect| effect.actual) {
            _ if outcome.outcome.is_none() => "was not asked".to_owned(),
            // The manager says no more than that of one response; what it left out may be anything.
            _ if told.len() >= TOLD => format!("not shown: the manager tells of {TOLD} agents of a response at most"),
            None => "nothing is known of it yet".to_owned(),
            Some(Actual::InForce) => "in force, verified".to_owned(),
            Some(Actual::Absent) => "lifted".to_owned(),
            Some(actual @ (Actual::Unknown | Actual::Drifted)) => actual.as_str().to_owned(),
        };
        lines.push(format!("  {}: {stands}", names.agent(id)));
    }
    if all.is_empty() {
        lines.push("  none".into());
    }
    Ok(())
}

/// Each command, oldest first, with what its agent said of it.
fn commands(view: &ResponseView, names: &Names, lines: &mut Vec<String>) -> anyhow::Result<()> {
    let results: HashMap<&str, _> = view.results.iter().map(|result| (result.command_id.as_str(), result)).collect();
    for command in view.commands.iter().rev() {
        let (agent, op, state) = (names.agent(&command.agent_id), command.op.as_str(), command.state.as_str());
        let changed = command.finished_at.or(command.acknowledged_at).or(command.delivered_at);
        let (at, detail) = (changed.unwrap_or(command.created_at), colon(&command.detail));
        let Some(result) = results.get(command.id.as_str()) else {
            lines.push(format!("  {at}  {agent}: {op} {state}{detail}"));
            continue;
        };
        let code = result.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
        let verified = match (result.observed, result.verified) {
            (true, _) => ", only observed",
            (_, Some(true)) => ", verified",
            (_, Some(false)) => ", looked at and not as it should be",
            (_, None) => "",
        };
        lines.push(format!("  {at}  {agent}: {op} {state}{code}{verified}{detail}"));
        if !result.message.is_empty() {
            lines.push(format!("    {}", result.message));
        }
        lines.extend(result.output.lines().map(|line| format!("    | {line}")));
        if let Some(found) = &result.evidence {
            evidence(found, lines)?;
        }
    }
    if view.commands.is_empty() {
        lines.push("  none".into());
    }
    Ok(())
}

/// What the agent found before it acted: each action has fields of its own.
fn evidence(found: &JsonText, lines: &mut Vec<String>) -> anyhow::Result<()> {
    lines.push("    evidence:".into());
    for (name, value) in found.read::<Map<String, Value>>()? {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                lines.push(format!("      {name}:"));
                lines.extend(items.iter().map(|item| format!("        {item}")));
            }
            Value::String(text) => lines.push(format!("      {name}: {}", cell(Some(text)))),
            other => lines.push(format!("      {name}: {}", cell(Some(other).filter(|value| !value.is_null())))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(id, name)| ((*id).into(), (*name).into())).collect();
        Names { keys: own(&[("key:abc", "alice")]), agents: own(&[("1", "web-01"), ("2", "web-02"), ("3", "web-03")]) }
    }

    /// A time, this many minutes past ten.
    fn at(minute: u8) -> String {
        format!("2026-11-24T10:{minute:02}:00.000Z")
    }

    fn partly() -> ResponseView {
        let command = |id: &str, agent: &str, state: &str| {
            json!({"id": id, "agent_id": agent, "seq": 1, "effect_id": "e", "response_id": "r", "op": "apply",
                "action": "kill-process", "target_kind": "process", "target_value": "4711", "arguments": [], "state": state,
                "detail": "", "created_at": at(2), "deliveries": 0, "finished_at": (state == "succeeded").then(|| at(1))})
        };
        let view = json!({"id": "r", "state": "active", "reason": null, "detail": "", "policy": "drop", "policy_version": 3,
            "requested_by": "policy:drop", "created_at": at(0), "until": at(9), "action": "kill-process",
            "target_kind": "process", "target_value": "4711", "arguments": ["name=sh"], "agents": ["1", "2", "3"],
            "one_shot": false, "note": "",
            "outcome": "partly", "agents_by_outcome": {"in_force": 2, "pending": 0, "failed": 1, "lifted": 0},
            "agents_unverified": 1,
            "agent_outcomes": [{"agent_id": "2", "agent": "web-02", "outcome": "failed", "reason": "refused: protected"},
                {"agent_id": "3", "agent": "web-03", "outcome": "in_force", "reason": "unverified: by the word of what was run"}],
            "effects": [{"id": "e", "agent_id": "1", "action": "kill-process", "target_kind": "process", "target_value": "4711",
                "desired": "in_force", "actual": "in_force", "failed_reverts": 0, "created_at": at(0), "changed_at": at(1),
                "last_reason": "", "agent_revoked": false}],
            "commands": [command("c2", "2", "queued"), command("c1", "1", "succeeded")],
            "results": [{"command_id": "c1", "outcome": "succeeded", "exit_code": 0, "output": "one\ntwo\n", "verified": true,
                "message": "done", "observed": false, "started_at": at(1), "finished_at": at(1), "received_at": at(1),
                "evidence": {"executable": "/bin/sh", "sockets": [{"remote": "203.0.113.7:443"}]}}],
            "answers": []});
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn a_response_is_shown_with_everything_that_became_of_it() {
        let entry = |minute: u8, verb: &str, actor: &str, detail: &str| -> AuditRow {
            let entry = json!({"seq": 1, "at": at(minute), "verb": verb, "actor": actor, "detail": detail, "noun": "response",
                "noun_id": "r", "hash": ""});
            serde_json::from_value(entry).unwrap()
        };
        let history = [entry(0, "created", "policy:drop", ""), entry(5, "lifted", "key:abc", "a mistake")];
        let shown = text(&partly(), &history, &names()).unwrap().join("\n");
        insta::assert_snapshot!(shown.replace("2026-11-24T", "").replace(":00.000Z", ""), @r#"
        response r
          state      active
          outcome    partly: in_force 2, failed 1 (1 unverified)
          decided    10:00 by policy drop, version 3
          action     kill-process
          target     process 4711
          arguments  ["name=sh"]
          until      10:09
        agents:
          web-02: failed: refused: protected
          web-03: in force: unverified: by the word of what was run
          web-01: in force, verified
        commands and results:
          10:01  web-01: apply succeeded, exit code 0, verified
            done
            | one
            | two
            evidence:
              executable: /bin/sh
              sockets:
                {"remote":"203.0.113.7:443"}
          10:02  web-02: apply queued
        history:
          10:00  created by policy:drop
          10:05  lifted by alice (key:abc): a mistake
        "#);
    }

    #[test]
    fn what_did_not_act_is_not_shown_as_protection() {
        let mut spared = partly();
        spared.response.outcome =
            OutcomeView { outcome: None, agents_by_outcome: None, agents_unverified: 0, agent_outcomes: Vec::new() };
        let row = &mut spared.response.response;
        (row.state, row.reason, row.until) = (ResponseState::Spared, Some("protected".to_owned()), None);
        assert_eq!(
            (came_to(&spared.response.outcome), state_of(row), until(row)),
            ("-".into(), "spared (protected)".into(), "-".into())
        );
        let shown = text(&spared, &[], &names()).unwrap().join("\n");
        assert!(shown.contains("web-01: was not asked") && !shown.contains("in force"), "{shown}");
        let mut by_hand = partly().response.response;
        (by_hand.policy, by_hand.requested_by, by_hand.until) = (None, "key:abc".to_owned(), None);
        assert_eq!((by(&by_hand, &names().keys), until(&by_hand)), ("alice (key:abc)".into(), "lifted by hand".into()));
        assert_eq!(by(&by_hand, &HashMap::new()), "key:abc");
    }

    #[test]
    fn an_alert_shows_what_became_of_its_responses() {
        let shown = below_alert(&partly().response).join("\n");
        insta::assert_snapshot!(shown, @r"
          response r  drop: kill-process process 4711
            state    active
            outcome  partly: in_force 2, failed 1 (1 unverified)
              web-02: failed: refused: protected
              web-03: in force: unverified: by the word of what was run
        ");
    }
}
