//! What this agent can do and undo. One file is one action; adding one is that file and a line in [`ALL`].
//!
//! An action is told what to do by an [`Attempt`] and runs its programs through it, so that output and exit code
//! are kept whatever happens. It never decides whether it may act: expiry, protected targets and kinds were looked
//! at before ([`crate::executor`]).

mod attempt;
mod disable_account;
mod firewall_drop;
mod iptables;
mod log_only;
#[cfg(test)]
mod network_tests;
mod nftables;
mod route_null;

use futures_util::future::BoxFuture;
use riposte_protocol::command::Op;
use riposte_protocol::message::Capability;
use riposte_protocol::target::TargetKind;
use serde_json::Value;

pub use attempt::{ActionError, Attempt, Transcript};

/// Every action of this agent, in the order in which people read them.
pub const ALL: &[&dyn Action] =
    &[&firewall_drop::FirewallDrop, &route_null::RouteNull, &disable_account::DisableAccount, &log_only::LogOnly];

/// What an action's step gives when it is done.
pub type Step<'a, T> = BoxFuture<'a, Result<T, ActionError>>;

/// Something an agent can do and undo. Every step must be idempotent: it may be repeated after a crash, and an
/// effect may be applied again to change its end.
pub trait Action: Sync + std::fmt::Debug {
    /// The name in policies and commands.
    fn name(&self) -> &'static str;

    /// The kind of target it takes; `None` takes any.
    fn target_kind(&self) -> Option<TargetKind>;

    /// What must not run at once: everything of one domain runs one after the other.
    fn lock_domain(&self) -> &'static str;

    /// Whether it can be run on this host now.
    ///
    /// # Errors
    /// Why not, for people.
    fn availability(&self) -> Result<(), String>;

    /// What it would run, for people: the text of `observe` mode. Runs nothing.
    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String;

    /// Looks at the state before the effect and gives what [`Action::revert`] needs to restore it. Changes nothing.
    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value>;

    /// Brings the effect into force, or brings its end forward or back.
    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()>;

    /// Whether the effect is in force.
    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool>;

    /// Restores the state before the effect. Without `attempt.undo` the effect is not held (any more), and only what
    /// is certainly this agent's own may be removed.
    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()>;

    /// Whether nothing of the effect is left.
    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async move { Ok(!self.is_in_force(attempt).await?) })
    }
}

/// The action of that name in `actions`.
pub fn find(actions: &'static [&'static dyn Action], name: &str) -> Option<&'static dyn Action> {
    actions.iter().copied().find(|action| action.name() == name)
}

/// What these actions can do here, as the manager is told. An agent that only observes can "run" everything: it
/// needs no right to say what it would have done.
pub fn capabilities(actions: &[&dyn Action], observe: bool) -> Vec<Capability> {
    let capability = |action: &&dyn Action| {
        let reason = action.availability().err();
        let available = observe || reason.is_none();
        let reason = reason.map(|reason| if observe { format!("only observed here; else {reason}") } else { reason });
        Capability { action: action.name().into(), available, reason }
    };
    actions.iter().map(capability).collect()
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
