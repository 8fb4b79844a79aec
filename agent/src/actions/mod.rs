//! What this agent can do and undo. One file is one action; adding one is that file and a line in [`ALL`].
//!
//! An action is told what to do by an [`Attempt`] and runs its programs through it, so that output and exit code
//! are kept whatever happens. It never decides whether it may act: expiry, protected targets and kinds were looked
//! at before ([`crate::executor`]).

mod about;
mod at_work;
mod attempt;
mod disable_account;
#[cfg(test)]
mod docs_tests;
mod evidence;
mod firewall_drop;
mod firewalld_drop;
#[cfg(test)]
mod golden_tests;
mod host;
mod host_deny;
mod ip_customblock;
mod ipfw;
mod iptables;
mod isolate_host;
mod kaspersky;
mod kill_process;
mod log_only;
mod netsh;
#[cfg(test)]
mod network_tests;
mod nftables;
mod npf;
#[cfg(test)]
pub(crate) mod own_namespace;
mod pf;
mod probe;
mod quarantine_file;
mod recipe;
mod restart_sh;
mod restart_wazuh;
mod rewrite;
mod route_null;
#[cfg(test)]
mod stand_in_tests;
mod wazuh_slack;

use futures_util::future::BoxFuture;
use riposte_protocol::command::Op;
use riposte_protocol::message::{Capability, ONLY_OBSERVED};
use serde_json::Value;

pub use about::{About, Form, Parameter, Users};
pub(crate) use attempt::failure;
pub use attempt::{ActionError, Attempt, Times, Transcript};
pub use host::{DEFAULT_WAZUH_HOME, Host, Os};
pub use quarantine_file::Limits;

/// Every action of this agent, in the order in which people read them.
pub static ALL: &[&dyn Action] = &[
    &firewall_drop::FirewallDrop,
    &firewalld_drop::FIREWALLD_DROP,
    &host_deny::HostDeny,
    &ip_customblock::IpCustomblock,
    &ipfw::IPFW,
    &npf::NPF,
    &pf::PF,
    &route_null::RouteNull,
    &netsh::NETSH,
    &disable_account::DisableAccount,
    &restart_wazuh::RestartWazuh,
    &restart_sh::RestartSh,
    &wazuh_slack::WazuhSlack,
    &kaspersky::KASPERSKY,
    &isolate_host::IsolateHost,
    &kill_process::KillProcess,
    &quarantine_file::QuarantineFile,
    &log_only::LogOnly,
];

/// What an action's step gives when it is done.
pub type Step<'a, T> = BoxFuture<'a, Result<T, ActionError>>;

/// Something an agent can do and undo. Every step must be idempotent: it may be repeated after a crash, and an
/// effect may be applied again to change its end.
pub trait Action: Sync + std::fmt::Debug {
    /// What it says of itself.
    fn about(&self) -> &About;

    /// The name in policies and commands.
    fn name(&self) -> &'static str {
        self.about().name
    }

    /// What must not run at once: everything of one domain runs one after the other.
    fn lock_domain(&self) -> &'static str {
        self.about().lock_domain
    }

    /// Whether it can be run on this host now; its platform was looked at before.
    ///
    /// # Errors
    /// Why not, for people.
    fn availability(&self, host: &Host) -> Result<(), String>;

    /// What it would run, for people: the text of `observe` mode. Runs nothing.
    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String;

    /// Looks at the state before the effect and gives what [`Action::revert`] needs to restore it. Changes nothing.
    /// An action that cannot be undone is not asked.
    fn prepare<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(Value::Null) })
    }

    /// Looks at what it is about to act on and is gone or changed afterwards, for people who ask later what it was. Changes
    /// nothing, and is bounded in time and size; `None` if there is nothing to tell.
    fn evidence<'a>(&'a self, _attempt: &'a Attempt<'_>) -> BoxFuture<'a, Option<Value>> {
        Box::pin(async { None })
    }

    /// Brings the effect into force, or brings its end forward or back.
    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()>;

    /// Whether the effect is in force. Not asked if [`About::looks`] says that it cannot be seen.
    fn is_in_force<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    /// Restores the state before the effect. Without `attempt.undo` the effect is not held (any more), and only what
    /// is certainly this agent's own may be removed. An action that cannot be undone is not asked.
    fn revert<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Whether nothing of the effect is left. Without `attempt.undo`, only where nothing like it is there.
    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async move { Ok(!self.is_in_force(attempt).await?) })
    }
}

/// The action of that name in `actions`.
pub fn find(actions: &'static [&'static dyn Action], name: &str) -> Option<&'static dyn Action> {
    actions.iter().copied().find(|action| action.name() == name)
}

/// Whether `action` can be run on this host now.
///
/// # Errors
/// Why not, for people.
pub fn availability(action: &dyn Action, host: &Host) -> Result<(), String> {
    if action.about().platforms.contains(&host.os) {
        action.availability(host)
    } else {
        Err(format!("it does not exist on {}", host.os.as_str()))
    }
}

/// The longest reason that the manager is told; its own bound is in bytes.
pub const MAX_REASON_CHARS: usize = 128;

/// What these actions, and the programs in the folder for custom ones, can do here, as the manager is told. An agent
/// that only observes can "run" everything: it needs no right to say what it would have done.
pub fn capabilities(actions: &[&dyn Action], host: &Host, observe: bool) -> Vec<Capability> {
    let capability = |action: &&dyn Action| {
        let reason = availability(*action, host).err();
        let available = observe || reason.is_none();
        let reason = match reason {
            Some(reason) if observe => Some(format!("{ONLY_OBSERVED}; else {reason}")),
            None if observe => Some(ONLY_OBSERVED.to_owned()),
            reason => reason,
        };
        // A path in it may be long; a manager takes 512 bytes.
        let reason = reason.map(|reason| reason.chars().take(MAX_REASON_CHARS).collect());
        Capability { action: action.name().into(), available, reason }
    };
    let mut capabilities: Vec<_> = actions.iter().map(capability).collect();
    let observed = observe.then(|| ONLY_OBSERVED.to_owned());
    let scripts = crate::scripts::capabilities(host).into_iter();
    capabilities.extend(scripts.map(|script| Capability { reason: observed.clone(), ..script }));
    capabilities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|action| action.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
