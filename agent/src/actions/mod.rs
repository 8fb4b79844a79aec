//! The actions of this agent. One file is one action; adding one is that file and a line in
//! [`ALL`].
//!
//! An action gets its input from an [`Attempt`] and runs its programs through it, so that output
//! and exit code are always recorded. It never decides whether it may act: expiry, protected
//! targets and kinds were checked before ([`crate::executor`]).

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

/// Every action of this agent, in the order of the documentation.
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

/// The result of an action's step, once it is done.
pub type Step<'a, T> = BoxFuture<'a, Result<T, ActionError>>;

/// One action. Every step must be idempotent: it may be repeated after a crash, and an effect may
/// be applied again to change its end.
pub trait Action: Sync + std::fmt::Debug {
    /// Its description.
    fn about(&self) -> &About;

    /// The name in policies and commands.
    fn name(&self) -> &'static str {
        self.about().name
    }

    /// Lock domain: actions of one domain run one after the other.
    fn lock_domain(&self) -> &'static str {
        self.about().lock_domain
    }

    /// Checks that it can run on this host now; its platform was checked before.
    ///
    /// # Errors
    /// Why not, for people.
    fn availability(&self, host: &Host) -> Result<(), String>;

    /// What it would run, for people: the text of `observe` mode. Runs nothing.
    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String;

    /// Looks at the state before the effect and returns the data that [`Action::revert`] needs to
    /// restore it. Changes nothing. Not called for an action that cannot be undone.
    fn prepare<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(Value::Null) })
    }

    /// Looks at what it is about to act on and is gone or changed afterwards, for a later analysis.
    /// Changes nothing, and is limited in time and size; `None` if there is nothing to report.
    fn evidence<'a>(&'a self, _attempt: &'a Attempt<'_>) -> BoxFuture<'a, Option<Value>> {
        Box::pin(async { None })
    }

    /// Brings the effect into force, or moves its end.
    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()>;

    /// Whether the effect is in force. Not called if [`About::looks`] says that it cannot be seen.
    fn is_in_force<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    /// Restores the state before the effect. Without `attempt.undo` the effect is not held (any
    /// more), and only what is certainly this agent's own may be removed. Not called for an action
    /// that cannot be undone.
    fn revert<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Whether nothing of the effect is left. Without `attempt.undo`, true only if nothing like it
    /// is there.
    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async move { Ok(!self.is_in_force(attempt).await?) })
    }
}

/// Returns the action of that name in `actions`.
pub fn find(actions: &'static [&'static dyn Action], name: &str) -> Option<&'static dyn Action> {
    actions.iter().copied().find(|action| action.name() == name)
}

/// Checks that `action` can run on this host now.
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

/// Longest reason in a report, in characters; the manager's own limit is in bytes.
pub const MAX_REASON_CHARS: usize = 128;

/// What these actions and the custom programs can do here, as reported to the manager. An agent
/// with `observe` can "run" everything: it needs no rights to report what it would do.
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
