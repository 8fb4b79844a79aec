//! `riposte response`: what was decided and what became of it, on each agent. Only words of the manager are shown: what is
//! called in force is what `GET /v1/responses` calls so.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Remote, segment};
use super::policy::cell;
use super::say;
use super::terminal::{plain, table};
use crate::domain::response::ResponseState;

/// The most agents of which a manager tells with one response.
const TOLD: usize = 500;

/// Responses.
#[derive(Debug, Subcommand)]
pub enum ResponseCommand {
    /// List responses, newest first.
    List(ResponseList),
    /// Show one response: its agents, results, evidence, and who approved or lifted it.
    Show(OneResponse),
}

/// Which responses.
#[derive(Debug, Args)]
pub struct ResponseList {
    #[command(flatten)]
    remote: Remote,
    /// In this state.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(ResponseState::ALL.map(ResponseState::as_str)))]
    state: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Print JSON, one response a line.
    #[arg(long)]
    json: bool,
}

/// Which response.
#[derive(Debug, Args)]
pub struct OneResponse {
    #[command(flatten)]
    remote: Remote,
    /// Its id.
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON, with the audit log's entries as `history`.
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or knows no such response.
pub async fn run(command: ResponseCommand) -> anyhow::Result<ExitCode> {
    match command {
        ResponseCommand::List(args) => list(args).await?,
        ResponseCommand::Show(args) => show(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ResponseList) -> anyhow::Result<()> {
    let ResponseList { remote, state, limit, json } = args;
    let of = state.map_or_else(String::new, |state| format!("&state={state}"));
    let page = remote.page(&format!("/v1/responses?limit={limit}{of}")).await?;
    let responses = array(&page, "items");
    if json {
        for response in responses {
            say(&response.to_string());
        }
        return Ok(());
    }
    let keys = key_names(&remote, responses.iter().map(|response| &response["requested_by"])).await;
    let rows: Vec<Vec<String>> = responses
        .iter()
        .map(|response| {
            vec![
                cell(&response["id"]),
                cell(&response["created_at"]),
                by(response, &keys),
                cell(&response["action"]),
                aim(response),
                state_of(response),
                outcome(response),
                until(response),
            ]
        })
        .collect();
    table(&["id", "when", "by", "action", "target", "state", "outcome", "until"], &rows);
    if page["next_cursor"].is_string() {
        say(&format!("older responses are not shown; --limit COUNT shows more than {limit}, up to 500"));
    }
    Ok(())
}

async fn show(args: OneResponse) -> anyhow::Result<()> {
    let OneResponse { remote, id, json } = args;
    let mut response = remote.get(&format!("/v1/responses/{}", segment(&id))).await?;
    let mut history = remote.items(&format!("/v1/audit?noun=response&noun_id={}", segment(&id))).await?;
    history.reverse();
    if json {
        response["history"] = history.into();
        say(&response.to_string());
        return Ok(());
    }
    let agents = remote.items("/v1/agents?revoked=true").await?;
    let agents = agents.iter().filter_map(|agent| Some((agent["id"].as_str()?.to_owned(), cell(&agent["name"]))));
    let actors = history.iter().map(|entry| &entry["actor"]).chain([&response["requested_by"]]);
    let names = Names { keys: key_names(&remote, actors).await, agents: agents.collect() };
    for line in text(&response, &history, &names) {
        say(&plain(&line));
    }
    Ok(())
}

/// What ids are called.
#[derive(Debug, Default)]
struct Names {
    keys: HashMap<String, String>,
    agents: HashMap<String, String>,
}

impl Names {
    fn agent(&self, id: &Value) -> String {
        let id = cell(id);
        self.agents.get(&id).cloned().unwrap_or(id)
    }
}

/// The names of API keys, if one of `actors` is a key and the caller may list them; else keys stay ids.
async fn key_names<'a>(remote: &Remote, actors: impl Iterator<Item = &'a Value>) -> HashMap<String, String> {
    let mut actors = actors.filter_map(Value::as_str);
    if !actors.any(|actor| actor.starts_with("key:")) {
        return HashMap::new();
    }
    let keys = remote.items("/v1/api-keys").await.unwrap_or_default();
    keys.iter().map(|key| (format!("key:{}", cell(&key["id"])), cell(&key["name"]))).collect()
}

/// Who: `alice (key:ID)`, or `policy:NAME`, `agent:ID` and `riposte` as they are.
fn actor(word: &str, keys: &HashMap<String, String>) -> String {
    keys.get(word).map_or_else(|| word.to_owned(), |name| format!("{name} ({word})"))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn by(response: &Value, keys: &HashMap<String, String>) -> String {
    match response["policy"].as_str() {
        Some(policy) => format!("policy {policy}"),
        None => actor(&cell(&response["requested_by"]), keys),
    }
}

fn aim(response: &Value) -> String {
    let words = [&response["target_kind"], &response["target_value"]].into_iter().filter_map(Value::as_str);
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

fn state_of(response: &Value) -> String {
    let reason = response["reason"].as_str().map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{}{reason}", cell(&response["state"]))
}

/// What became of it, with the counts by agent: `partly: in_force 2, failed 1`; `-` for one that did not act.
fn outcome(response: &Value) -> String {
    let Some(outcome) = response["outcome"].as_str() else { return "-".to_owned() };
    let counts = &response["agents_by_outcome"];
    let count = |key: &str| counts[key].as_i64().filter(|count| *count > 0).map(|count| format!("{key} {count}"));
    let counts: Vec<String> = ["in_force", "pending", "failed", "lifted"].into_iter().filter_map(count).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    let unverified = response["agents_unverified"].as_i64().filter(|count| *count > 0);
    let unverified = unverified.map_or_else(String::new, |count| format!(" ({count} unverified)"));
    format!("{outcome}{counts}{unverified}")
}

fn until(response: &Value) -> String {
    match (response["until"].as_str(), response["state"].as_str()) {
        (Some(until), _) => until.to_owned(),
        (None, Some("active" | "awaiting_approval")) if response["one_shot"] != true => "lifted by hand".to_owned(),
        (None, _) => "-".to_owned(),
    }
}

/// A response below its alert: what it does, where it stands, what became of it and why.
pub(super) fn below_alert(response: &Value) -> Vec<String> {
    let policy = cell(&response["policy"]);
    let (id, action, target) = (cell(&response["id"]), cell(&response["action"]), aim(response));
    let mut lines = vec![format!("  response {id}  {policy}: {action} {target}")];
    let detail = response["detail"].as_str().filter(|detail| !detail.is_empty());
    let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
    lines.push(format!("    state    {}{detail}", state_of(response)));
    if response["outcome"].is_string() {
        lines.push(format!("    outcome  {}", outcome(response)));
    }
    lines.extend(array(response, "agent_outcomes").iter().map(|agent| format!("      {}", of_agent(agent))));
    lines
}

/// `web-01: failed: refused: an address of this host`.
fn of_agent(agent: &Value) -> String {
    let outcome = cell(&agent["outcome"]).replace('_', " ");
    format!("{}: {outcome}: {}", cell(&agent["agent"]), cell(&agent["reason"]))
}

fn text(response: &Value, history: &[Value], names: &Names) -> Vec<String> {
    let mut lines = vec![format!("response {}", cell(&response["id"]))];
    facts(response, names, &mut lines);
    lines.push("agents:".into());
    agents(response, names, &mut lines);
    lines.push("commands and results:".into());
    commands(response, names, &mut lines);
    lines.push("history:".into());
    for entry in history {
        let (at, verb) = (cell(&entry["at"]), cell(&entry["verb"]));
        let detail = entry["detail"].as_str().filter(|detail| !detail.is_empty());
        let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
        let who = match entry["actor"].as_str().and_then(|actor| actor.split_once("agent:")) {
            Some(("", id)) => format!("agent {}", names.agent(&id.into())),
            _ => actor(&cell(&entry["actor"]), &names.keys),
        };
        lines.push(format!("  {at}  {verb} by {who}{detail}"));
    }
    lines
}

fn facts(response: &Value, names: &Names, lines: &mut Vec<String>) {
    let mut fact = |name: &str, value: String| {
        if !matches!(value.as_str(), "-" | "" | "[]") {
            lines.push(format!("  {name:10} {value}"));
        }
    };
    let detail = response["detail"].as_str().filter(|detail| !detail.is_empty());
    let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
    fact("state", format!("{}{detail}", state_of(response)));
    fact("outcome", outcome(response));
    let version =
        response["policy_version"].as_i64().map_or_else(String::new, |version| format!(", version {version}"));
    fact("decided", format!("{} by {}{version}", cell(&response["created_at"]), by(response, &names.keys)));
    fact("note", cell(&response["note"]));
    fact("alert", cell(&response["alert_id"]));
    fact("action", cell(&response["action"]));
    fact("target", aim(response));
    fact("arguments", response["arguments"].to_string());
    fact("until", until(response));
    fact("ended", cell(&response["ended_at"]));
    if let Some(quorum) = response["quorum"].as_i64() {
        fact("approvals", format!("{quorum} needed"));
    }
    fact("answer by", cell(&response["answer_by"]));
    fact("confirm by", cell(&response["confirm_by"]));
    fact("trace", cell(&response["trace"]));
}

/// Every agent once: first those of which the manager says something, then those as their effects are.
fn agents(response: &Value, names: &Names, lines: &mut Vec<String>) {
    let told = array(response, "agent_outcomes");
    lines.extend(told.iter().map(|agent| format!("  {}", of_agent(agent))));
    let effects: HashMap<&str, &Value> =
        array(response, "effects").iter().filter_map(|effect| Some((effect["agent_id"].as_str()?, effect))).collect();
    for id in array(response, "agents") {
        if told.iter().any(|agent| agent["agent_id"] == *id) {
            continue;
        }
        let effect = id.as_str().and_then(|id| effects.get(id));
        let stands = match effect.and_then(|effect| effect["actual"].as_str()) {
            _ if response["outcome"].is_null() => "was not asked".to_owned(),
            // The manager says no more than that of one response; what it left out may be anything.
            _ if told.len() >= TOLD => format!("not shown: the manager tells of {TOLD} agents of a response at most"),
            None => "nothing is known of it yet".to_owned(),
            Some("in_force") => "in force, verified".to_owned(),
            Some("absent") => "lifted".to_owned(),
            Some(actual) => actual.replace('_', " "),
        };
        lines.push(format!("  {}: {stands}", names.agent(id)));
    }
    if array(response, "agents").is_empty() {
        lines.push("  none".into());
    }
}

/// Each command, oldest first, with what its agent said of it.
fn commands(response: &Value, names: &Names, lines: &mut Vec<String>) {
    let results: HashMap<&str, &Value> =
        array(response, "results").iter().filter_map(|result| Some((result["command_id"].as_str()?, result))).collect();
    for command in array(response, "commands").iter().rev() {
        let (agent, op, state) = (names.agent(&command["agent_id"]), cell(&command["op"]), cell(&command["state"]));
        let at = ["finished_at", "acknowledged_at", "delivered_at", "created_at"];
        let at = at.into_iter().find_map(|key| command[key].as_str()).unwrap_or("-");
        let detail = command["detail"].as_str().filter(|detail| !detail.is_empty());
        let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
        let result = command["id"].as_str().and_then(|id| results.get(id));
        let Some(result) = result else {
            lines.push(format!("  {at}  {agent}: {op} {state}{detail}"));
            continue;
        };
        let code = result["exit_code"].as_i64().map_or_else(String::new, |code| format!(", exit code {code}"));
        let verified = match (result["observed"].as_bool(), result["verified"].as_bool()) {
            (Some(true), _) => ", only observed",
            (_, Some(true)) => ", verified",
            (_, Some(false)) => ", looked at and not as it should be",
            (_, None) => "",
        };
        lines.push(format!("  {at}  {agent}: {op} {state}{code}{verified}{detail}"));
        lines.extend(result["message"].as_str().filter(|text| !text.is_empty()).map(|text| format!("    {text}")));
        let output = result["output"].as_str().unwrap_or_default();
        lines.extend(output.lines().map(|line| format!("    | {line}")));
        evidence(&result["evidence"], lines);
    }
    if array(response, "commands").is_empty() {
        lines.push("  none".into());
    }
}

/// What the agent found before it acted.
fn evidence(found: &Value, lines: &mut Vec<String>) {
    let Some(fields) = found.as_object() else { return };
    lines.push("    evidence:".into());
    for (name, value) in fields {
        match value.as_array() {
            Some(items) if items.iter().any(Value::is_object) => {
                lines.push(format!("      {name}:"));
                lines.extend(items.iter().map(|item| format!("        {item}")));
            }
            _ => lines.push(format!("      {name}: {}", cell(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(id, name)| ((*id).into(), (*name).into())).collect();
        Names { keys: own(&[("key:abc", "alice")]), agents: own(&[("1", "web-01"), ("2", "web-02"), ("3", "web-03")]) }
    }

    fn partly() -> Value {
        json!({"id": "r", "state": "active", "reason": null, "detail": "", "policy": "drop", "policy_version": 3,
            "requested_by": "policy:drop", "created_at": "T0", "until": "T9", "action": "kill-process", "target_kind": "process",
            "target_value": "4711", "arguments": ["name=sh"], "agents": ["1", "2", "3"], "one_shot": false, "note": "",
            "outcome": "partly", "agents_by_outcome": {"in_force": 2, "pending": 0, "failed": 1, "lifted": 0},
            "agents_unverified": 1,
            "agent_outcomes": [{"agent_id": "2", "agent": "web-02", "outcome": "failed", "reason": "refused: protected"},
                {"agent_id": "3", "agent": "web-03", "outcome": "in_force", "reason": "unverified: by the word of what was run"}],
            "effects": [{"agent_id": "1", "actual": "in_force"}],
            "commands": [{"id": "c2", "agent_id": "2", "op": "apply", "state": "queued", "detail": "", "created_at": "T2"},
                {"id": "c1", "agent_id": "1", "op": "apply", "state": "succeeded", "detail": "", "finished_at": "T1"}],
            "results": [{"command_id": "c1", "exit_code": 0, "output": "one\ntwo\n", "verified": true, "message": "done",
                "observed": false, "evidence": {"executable": "/bin/sh", "sockets": [{"remote": "203.0.113.7:443"}]}}]})
    }

    #[test]
    fn a_response_is_shown_with_everything_that_became_of_it() {
        let history = [
            json!({"at": "T0", "verb": "created", "actor": "policy:drop", "detail": ""}),
            json!({"at": "T5", "verb": "lifted", "actor": "key:abc", "detail": "a mistake"}),
        ];
        insta::assert_snapshot!(text(&partly(), &history, &names()).join("\n"), @r#"
        response r
          state      active
          outcome    partly: in_force 2, failed 1 (1 unverified)
          decided    T0 by policy drop, version 3
          action     kill-process
          target     process 4711
          arguments  ["name=sh"]
          until      T9
        agents:
          web-02: failed: refused: protected
          web-03: in force: unverified: by the word of what was run
          web-01: in force, verified
        commands and results:
          T1  web-01: apply succeeded, exit code 0, verified
            done
            | one
            | two
            evidence:
              executable: /bin/sh
              sockets:
                {"remote":"203.0.113.7:443"}
          T2  web-02: apply queued
        history:
          T0  created by policy:drop
          T5  lifted by alice (key:abc): a mistake
        "#);
    }

    #[test]
    fn what_did_not_act_is_not_shown_as_protection() {
        let mut spared = partly();
        for (key, value) in [("state", json!("spared")), ("reason", json!("protected")), ("outcome", Value::Null)] {
            spared[key] = value;
        }
        spared["agents_by_outcome"] = Value::Null;
        spared["agent_outcomes"] = json!([]);
        spared["until"] = Value::Null;
        assert_eq!(
            (outcome(&spared), state_of(&spared), until(&spared)),
            ("-".into(), "spared (protected)".into(), "-".into())
        );
        let shown = text(&spared, &[], &names()).join("\n");
        assert!(shown.contains("web-01: was not asked") && !shown.contains("in force"), "{shown}");
        let mut by_hand = partly();
        (by_hand["policy"], by_hand["requested_by"]) = (Value::Null, "key:abc".into());
        by_hand["until"] = Value::Null;
        assert_eq!((by(&by_hand, &names().keys), until(&by_hand)), ("alice (key:abc)".into(), "lifted by hand".into()));
        assert_eq!(by(&by_hand, &HashMap::new()), "key:abc");
    }

    #[test]
    fn an_alert_shows_what_became_of_its_responses() {
        let shown = below_alert(&partly()).join("\n");
        insta::assert_snapshot!(shown, @r"
          response r  drop: kill-process process 4711
            state    active
            outcome  partly: in_force 2, failed 1 (1 unverified)
              web-02: failed: refused: protected
              web-03: in force: unverified: by the word of what was run
        ");
    }
}
