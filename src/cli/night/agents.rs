//! `riposte agent show`, `label` and `revoke`: one agent by its name, and what changes it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use clap_complete::ArgValueCompleter;
use reqwest::Method;
use riposte_protocol::message::{Capability, Platform};
use riposte_protocol::time::{Timestamp, difference};

use super::change::ConsentArgs;
use super::phrases::{ago, counted, len};
use super::resolve;
use crate::cli::client::{NO_BODY, Remote};
use crate::cli::complete;
use crate::cli::output::say;
use crate::cli::reply::Said;
use crate::cli::shown::ShownArgs;
use crate::cli::terminal::plain;
use crate::clock::Clock;
use crate::domain::effect::Actual;
use crate::domain::presence::Presence;
use crate::views::agents::{AgentView, ChangeAgent};
use crate::views::commands::CommandRow;
use crate::views::effects::EffectRow;
use crate::views::page::Page;

/// Which agent.
#[derive(Debug, Args)]
pub struct OneAgent {
    #[command(flatten)]
    shown: ShownArgs,
    /// Agent, by name, id, or a part of the id.
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    agent: String,
}

/// Which agent, and what of its labels changes.
#[derive(Debug, Args)]
pub struct LabelAgent {
    #[command(flatten)]
    consent: ConsentArgs,
    /// Agent, by name, id, or a part of the id.
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    agent: String,
    /// KEY=VALUE or KEY-; may be repeated.
    #[arg(value_name = "LABEL", required = true)]
    labels: Vec<String>,
}

/// Which agent is revoked.
#[derive(Debug, Args)]
pub struct RevokeAgent {
    #[command(flatten)]
    consent: ConsentArgs,
    /// Agent, by name, id, or a part of the id.
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    agent: String,
}

/// What an agent holds, and what waits for it.
struct Held {
    effects: Page<EffectRow>,
    waiting: Page<CommandRow>,
}

impl Held {
    async fn of(remote: &Remote, id: &str) -> anyhow::Result<Self> {
        let effects = remote.get(&format!("/v1/effects?agent_id={id}&desired=in_force&limit=500")).await?;
        let waiting = remote.get(&format!("/v1/commands?agent_id={id}&state=queued&limit=500")).await?;
        Ok(Self { effects, waiting })
    }

    /// `12 effects, 1 drifted`.
    fn effects(&self) -> String {
        let of = |actual| self.effects.items.iter().filter(|effect| effect.actual == actual).count();
        let parts = [(of(Actual::Drifted), "drifted"), (of(Actual::Unknown), "not reported in force yet")];
        let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!(", {count} {word}"));
        format!("{}{}", some(&self.effects, "effect", "effects"), parts.collect::<String>())
    }
}

/// The number of a page's items; `500 or more` if there are further pages.
fn some<T>(page: &Page<T>, one: &str, many: &str) -> String {
    let count = len(&page.items);
    if page.next_cursor.is_some() { format!("{count} {many} or more") } else { counted(count, one, many) }
}

/// `riposte agent show`
///
/// # Errors
/// If the manager cannot be asked, or knows no such agent.
pub async fn show(args: OneAgent) -> anyhow::Result<ExitCode> {
    let OneAgent { shown, agent } = args;
    let id = resolve::agent(&shown.remote, &agent).await?;
    let said: Said<AgentView> = shown.remote.get(&format!("/v1/agents/{id}")).await?;
    let name = said.view.agent.name.clone();
    if !shown.is_for_people() {
        shown.print_one(&said, &name, |_| Vec::new())?;
        return Ok(ExitCode::SUCCESS);
    }
    let held = Held::of(&shown.remote, &id).await?;
    let lines = text(&said.view, &held, Clock::system().now())?;
    shown.print_one(&said, &name, |_| lines)?;
    Ok(ExitCode::SUCCESS)
}

