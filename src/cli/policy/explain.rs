//! `riposte policy explain`: the responses to an alert, and every policy's decision on it now.

use std::process::ExitCode;

use serde_json::Value;

use super::Explain;
use super::stored::cell;
use crate::cli::client::segment;
use crate::cli::terminal::{Tone, plain, shade};
use crate::cli::{complain, say};

/// Runs the command.
pub(super) async fn run(args: Explain) -> anyhow::Result<ExitCode> {
    let Explain { remote, alert, policy, json } = args;
    let mut explanation = remote.get(&format!("/v1/alerts/{}/explain", segment(&alert))).await?;
    if let Some(policy) = &policy {
        for part in ["decided", "now"] {
            if let Some(list) = explanation[part].as_array_mut() {
                list.retain(|entry| entry["policy"] == policy.as_str());
            }
        }
        if explanation["now"].as_array().is_none_or(Vec::is_empty) {
            complain(&format!("riposte: there is no policy called {policy}"));
            return Ok(ExitCode::FAILURE);
        }
    }
    print(&explanation, json);
    Ok(ExitCode::SUCCESS)
}

/// Prints an explanation.
pub(crate) fn print(explanation: &Value, json: bool) {
    if json {
        say(&explanation.to_string());
    } else {
        for (tone, line) in text(explanation) {
            shade(tone, &plain(&line));
        }
    }
}

fn text(explanation: &Value) -> Vec<(Tone, String)> {
    let no_agent = || match explanation["origin_ambiguous"].as_str() {
        Some(why) => format!("no single agent ({why})"),
        None => "no enrolled agent".to_owned(),
    };
    let origin = explanation["origin"].as_str().map_or_else(no_agent, |id| format!("agent {id}"));
    let mut lines = vec![(Tone::Quiet, format!("alert {}, from {origin}", cell(&explanation["alert_id"])))];
    let mut say = |tone: Tone, line: String| lines.push((tone, line));
    say(Tone::Quiet, "decided at intake:".into());
    let decided = explanation["decided"].as_array().map(Vec::as_slice).unwrap_or_default();
    if decided.is_empty() {
        say(Tone::Quiet, "  no response".into());
    }
    for response in decided {
        let target = response["target_value"].as_str().filter(|value| !value.is_empty());
        let aimed = target.map_or_else(String::new, |target| format!(" {target}"));
        let why = match (response["reason"].as_str(), response["detail"].as_str()) {
            (Some(reason), None | Some("")) => format!(" ({reason})"),
            (Some(reason), Some(detail)) => format!(" ({reason}: {detail})"),
            (None, _) => String::new(),
        };
        let (policy, version) = (cell(&response["policy"]), cell(&response["policy_version"]));
        let (action, state) = (cell(&response["action"]), cell(&response["state"]));
        // The outcome on its agents: an active response may not be in force.
        let outcome = response["outcome"].as_str();
        let outcome = outcome.map_or_else(String::new, |outcome| format!(", {}", outcome.replace('_', " ")));
        say(Tone::Quiet, format!("  {policy}, version {version}: {action}{aimed}, {state}{outcome}{why}"));
        for agent in response["agent_outcomes"].as_array().map(Vec::as_slice).unwrap_or_default() {
            say(Tone::Quiet, format!("    {}: {}", cell(&agent["agent"]), cell(&agent["reason"])));
        }
    }
    say(Tone::Quiet, "decided now:".into());
    let now = explanation["now"].as_array().map(Vec::as_slice).unwrap_or_default();
    if now.is_empty() {
        say(Tone::Quiet, "  there are no policies".into());
    }
    for verdict in now {
        let (policy, version) = (cell(&verdict["policy"]), cell(&verdict["version"]));
        if verdict["fires"] == true {
            let comes_to = match verdict["verdict"].as_str() {
                Some("act") => "it would act".to_owned(),
                Some("ask") => "it would wait for approval".to_owned(),
                Some("observe") => "it would be recorded only".to_owned(),
                Some("spare") => format!("it would be spared: {}", cell(&verdict["reason"])),
                other => other.unwrap_or_default().to_owned(),
            };
            say(Tone::Good, format!("  {policy}, version {version}: fires; {comes_to}"));
        } else {
            say(Tone::Quiet, format!("  {policy}, version {version}: does not fire"));
        }
        let selectors = verdict["selectors"].as_array().map(Vec::as_slice).unwrap_or_default();
        if selectors.is_empty() {
            say(Tone::Quiet, "    it has no selector".into());
        }
        for (index, selector) in selectors.iter().enumerate() {
            let why = if selector["holds"] == true { "holds".into() } else { cell(&selector["because"]) };
            say(Tone::Quiet, format!("    /match/{index}: {why}"));
        }
    }
    lines
}
