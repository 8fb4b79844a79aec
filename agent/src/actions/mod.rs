//! The actions of this agent. One file is one action; adding one is that file and a line in
//! [`ALL`].
//!
//! An action gets its input from an [`Attempt`] and runs its programs through it, so that output
//! and exit code are always recorded. It never decides whether it may act: expiry, protected
//! targets and kinds were checked before ([`crate::executor`]).

mod about;
mod action;
mod at_work;
mod attempt;
mod disable_account;
#[cfg(test)]
mod docs_tests;
mod error;
mod evidence;
mod firewall_drop;
mod firewalld_drop;
#[cfg(test)]
mod golden_tests;
mod host;
#[cfg(unix)]
mod host_deny;
#[cfg(unix)]
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
mod os;
#[cfg(test)]
pub(crate) mod own_namespace;
mod pf;
mod probe;
mod process_stat;
mod quarantine_file;
mod recipe;
mod restart_sh;
mod restart_wazuh;
#[cfg(unix)]
mod rewrite;
mod route_null;
#[cfg(test)]
mod security_tests;
#[cfg(test)]
mod stand_in_tests;
mod wazuh_slack;

use riposte_protocol::message::{Capability, ONLY_OBSERVED};

pub use about::{About, Form, Parameter, Proof, Users};
pub use action::{Action, Bulk, Domain, Looks, Step};
pub use attempt::{Attempt, Times, Transcript};
pub use error::ActionError;
pub(crate) use error::failure;
pub use host::Host;
pub use os::Os;

/// Every action of this agent, in the order of the documentation.
pub static ALL: &[&dyn Action] = &[
    &firewall_drop::FirewallDrop,
    &firewalld_drop::FIREWALLD_DROP,
    #[cfg(unix)]
    &host_deny::HostDeny,
    #[cfg(unix)]
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
