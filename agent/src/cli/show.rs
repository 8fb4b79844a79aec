//! `riposte-agent status` and `riposte-agent actions`: read-only, also beside a running agent.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use riposte_protocol::message::Actual;
use riposte_protocol::time::difference;
use serde_json::json;

use super::arguments::{self, PolicyFile, StateDir, WazuhArguments};
use crate::identity::Enrolment;
use crate::journal::{self, Held, JournalState};
use crate::local_policy::LocalPolicy;
use crate::manager_time::Skew;
use crate::{actions, agent};

/// Path of the journal.
pub(super) fn journal_path(state_dir: &Path) -> PathBuf {
    state_dir.join("journal")
}

pub(super) fn status(state_dir: &Path, json: bool) -> anyhow::Result<()> {
    let enrolment = Enrolment::load(state_dir)?;
    let skew = Skew::read(state_dir)?;
    let contents = journal::read(&journal_path(state_dir))?;
    let state = JournalState::of(contents.records);
    let held: Vec<&Held> = state.held().collect();
    let (pending, outbox, cursor) = (state.pending().count(), state.outbox().len(), state.inbox().cursor());
    let mut out = std::io::stdout().lock();
    if json {
        let status = json!({
            "agent_id": enrolment.agent_id,
            "name": enrolment.name,
            "manager": enrolment.manager,
            "clock_skew_seconds": skew.as_ref().map_or(0, |skew| skew.ahead_millis / 1000),
            "cursor": cursor,
            "commands_pending": pending,
            "results_unsent": outbox,
            "journal_bytes": contents.whole_bytes,
            "incidents": held.iter().filter(|held| is_incident(held)).count(),
            "effects": held.iter().map(|held| held.report()).collect::<Vec<_>>(),
        });
        writeln!(out, "{status}")?;
        return Ok(());
    }
    writeln!(out, "agent    {} ({})", enrolment.name, enrolment.agent_id)?;
    writeln!(out, "manager  {}", enrolment.manager)?;
    if let Some(skew) = skew {
        let told = difference(skew.ahead_millis);
        writeln!(out, "clock    this host's clock is {told} the manager's; served by the manager's clock")?;
    }
    writeln!(out, "pending  {pending} commands; {outbox} results not committed by the manager")?;
    let incidents = held.iter().filter(|held| is_incident(held)).count();
    writeln!(out, "held     {} effects; {incidents} incidents", held.len())?;
    for held in held {
        let until = held.until.map_or_else(|| "lifted by hand".to_owned(), |until| format!("until {until}"));
        writeln!(out, "  {:<18} {:<42} {until}", held.action, held.target.to_string())?;
        if let Some(failing) = &held.failing {
            writeln!(out, "    INCIDENT since {}: cannot be lifted: {}", failing.since, failing.reason)?;
        } else if held.actual == Some(Actual::Drifted) {
            writeln!(out, "    INCIDENT: not in force any more, and not repaired")?;
        }
    }
    Ok(())
}

/// Whether an operator has to look at it.
fn is_incident(held: &Held) -> bool {
    held.failing.is_some() || held.actual == Some(Actual::Drifted)
}

pub(super) fn actions(state: &StateDir, wazuh: &WazuhArguments, policy: &PolicyFile, json: bool) -> anyhow::Result<()> {
    // The operator wants to see what would be possible without `observe`.
    let policy = LocalPolicy { observe: false, ..policy.load(state)? };
    let capabilities = agent::capabilities(actions::ALL, &arguments::host(state, wazuh, &policy), &policy);
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&capabilities)?)?;
        return Ok(());
    }
    for capability in capabilities {
        let action = actions::find(actions::ALL, &capability.action);
        let kinds = action.map_or("any".into(), |action| action.about().targets_text());
        let available = capability.reason.unwrap_or_else(|| "available".into());
        writeln!(out, "{:<18} {kinds:<10} {available}", capability.action)?;
    }
    Ok(())
}
