//! `riposte-agent release`: lifts everything that is held, such as before the agent is removed or
//! after a wrong block. The manager learns of it when the agent runs the next time.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::arguments::{self, ReleaseArguments};
use super::{run, show};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::journal::{Journal, Record};
use crate::local_policy::LocalPolicy;
use crate::self_protection::SelfProtection;
use crate::{actions, executor};

/// Records that people have lifted effects which the journal does not know.
fn note_lifted(mut journal: Journal, effects: &[uuid::Uuid]) -> anyhow::Result<()> {
    if let Some(held) = effects.iter().find(|effect| journal.state().held_effect(**effect).is_some()) {
        bail!("the agent holds {held}: release it, or let the agent lift it");
    }
    for effect in effects {
        journal.add(Record::Lifted { effect: *effect });
    }
    journal.commit()?;
    if let Some(reason) = journal.broken() {
        bail!("it was not recorded: {reason}");
    }
    let mut out = std::io::stdout();
    for effect in effects {
        writeln!(out, "recorded: {effect} was lifted by hand")?;
    }
    Ok(())
}

pub(super) async fn release(arguments: ReleaseArguments) -> anyhow::Result<()> {
    let state_dir = &arguments.state.path;
    if !state_dir.is_dir() {
        bail!("{} is not there: this host has no agent's state", state_dir.display());
    }
    // A running agent and this command would keep two states of what is held.
    let _lock = run::lock(state_dir).context("stop it first (systemctl stop riposte-agent), then release")?;
    let journal = Journal::open(&show::journal_path(state_dir))?;
    if let Some(reason) = journal.broken() {
        tracing::warn!(reason, "the journal cannot be written: what is lifted now is looked at again by the next run");
    }
    if !arguments.lifted.is_empty() {
        return note_lifted(journal, &arguments.lifted);
    }
    // Reads only two paths of the local policy: the custom programs and their log. A mistake in the
    // file must not prevent lifting, which is always allowed.
    let places = arguments.policy.load(&arguments.state).unwrap_or_else(|error| {
        tracing::warn!(reason = crate::telemetry::chain(&error), "released without the local policy");
        LocalPolicy::default()
    });
    let host = arguments::host(&arguments.state, &arguments.wazuh, &places);
    let (policy, self_protection) = (LocalPolicy::default(), SelfProtection::default());
    let agent =
        Arc::new(Agent::new(journal, actions::ALL, Clock::system().knowing(state_dir), host, policy, self_protection));
    let release = executor::release(&agent, &arguments.reason).await;
    let mut out = std::io::stdout();
    for held in &release.lifted {
        writeln!(out, "lifted {} {}", held.action, held.target)?;
    }
    let (lifted, refused) = (release.lifted.len(), release.refused);
    writeln!(out, "{lifted} effects lifted; {refused} commands that had not been begun will not be executed.")?;
    if release.failed.is_empty() {
        return Ok(());
    }
    for (held, reason) in &release.failed {
        writeln!(out, "NOT lifted: {} {}: {reason}", held.action, held.target)?;
    }
    bail!("{} effects could not be lifted; the agent retries when it runs", release.failed.len())
}
