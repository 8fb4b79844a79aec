//! `riposte policy explain`: the responses to an alert, and every policy's decision on it now.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::Explain;
use crate::cli::client::{Remote, segment};
use crate::cli::output::{complain, say};
use crate::cli::reply::Said;
use crate::cli::terminal::{Tone, cell, plain, shade};
use crate::views::explain::{Explanation, PolicyVerdict, SelectorVerdict};
use crate::views::responses::JudgedResponse;

/// Runs the command.
pub(super) async fn run(args: Explain) -> anyhow::Result<ExitCode> {
    let Explain { remote, alert, policy, json } = args;
    let mut explanation = ask(&remote, &alert).await?;
    if let Some(policy) = &policy {
        explanation = of_policy(explanation.json, policy)?;
        if explanation.view.now.is_empty() {
            complain(&format!("riposte: there is no policy called {policy}"));
            return Ok(ExitCode::FAILURE);
        }
    }
    print(&explanation, json);
    Ok(ExitCode::SUCCESS)
}

/// The explanation of an alert, by Riposte's id or the pipeline's.
///
/// # Errors
/// If the manager cannot be reached, or does not have the alert.
pub(crate) async fn ask(remote: &Remote, alert: &str) -> anyhow::Result<Said<Explanation>> {
    remote.get(&format!("/v1/alerts/{}/explain", segment(alert))).await
}

/// The lists of an explanation, which can be cut; the rest stays as the manager said it.
#[derive(Serialize, Deserialize)]
struct Lists {
    decided: Vec<Said<JudgedResponse>>,
    now: Vec<Said<PolicyVerdict>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The part of an explanation that is about `policy`.
fn of_policy(json: Value, policy: &str) -> anyhow::Result<Said<Explanation>> {
    let mut lists: Lists = serde_json::from_value(json)?;
    lists.decided.retain(|decided| decided.view.response.policy.as_deref() == Some(policy));
    lists.now.retain(|verdict| verdict.view.policy == policy);
    Ok(serde_json::from_value(serde_json::to_value(lists)?)?)
}

/// Prints an explanation.
pub(crate) fn print(explanation: &Said<Explanation>, json: bool) {
    if json {
        say(&explanation.json.to_string());
    } else {
        for (tone, line) in text(&explanation.view) {
            shade(tone, &plain(&line));
        }
    }
}

fn text(explanation: &Explanation) -> Vec<(Tone, String)> {
    let Explanation { alert_id, origin, origin_ambiguous, decided, now } = explanation;
    let no_agent = || match origin_ambiguous {
        Some(why) => format!("no single agent ({why})"),
        None => "no enrolled agent".to_owned(),
    };
    let origin = origin.map_or_else(no_agent, |id| format!("agent {id}"));
    let mut lines = vec![(Tone::Quiet, format!("alert {alert_id}, from {origin}"))];
    let mut say = |tone: Tone, line: String| lines.push((tone, line));
    say(Tone::Quiet, "decided at intake:".into());
    if decided.is_empty() {
        say(Tone::Quiet, "  no response".into());
    }
    for JudgedResponse { response, outcome, .. } in decided {
        let target = response.target_value.as_deref().filter(|value| !value.is_empty());
        let aimed = target.map_or_else(String::new, |target| format!(" {target}"));
        let why = match (&response.reason, response.detail.as_str()) {
            (Some(reason), "") => format!(" ({reason})"),
            (Some(reason), detail) => format!(" ({reason}: {detail})"),
            (None, _) => String::new(),
        };
        let (policy, version) = (cell(response.policy.as_ref()), cell(response.policy_version));
        let (action, state) = (&response.action, response.state.as_str());
        // The outcome on its agents: an active response may not be in force.
        let came_to = outcome.outcome.map(|outcome| format!(", {}", outcome.as_str().replace('_', " ")));
        let came_to = came_to.unwrap_or_default();
        say(Tone::Quiet, format!("  {policy}, version {version}: {action}{aimed}, {state}{came_to}{why}"));
        for agent in &outcome.agent_outcomes {
            say(Tone::Quiet, format!("    {}: {}", agent.agent, agent.reason));
        }
    }
    say(Tone::Quiet, "decided now:".into());
    if now.is_empty() {
        say(Tone::Quiet, "  there are no policies".into());
    }
    for PolicyVerdict { policy, version, fires, selectors, verdict, reason } in now {
        if *fires {
            let comes_to = match verdict.as_deref() {
                Some("act") => "it would act".to_owned(),
                Some("ask") => "it would wait for approval".to_owned(),
                Some("observe") => "it would be recorded only".to_owned(),
                Some("spare") => format!("it would be spared: {}", cell(reason.as_ref())),
                other => other.unwrap_or_default().to_owned(),
            };
            say(Tone::Good, format!("  {policy}, version {version}: fires; {comes_to}"));
        } else {
            say(Tone::Quiet, format!("  {policy}, version {version}: does not fire"));
        }
        if selectors.is_empty() {
            say(Tone::Quiet, "    it has no selector".into());
        }
        for (index, SelectorVerdict { holds, because }) in selectors.iter().enumerate() {
            let why = if *holds { "holds".into() } else { cell(because.as_ref()) };
            say(Tone::Quiet, format!("    /match/{index}: {why}"));
        }
    }
    lines
}
