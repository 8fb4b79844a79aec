//! `riposte blocked` and `riposte target show`: what is blocked, where, why, by whom and until when.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use riposte_protocol::target::TargetKind;
use riposte_protocol::time::Timestamp;

use super::phrases::{Actors, ago, counted, coverage, ends, len, reason, state_of};
use super::resolve::{self, short};
use crate::cli::client::{Remote, segment};
use crate::cli::complete;
use crate::cli::reply::Said;
use crate::cli::shown::{ListForm, ShownArgs, WatchedArgs};
use crate::cli::terminal::cell;
use crate::clock::Clock;
use crate::domain::outcome::EffectOutcome;
use crate::views::page::Page;
use crate::views::targets::{TargetEffect, TargetRow, TargetView};

/// Kinds of target with a value.
pub const KINDS: [&str; 6] = ["ip", "user", "file", "process", "host", "none"];

/// Which targets.
#[derive(Debug, Args)]
pub struct BlockedArgs {
    #[command(flatten)]
    watched: WatchedArgs,
    /// Show everything known of this address, account or file.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: Option<String>,
    /// Only those that a policy holds.
    #[arg(short, long, value_name = "NAME", add = ArgValueCompleter::new(complete::policies))]
    policy: Option<String>,
    /// Only on this agent, by name or id.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::agents))]
    agent: Option<String>,
    /// Only by this action.
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Only of this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// Only those with an effect in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(EffectOutcome::ALL.map(EffectOutcome::as_str)))]
    state: Option<String>,
}

/// Targets.
#[derive(Debug, Subcommand)]
pub enum TargetCommand {
    /// Show everything known of an address, account or file.
    Show(TargetArgs),
}

/// Which target.
#[derive(Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    shown: ShownArgs,
    /// The address, account or file.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: String,
    /// Its kind, where the text does not say it.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
}

