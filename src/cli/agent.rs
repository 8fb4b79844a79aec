//! `riposte agent`: enrolment tokens, labels, and where agents are.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use reqwest::Method;
use riposte_protocol::time::difference;
use serde_json::{Map, Value};

use super::client::Remote;
use super::say;
use super::terminal::{plain, table};

/// Agents.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Create an enrolment token and print it.
    Token {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Maximum number of enrolments.
        #[arg(long, default_value_t = 1)]
        uses: i64,
        /// Validity.
        #[arg(long, default_value = "1h")]
        expires_in: String,
        /// Label of agents that enrol with it, KEY=VALUE; may be repeated.
        #[arg(long = "label")]
        labels: Vec<String>,
    },
    /// Change an agent's labels: KEY=VALUE sets a label, KEY- removes it.
    Label {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Agent, by name or id.
        agent: String,
        /// KEY=VALUE or KEY-; may be repeated.
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// List the agents.
    List {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: AgentCommand) -> anyhow::Result<ExitCode> {
    match command {
        AgentCommand::Token { remote, uses, expires_in, labels } => token(remote, uses, expires_in, labels).await,
        AgentCommand::Label { remote, agent, labels } => label(remote, agent, labels).await,
        AgentCommand::List { remote, json } => list(remote, json).await,
    }
}

/// `riposte agent token`
async fn token(remote: Remote, uses: i64, expires_in: String, labels: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut object = Map::new();
    for label in labels {
        let (key, value) = label.split_once('=').with_context(|| format!("a label is KEY=VALUE, not {label}"))?;
        object.insert(key.to_owned(), value.into());
    }
    let body = serde_json::json!({"labels": object, "uses": uses, "expires_in": expires_in});
    let answer = remote.post("/v1/enrollment-tokens", body).await?;
    say(&plain(answer["token"].as_str().context("the manager returned no token")?));
    Ok(ExitCode::SUCCESS)
}

/// `riposte agent label`
async fn label(remote: Remote, agent: String, changes: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut labels = Map::new();
    for change in &changes {
        match (change.split_once('='), change.strip_suffix('-')) {
            (Some((key, value)), _) => labels.insert(key.to_owned(), value.into()),
            (None, Some(key)) => labels.insert(key.to_owned(), Value::Null),
            (None, None) => bail!("{change:?} is neither KEY=VALUE nor KEY-"),
        };
    }
    let is_id = agent.parse::<uuid::Uuid>().is_ok();
    let agents = if is_id { Vec::new() } else { remote.items("/v1/agents").await? };
    let found = agents.iter().find(|one| one["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(&agent)));
    let id = match found {
        _ if is_id => agent.as_str(),
        Some(found) => found["id"].as_str().context("the manager's answer has no id")?,
        None => bail!("no agent called {agent} is enrolled; `riposte agent list` lists them"),
    };
    let body = serde_json::json!({ "labels": labels });
    let changed = remote.ask(Method::PATCH, &format!("/v1/agents/{id}"), Some(body)).await?;
    say(&plain(&format!("{} {}", changed["name"].as_str().unwrap_or(id), changed["labels"])));
    Ok(ExitCode::SUCCESS)
}

/// `riposte agent list`
async fn list(remote: Remote, json: bool) -> anyhow::Result<ExitCode> {
    let agents = remote.items("/v1/agents").await?;
    if json {
        for agent in &agents {
            say(&agent.to_string());
        }
    } else {
        let rows: Vec<Vec<String>> = agents.iter().map(agent_row).collect();
        table(&AGENT_COLUMNS, &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands above the agents.
const AGENT_COLUMNS: [&str; 6] = ["id", "presence", "last seen", "name", "version", "labels"];

fn agent_row(agent: &Value) -> Vec<String> {
    let text = |key: &str| agent[key].as_str().unwrap_or("-").to_owned();
    let seen = agent["last_seen_at"].as_str();
    let here = match (agent["presence"].as_str(), agent["away_since"].as_str()) {
        _ if agent["revoked_at"].is_string() => format!("revoked {}", text("revoked_at")),
        // Where nothing was heard, that it is away says nothing more; `away_since` is its enrolment then.
        (Some("away"), Some(_)) if seen.is_none() => "away".to_owned(),
        (Some("away"), Some(since)) => format!("away since {since}"),
        (Some(presence), _) => presence.to_owned(),
        // Older managers do not report presence.
        (None, _) if agent["streaming"] == true => "streaming".to_owned(),
        (None, _) => "not streaming".to_owned(),
    };
    let seen = seen.unwrap_or("never connected").to_owned();
    let incidents = ["incident", "rejecting"].into_iter().filter_map(|key| agent[key].as_str());
    let incident: String = incidents.map(|what| format!("  INCIDENT: {what}")).collect();
    let skew = agent["clock_skew_seconds"].as_i64().filter(|ahead| *ahead != 0);
    let clock = skew.map_or_else(String::new, |ahead| {
        format!("  its clock is {} the manager's", difference(ahead.saturating_mul(1000)))
    });
    let labels = format!("{}{incident}{clock}", agent["labels"]);
    vec![text("id"), here, seen, text("name"), text("version"), labels]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_polling_agent_is_not_shown_as_away() {
        let here = |agent: &Value| agent_row(agent)[1].clone();
        let since = "2026-11-24T10:00:00.000Z";
        let table = [
            (json!({"id": "1", "presence": "polling", "away_since": null, "streaming": false}), "polling"),
            (json!({"id": "1", "presence": "streaming", "streaming": true}), "streaming"),
            (
                json!({"id": "1", "presence": "away", "away_since": since, "last_seen_at": since}),
                "away since 2026-11-24T10:00:00.000Z",
            ),
            (json!({"id": "1", "presence": "away", "away_since": since, "last_seen_at": null}), "away"),
            (json!({"id": "1", "streaming": true}), "streaming"),
            (json!({"id": "1", "streaming": false}), "not streaming"),
        ];
        for (agent, shown) in table {
            assert_eq!(here(&agent), shown, "{agent}");
        }
        let seen = |at: Value| agent_row(&json!({"id": "1", "presence": "away", "last_seen_at": at}))[2].clone();
        assert_eq!((seen(Value::Null), seen(since.into())), ("never connected".into(), since.into()));
    }
}
