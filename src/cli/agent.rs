//! `riposte agent`: enrolment tokens, labels, and where agents are.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use reqwest::Method;
use riposte_protocol::time::difference;

use super::client::{NO_BODY, Remote};
use super::complete;
use super::listing::Listing;
use super::night::agents::{self, LabelAgent, OneAgent, RevokeAgent};
use super::night::effects::{self, DriftArgs};
use super::night::resolve;
use super::output::say;
use super::shown::ListForm;
use super::terminal::plain;
use crate::domain::duration::Span;
use crate::domain::presence::Presence;
use crate::views::agents::{AgentView, CreateToken, CreatedToken};
use crate::views::nodes::Node;

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
        expires_in: Span,
        /// Label of agents that enrol with it, KEY=VALUE; may be repeated.
        #[arg(long = "label")]
        labels: Vec<String>,
    },
    /// Show one agent: where it is, what it can do and why not, what it holds and what waits for it.
    Show(OneAgent),
    /// Change an agent's labels: KEY=VALUE sets a label, KEY- removes it.
    Label(LabelAgent),
    /// Revoke an agent: it gets no command any more.
    Revoke(RevokeAgent),
    /// Order an agent to replace its own key.
    RotateKey {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Agent, by name or id.
        #[arg(add = ArgValueCompleter::new(complete::agents))]
        agent: String,
    },
    /// List the agents.
    List {
        /// Which manager, and how to print it.
        #[command(flatten)]
        listing: Listing,
        /// Only those of another version than the manager, without revoked ones.
        #[arg(long)]
        outdated: bool,
        /// Only those that are away, without revoked ones.
        #[arg(short, long)]
        away: bool,
    },
    /// List effects that an agent has lost, though they are wanted.
    Drift(DriftArgs),
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: AgentCommand) -> anyhow::Result<ExitCode> {
    match command {
        AgentCommand::Token { remote, uses, expires_in, labels } => token(remote, uses, expires_in, labels).await,
        AgentCommand::Show(args) => agents::show(args).await,
        AgentCommand::Label(args) => agents::label(args).await,
        AgentCommand::Revoke(args) => agents::revoke(args).await,
        AgentCommand::RotateKey { remote, agent } => rotate_key(remote, agent).await,
        AgentCommand::Drift(args) => effects::drift(args).await,
        AgentCommand::List { listing, outdated, away } => {
            let version = if outdated { Some(manager_version(&listing.shown.remote).await?) } else { None };
            let is_away = |view: &AgentView| view.agent.revoked_at.is_none() && view.presence == Presence::Away;
            let is_listed = |view: &AgentView| {
                version.as_ref().is_none_or(|version| is_outdated(view, version)) && (!away || is_away(view))
            };
            listing.print_where("/v1/agents", &AGENTS, is_listed).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The version of the manager that is asked, which may not be this program's.
async fn manager_version(remote: &Remote) -> anyhow::Result<String> {
    let nodes: Vec<Node> = remote.items("/v1/nodes").await?;
    let asked = nodes.into_iter().find(|node| node.asked);
    Ok(asked.context("the manager does not say its version; ask one of this version")?.version)
}

fn is_outdated(view: &AgentView, version: &str) -> bool {
    view.agent.revoked_at.is_none() && view.agent.version != version
}

/// `riposte agent token`
async fn token(remote: Remote, uses: i64, expires_in: Span, labels: Vec<String>) -> anyhow::Result<ExitCode> {
    let pairs = labels.iter().map(|label| {
        let (key, value) = label.split_once('=').with_context(|| format!("a label is KEY=VALUE, not {label}"))?;
        Ok((key.to_owned(), value.into()))
    });
    let body = CreateToken { labels: pairs.collect::<anyhow::Result<_>>()?, uses, expires_in };
    let created: CreatedToken = remote.post("/v1/enrollment-tokens", &body).await?;
    say(&plain(&created.token.context("the manager returned no token")?));
    Ok(ExitCode::SUCCESS)
}

/// `riposte agent rotate-key`
async fn rotate_key(remote: Remote, agent: String) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/agents/{}/rotate-key", resolve::agent(&remote, &agent).await?);
    let AgentView { agent, presence, .. } = remote.send(Method::POST, &path, None, NO_BODY).await?.done()?;
    let when = if presence == Presence::Away { "when it connects" } else { "now" };
    say(&plain(&format!("{} replaces its key {when}; `riposte agent list` shows since when it has one", agent.name)));
    Ok(ExitCode::SUCCESS)
}

/// How agents are listed.
const AGENTS: ListForm<'_, AgentView> = ListForm {
    noun: ("agent", "agents"),
    head: &["id", "presence", "last seen", "name", "version", "key since", "labels"],
    more: &["enrolled", "platform"],
    row: &agent_row,
    name: &|view: &AgentView| view.agent.name.clone(),
};

fn agent_row(view: &AgentView) -> Vec<String> {
    let AgentView { agent, presence, away_since, rejecting, wazuh_claim, .. } = view;
    let here = match (presence, away_since) {
        _ if let Some(at) = agent.revoked_at => format!("revoked {at}"),
        // Where nothing was heard, that it is away says nothing more; `away_since` is its enrolment then.
        (Presence::Away, Some(since)) if agent.last_seen_at.is_some() => format!("away since {since}"),
        (presence, _) => presence.as_str().to_owned(),
    };
    let seen = agent.last_seen_at.map_or_else(|| "never connected".to_owned(), |at| at.to_string());
    let incidents = [&agent.incident, rejecting].into_iter().flatten();
    let incident: String = incidents.map(|what| format!("  INCIDENT: {what}")).collect();
    let skew = agent.clock_skew_seconds.filter(|ahead| *ahead != 0);
    let clock = skew.map_or_else(String::new, |ahead| {
        format!("  its clock is {} the manager's", difference(ahead.saturating_mul(1000)))
    });
    let claim = wazuh_claim.as_ref().map_or_else(String::new, |claim| {
        let doubt = claim.doubt.as_deref().unwrap_or("no list of a Wazuh manager is there yet");
        format!("  says it is {} ({}) in Wazuh: {doubt}", claim.id, claim.name)
    });
    let labels = format!("{}{claim}{incident}{clock}", agent.labels.as_str());
    let ordered = agent.key_ordered_at.map_or_else(String::new, |at| format!(", ordered to rotate {at}"));
    // Older managers do not say.
    let key = agent.key_since.map_or_else(|| "?".to_owned(), |since| format!("{since}{ordered}"));
    let (enrolled, platform) = (agent.enrolled_at.to_string(), agent.platform.as_str().to_owned());
    vec![agent.id.clone(), here, seen, agent.name.clone(), agent.version.clone(), key, labels, enrolled, platform]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The row of an agent with these fields beside the usual ones.
    fn row(more: &Value) -> Vec<String> {
        let mut agent = json!({"id": "1", "name": "web-01", "public_key": "", "labels": {"env": "prod"}, "platform": {},
            "version": "0.1.0", "capabilities": [], "enrolled_at": "2026-11-24T09:00:00.000Z", "rejected_orders": 0,
            "streaming": false, "presence": "away"});
        agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        agent_row(&serde_json::from_value(agent).unwrap())
    }

    #[test]
    fn a_polling_agent_is_not_shown_as_away() {
        let since = "2026-11-24T10:00:00.000Z";
        let table = [
            (json!({"presence": "polling", "away_since": null}), "polling"),
            (json!({"presence": "streaming", "streaming": true}), "streaming"),
            (
                json!({"presence": "away", "away_since": since, "last_seen_at": since}),
                "away since 2026-11-24T10:00:00.000Z",
            ),
            (json!({"presence": "away", "away_since": since, "last_seen_at": null}), "away"),
            (json!({"presence": "away", "revoked_at": since}), "revoked 2026-11-24T10:00:00.000Z"),
        ];
        for (agent, shown) in table {
            assert_eq!(row(&agent)[1], shown, "{agent}");
        }
        let seen = |at: Value| row(&json!({ "last_seen_at": at }))[2].clone();
        assert_eq!((seen(Value::Null), seen(since.into())), ("never connected".into(), since.into()));
        let shown = row(&json!({"incident": "a clone", "rejecting": "a signature", "clock_skew_seconds": 90}));
        assert_eq!(
            shown[6],
            r#"{"env":"prod"}  INCIDENT: a clone  INCIDENT: a signature  its clock is 90 s ahead of the manager's"#
        );
    }
}