/// `riposte blocked`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn blocked(args: BlockedArgs) -> anyhow::Result<ExitCode> {
    let watched = args.watched.clone();
    watched.again(async || look(&args).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn look(args: &BlockedArgs) -> anyhow::Result<()> {
    let BlockedArgs { watched, target, policy, agent, action, kind, state } = args;
    let shown = &watched.shown;
    if let Some(target) = target {
        let kind = kind.as_deref().and_then(TargetKind::parse);
        return show_one(shown, target, kind).await;
    }
    let agent = match agent {
        Some(word) => Some(resolve::agent(&shown.remote, word).await?),
        None => None,
    };
    let filter = [("policy", policy), ("agent_id", &agent), ("action", action), ("kind", kind), ("state", state)];
    let filter =
        filter.iter().filter_map(|(name, word)| word.as_ref().map(|word| format!("&{name}={}", segment(word))));
    let path = format!("/v1/targets?limit={}{}", watched.limit, filter.collect::<String>());
    let page: Page<Said<TargetRow>> = shown.remote.get(&path).await?;
    let holders =
        page.items.iter().flat_map(|said| said.view.held_by.iter().map(|holder| holder.requested_by.as_str()));
    let (actors, now) = (Actors::of(&shown.remote, holders).await, Clock::system().now());
    let form = ListForm {
        noun: ("target is blocked", "targets are blocked"),
        head: &["target", "where", "action", "why", "by", "ends"],
        more: &["kind", "responses", "changed"],
        row: &|row| cells(row, &actors, now),
        name: &|row: &TargetRow| row.value.clone(),
    };
    shown.print(&page.items, &form, &watched.more(page.next_cursor.is_some(), "targets"))
}

fn cells(row: &TargetRow, actors: &Actors, now: Timestamp) -> Vec<String> {
    let newest = row.held_by.first();
    let others = Some(row.responses - 1).filter(|others| *others > 0);
    let others = others.map_or_else(String::new, |others| format!(" (+{others})"));
    let by = newest.map(|holder| actors.requester(holder.policy.as_deref(), &holder.requested_by));
    let until = if newest.is_none() && row.until.is_none() { "-".to_owned() } else { ends(row.until, now) };
    vec![
        if row.value.is_empty() { row.kind.clone() } else { row.value.clone() },
        coverage(row),
        row.actions.join(", "),
        cell(newest.map(reason)),
        by.map_or_else(|| "-".to_owned(), |by| format!("{by}{others}")),
        until,
        row.kind.clone(),
        row.responses.to_string(),
        row.changed_at.map_or_else(|| "-".to_owned(), |at| ago(at, now)),
    ]
}

/// `riposte target show`
///
/// # Errors
/// If the manager cannot be asked, or the text is no target.
pub async fn run(command: TargetCommand) -> anyhow::Result<ExitCode> {
    let TargetCommand::Show(TargetArgs { shown, target, kind }) = command;
    show_one(&shown, &target, kind.as_deref().and_then(TargetKind::parse)).await?;
    Ok(ExitCode::SUCCESS)
}

async fn show_one(shown: &ShownArgs, target: &str, kind: Option<TargetKind>) -> anyhow::Result<()> {
    let said = resolve::target(&shown.remote, target, kind).await?;
    let actors = actors(&shown.remote, &said.view).await;
    let now = Clock::system().now();
    shown.print_one(&said, &said.view.target.value, |view| text(view, &actors, now))
}

async fn actors(remote: &Remote, view: &TargetView) -> Actors {
    let requesters = view.responses.iter().map(|judged| judged.response.requested_by.as_str());
    let holders = view.target.held_by.iter().map(|holder| holder.requested_by.as_str());
    Actors::of(remote, requesters.chain(holders)).await
}

fn text(view: &TargetView, actors: &Actors, now: Timestamp) -> Vec<String> {
    let TargetView { target, effects, responses, protected, feeds } = view;
    let mut lines = vec![format!("{} {}", target.kind, target.value)];
    if target.effects == 0 {
        lines.push("  is not blocked".to_owned());
    } else {
        lines.push(format!("  where      {} by {}", coverage(target), target.actions.join(", ")));
        lines.push(format!("  ends       {}", ends(target.until, now)));
    }
    for holder in &target.held_by {
        let by = actors.requester(holder.policy.as_deref(), &holder.requested_by);
        let (id, ends) = (short(&holder.response_id), ends(holder.until, now));
        lines.push(format!("  held by    {by} ({}, ends {ends}, response {id}): {}", holder.action, reason(holder)));
    }
    let others = target.responses - len(&target.held_by);
    if others > 0 {
        lines.push(format!("             and {}", counted(others, "further response", "further responses")));
    }
    for entry in protected {
        let policies: Vec<String> = entry.policies.read().unwrap_or_default();
        let only = if policies.is_empty() { String::new() } else { format!(" from {}", policies.join(", ")) };
        lines.push(format!("  protected  by {} {}{only}: {}", entry.kind, entry.value, entry.reason));
    }
    for feed in feeds {
        let is = if feed.is_removed { "was removed from" } else { "is in" };
        lines.push(format!(
            "  feed       {is} {}, fetched by {} of {}",
            feed.feed,
            feed.fetched_by,
            counted(feed.consumers, "consumer", "consumers")
        ));
    }
    if !effects.is_empty() {
        lines.push("effects:".to_owned());
        lines.extend(effects.iter().map(|effect| effect_line(effect, now)));
    }
    lines.push("responses, newest first:".to_owned());
    for judged in responses {
        let row = &judged.response;
        let by = actors.requester(row.policy.as_deref(), &row.requested_by);
        lines.push(format!(
            "  {}  {}  {} by {by}: {}{}",
            short(&row.id),
            ago(row.created_at, now),
            row.action,
            state_of(row),
            if row.note.is_empty() { String::new() } else { format!(": {}", row.note) },
        ));
    }
    if responses.is_empty() {
        lines.push("  none".to_owned());
    }
    lines
}

fn effect_line(view: &TargetEffect, now: Timestamp) -> String {
    let TargetEffect { effect, agent, outcome, held_by } = view;
    let outcome = outcome.map_or("revoked", EffectOutcome::as_str).replace('_', " ");
    let why = if effect.last_reason.is_empty() { String::new() } else { format!(": {}", effect.last_reason) };
    let ends = if held_by.is_empty() { String::new() } else { format!(", ends {}", ends(effect.until, now)) };
    format!("  {agent}: {} {outcome}{ends}{why}", effect.action)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A target whose alert, agent, note and output try to control the terminal.
    fn hostile() -> TargetView {
        let at = |minute: u8| format!("2026-11-24T10:{minute:02}:00.000Z");
        let escape = "\u{1b}[2J\u{202e}";
        let effect = json!({"id": "e", "agent_id": "1", "action": "firewall-drop", "target_kind": "ip",
            "target_value": "203.0.113.7", "desired": "in_force", "actual": "absent", "failed_reverts": 0, "until": at(42),
            "created_at": at(0), "changed_at": at(1), "last_apply": "failed", "last_reason": format!("iptables: {escape}"),
            "agent_revoked": false, "agent": format!("web{escape}"), "outcome": "failed",
            "held_by": [{"response_id": "01a00000-0000-7000-8000-00000000000a", "until": at(42)}]});
        let holder = json!({"response_id": "01a00000-0000-7000-8000-00000000000a", "policy": "ssh",
            "requested_by": "policy:ssh", "action": "firewall-drop", "note": "", "until": at(42), "created_at": at(0),
            "rule": {"id": "5763", "level": 10, "description": format!("brute force{escape}")}});
        let view = json!({
            "target": {"kind": "ip", "value": "203.0.113.7", "agents": 1, "effects": 1, "in_force": 0, "unverified": 0,
                "pending": 0, "failed": 1, "drifted": 0, "reverting": 0, "failing": 0, "actions": ["firewall-drop"],
                "until": at(42), "held_by": [holder], "responses": 3, "changed_at": at(1)},
            "effects": [effect], "responses": [],
            "protected": [{"id": "p", "kind": "ip", "value": "203.0.113.0/24", "policies": ["web"],
                "reason": format!("the bank{escape}"), "created_at": at(0), "created_by": "user:alice"}],
            "feeds": [{"feed": "edge", "is_removed": false, "fetched_by": 1, "consumers": 2}]});
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn a_target_is_shown_with_everything_known_of_it_and_without_control_characters() {
        let now = "2026-11-24T10:02:00Z".parse::<Timestamp>().unwrap();
        let lines = text(&hostile(), &Actors::default(), now);
        let shown: Vec<String> = lines.iter().map(|line| crate::cli::terminal::plain(line)).collect();
        insta::assert_snapshot!(shown.join("\n"));
        assert!(!shown.join("").contains(['\u{1b}', '\u{202e}']));
        insta::assert_debug_snapshot!(cells(&hostile().target, &Actors::default(), now)[1..6].to_vec());
    }
}