fn text(view: &AgentView, held: &Held, now: Timestamp) -> anyhow::Result<Vec<String>> {
    let AgentView { agent, presence, away_since, rejecting, wazuh_claim, .. } = view;
    let mut lines = vec![format!("agent {}", agent.name)];
    let mut fact = |name: &str, value: String| lines.push(format!("  {name:10} {value}"));
    fact("id", agent.id.clone());
    fact(
        "presence",
        match (agent.revoked_at, presence, away_since) {
            (Some(at), ..) => format!("revoked {}", ago(at, now)),
            (None, Presence::Away, _) if agent.last_seen_at.is_none() => "away; it has never connected".to_owned(),
            (None, Presence::Away, Some(since)) => format!("away since {since}, {}", ago(*since, now)),
            (None, presence, _) => presence.as_str().to_owned(),
        },
    );
    if let Some(at) = agent.last_seen_at {
        fact("last seen", format!("{at}, {}", ago(at, now)));
    }
    let Platform { os, arch, version } = agent.platform.read()?;
    fact("version", format!("{} on {os} {version} ({arch})", agent.version));
    let labels: BTreeMap<String, String> = agent.labels.read()?;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    fact("labels", if labels.is_empty() { "none".to_owned() } else { labels.join(" ") });
    fact("enrolled", agent.enrolled_at.to_string());
    if let Some(since) = agent.key_since {
        let ordered = agent.key_ordered_at.map_or_else(String::new, |at| format!(", ordered to rotate {at}"));
        fact("key since", format!("{since}{ordered}"));
    }
    for incident in [&agent.incident, rejecting].into_iter().flatten() {
        fact("INCIDENT", incident.clone());
    }
    if let Some(ahead) = agent.clock_skew_seconds.filter(|ahead| *ahead != 0) {
        fact("clock", format!("{} the manager's", difference(ahead.saturating_mul(1000))));
    }
    if let Some(claim) = wazuh_claim {
        let doubt = claim.doubt.as_deref().unwrap_or("no list of a Wazuh manager is there yet");
        fact("in Wazuh", format!("says it is {} ({}): {doubt}", claim.id, claim.name));
    }
    fact("holds", held.effects());
    fact("waits", some(&held.waiting, "command", "commands"));
    lines.push("can carry out:".to_owned());
    let capabilities: Vec<Capability> = agent.capabilities.read()?;
    if capabilities.is_empty() {
        lines.push("  nothing, as far as it has said".to_owned());
    }
    for Capability { action, available, reason } in &capabilities {
        let why = reason.as_deref().filter(|reason| !reason.is_empty());
        lines.push(match (available, why) {
            (true, None) => format!("  {action}"),
            (true, Some(why)) => format!("  {action}: {why}"),
            (false, why) => format!("  {action}: NO, {}", why.unwrap_or("it does not say why")),
        });
    }
    Ok(lines)
}

/// `riposte agent label`
///
/// # Errors
/// If a label is not one, or the manager cannot be asked or refuses.
pub async fn label(args: LabelAgent) -> anyhow::Result<ExitCode> {
    let LabelAgent { consent, agent, labels } = args;
    let changes: Vec<(String, Option<String>)> =
        labels.iter().map(|label| read(label)).collect::<anyhow::Result<_>>()?;
    let path = format!("/v1/agents/{}", resolve::agent(&consent.remote, &agent).await?);
    let view: AgentView = consent.remote.get(&path).await?;
    let mut plan = vec![format!("labels of {}; later responses choose agents by the new ones:", view.agent.name)];
    plan.extend(planned(&view.agent.labels.read()?, &changes));
    if let Some(code) = consent.stops(&plan, &format!("label {}?", view.agent.name)) {
        return Ok(code);
    }
    let labels = changes.into_iter().map(|(key, value)| (key, value.into())).collect();
    let body = ChangeAgent { labels };
    let changed: AgentView = consent.remote.send(Method::PATCH, &path, None, Some(&body)).await?.done()?;
    say(&plain(&format!("{} {}", changed.agent.name, changed.agent.labels.as_str())));
    Ok(ExitCode::SUCCESS)
}

/// A label and its value; none to remove it.
fn read(change: &str) -> anyhow::Result<(String, Option<String>)> {
    match (change.split_once('='), change.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) => Ok((key.to_owned(), None)),
        (None, None) => bail!("{change:?} is neither KEY=VALUE nor KEY-"),
    }
}

fn planned(present: &BTreeMap<String, String>, changes: &[(String, Option<String>)]) -> Vec<String> {
    let line = |(label, wanted): &(String, Option<String>)| match (present.get(label), wanted) {
        (Some(is), Some(wanted)) if is == wanted => format!("  {label}={wanted} stays"),
        (Some(was), Some(wanted)) => format!("  {label}={wanted}, was {was}"),
        (None, Some(wanted)) => format!("  {label}={wanted} is new"),
        (Some(was), None) => format!("  {label} is removed, was {was}"),
        (None, None) => format!("  {label} is not there"),
    };
    changes.iter().map(line).collect()
}

