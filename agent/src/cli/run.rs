//! `riposte-agent run`: assembles the agent, runs it until a signal or a failure, and lets running
//! executions finish. Stopping lifts nothing: effects are in the journal, and the next start
//! resumes them.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::arguments::{self, RunArguments};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::platform::guarded;
use crate::platform::service;
use crate::platform::stop::StopRequests;
use crate::self_protection::SelfProtection;
use crate::{actions, durable, executor, manager_url, session};

/// Time limit for running executions to finish after a stop.
const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let state_dir = &arguments.state.path;
    let identity = Identity::load(state_dir)?;
    let mut policy = arguments.policy.load(&arguments.state)?;
    policy.observe |= arguments.observe;
    let _lock = lock(state_dir)?;
    let journal = Journal::open(&super::show::journal_path(state_dir))?;
    let speaks = match identity.enrolment.check_transport(arguments.plain.insecure_http) {
        Ok(()) => true,
        // Effects in force must still end, so an agent that holds any runs, without a connection.
        Err(error) if journal.state().held().next().is_some() || journal.state().pending().next().is_some() => {
            tracing::error!("there is no connection to the manager; effects are lifted on time. {error}");
            service::status("not connected to the manager: its address is plain HTTP");
            false
        }
        Err(error) => return Err(error.into()),
    };
    let urls = [&identity.enrolment.stream_url, &identity.enrolment.poll_url];
    if let Some(url) = urls.into_iter().find(|url| !manager_url::is_protected(url)).filter(|_| speaks) {
        tracing::warn!(
            url,
            "the connection to the manager is not encrypted: others can read it, but not forge commands"
        );
    }
    if let Some(reason) = journal.broken() {
        tracing::error!(
            reason,
            "the journal cannot be written: nothing new is executed until it can; what is due is still lifted"
        );
    }
    let own_files = [Some(state_dir.clone()), policy.path.clone()].into_iter().flatten().collect();
    let self_protection = SelfProtection::new(own_files).expecting_manager();
    let mut host = arguments::host(&arguments.state, &arguments.wazuh, &policy);
    host.managers = [&identity.enrolment.stream_url, &identity.enrolment.poll_url].map(Clone::clone).into();
    let agent =
        Arc::new(Agent::new(journal, actions::ALL, Clock::system().knowing(state_dir), host, policy, self_protection));
    let (held, pending) = agent.read(|state| (state.held().count(), state.pending().count()));
    let (id, observe) = (identity.agent_id(), agent.policy.observe);
    let policy = agent.policy.path.as_ref().map(|path| path.display().to_string());
    tracing::info!(agent = %id, name = identity.enrolment.name, held, pending, observe, policy, "agent started");

    executor::start(&agent);
    if speaks {
        let conversation = session::run(Arc::clone(&agent), identity, arguments.transport);
        agent.tasks.spawn("session", conversation);
    } else {
        agent.self_protection.manager_is_known();
    }
    let watched = Arc::clone(&agent);
    agent.tasks.spawn("watchdog", async move { service::watch(&watched.tasks).await });
    service::ready();

    let mut stop = StopRequests::listen()?;
    tokio::select! {
        () = stop.next() => {}
        () = agent.tasks.stopped() => {}
    }
    agent.tasks.stop();
    service::stopping();
    tracing::info!("stopping; what is in force stays in force");
    tokio::select! {
        finished = agent.tasks.finish(GRACE) => if !finished {
            tracing::warn!("an execution did not finish in time; it is looked at after the next start");
        },
        // A second request stops at once.
        () = stop.next() => {}
    }
    match agent.tasks.failure() {
        Some(reason) => bail!("{reason}"),
        None => Ok(()),
    }
}

/// Locks the state directory: two agents on one journal would execute everything twice.
pub(super) fn lock(state_dir: &Path) -> anyhow::Result<File> {
    // An account that can write the journal commands the agent: the journal says what to lift, and
    // by which program.
    let path = state_dir.join("lock");
    for file in [&path, &super::show::journal_path(state_dir)] {
        guarded::require_sure(file)?;
    }
    let file = match durable::append(&path) {
        Ok(file) => file,
        // A read-only disk must not prevent lifting what is due: a lock needs no writing.
        Err(_) if path.exists() => durable::open(&path).with_context(|| format!("cannot open {}", path.display()))?,
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another riposte-agent is running on {}", state_dir.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_another_account_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal");
        std::fs::write(&journal, "").unwrap();
        drop(lock(directory.path()).unwrap());
        std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o660)).unwrap();
        let error = lock(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod go-w {}", journal.display())), "{error}");
        std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(directory.path(), Some(41_000), None).unwrap();
        assert!(lock(directory.path()).unwrap_err().to_string().contains("chown root"));
    }

    #[test]
    fn a_second_agent_on_the_same_state_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = lock(directory.path()).unwrap();
        assert!(lock(directory.path()).unwrap_err().to_string().contains("another riposte-agent"));
    }
}