/// `riposte agent revoke`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn revoke(args: RevokeAgent) -> anyhow::Result<ExitCode> {
    let RevokeAgent { consent, agent } = args;
    let id = resolve::agent(&consent.remote, &agent).await?;
    let path = format!("/v1/agents/{id}");
    let view: AgentView = consent.remote.get(&path).await?;
    let name = &view.agent.name;
    if let Some(at) = view.agent.revoked_at {
        bail!("{name} was revoked {at}; `riposte agent list` lists the agents");
    }
    let held = Held::of(&consent.remote, &id).await?;
    if let Some(code) = consent.stops(&losses(name, &held), &format!("revoke {name}?")) {
        return Ok(code);
    }
    consent.remote.send(Method::DELETE, &path, None, NO_BODY).await?.accepted()?;
    say(&plain(&format!("{name} is revoked; `riposte agent token` makes a token to enrol its host anew")));
    Ok(ExitCode::SUCCESS)
}

/// What a revocation ends, and what stays on the host.
fn losses(name: &str, held: &Held) -> Vec<String> {
    let mut plan = vec![
        format!("revokes {name}: it gets no command any more, and its host must enrol anew"),
        format!("  holds      {}", held.effects()),
        format!("  cancelled  {}", some(&held.waiting, "queued command", "queued commands")),
    ];
    if !held.effects.items.is_empty() {
        plan.push("  If the agent still runs, it lifts effects with an end on time.".to_owned());
    }
    let by_hand: Vec<&EffectRow> = held.effects.items.iter().filter(|effect| effect.until.is_none()).collect();
    if !by_hand.is_empty() {
        let many = counted(len(&by_hand), "effect has no end and STAYS", "effects have no end and STAY");
        plan.push(format!("  {many} on its host: lift before (`riposte unblock`):"));
        plan.extend(by_hand.iter().take(10).map(|effect| format!("    {} {}", effect.action, effect.target_value)));
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held() -> Held {
        let effect = |actual: &str, until: Option<&str>| {
            json!({"id": "e", "agent_id": "1", "action": "firewall-drop", "target_kind": "ip",
                "target_value": "203.0.113.7\u{1b}[2J", "desired": "in_force", "actual": actual, "failed_reverts": 0, "until": until,
                "created_at": "2026-11-24T09:00:00.000Z", "changed_at": "2026-11-24T09:00:00.000Z", "last_reason": "",
                "agent_revoked": false})
        };
        let effects = json!({"items": [effect("in_force", Some("2026-11-24T10:00:00.000Z")), effect("drifted", None)],
            "next_cursor": "more"});
        let effects = serde_json::from_value(effects).unwrap();
        Held { effects, waiting: Page { items: Vec::new(), next_cursor: None } }
    }

    #[test]
    fn an_agent_is_shown_with_what_it_cannot_do_and_why() {
        let view: AgentView = serde_json::from_value(json!({"id": "1", "name": "web-01", "public_key": "",
            "labels": {"env": "prod", "role": "a\u{202e}b"}, "platform": {"os": "linux", "arch": "x86_64", "version": "Debian 13"},
            "version": "0.1.0", "capabilities": [{"action": "firewall-drop", "available": false, "reason": "nft is missing"},
            {"action": "log-only", "available": true}], "enrolled_at": "2026-11-24T09:00:00.000Z", "rejected_orders": 0,
            "streaming": false, "presence": "away", "away_since": "2026-11-24T09:20:00.000Z",
            "last_seen_at": "2026-11-24T09:20:00.000Z", "incident": "a clone", "clock_skew_seconds": 90}))
        .unwrap();
        let now = "2026-11-24T10:00:00.000Z".parse().unwrap();
        let lines: Vec<String> = text(&view, &held(), now).unwrap().iter().map(|line| plain(line)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_plan_says_what_a_label_was_and_what_a_revocation_leaves_behind() {
        let present = BTreeMap::from([("env".to_owned(), "test".to_owned()), ("role".to_owned(), "web".to_owned())]);
        let changes = ["env=prod", "role=web", "team=a=b", "role-", "gone-"].map(|label| read(label).unwrap());
        let lines = planned(&present, &changes);
        assert_eq!(
            lines,
            [
                "  env=prod, was test",
                "  role=web stays",
                "  team=a=b is new",
                "  role is removed, was web",
                "  gone is not there"
            ]
        );
        assert!(read("env").unwrap_err().to_string().contains("neither KEY=VALUE nor KEY-"));
        let lines: Vec<String> = losses("web-01", &held()).iter().map(|line| plain(line)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
