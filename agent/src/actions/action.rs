//! What an action is: one file of this folder implements it.

use std::any::Any;
use std::borrow::Cow;

use futures_util::future::BoxFuture;
use riposte_protocol::command::Op;
use serde_json::Value;

use super::{About, ActionError, Attempt, Host};

/// Actions of one domain must not run at the same time. Built-in domains are static; custom
/// programs have one each.
pub type Domain = Cow<'static, str>;

/// The result of an action's step, once it is done.
pub type Step<'a, T> = BoxFuture<'a, Result<T, ActionError>>;

/// The results of a look at many effects.
pub type Looks<'a> = BoxFuture<'a, Vec<Result<bool, ActionError>>>;

/// One action. Every step must be idempotent: it may be repeated after a crash, and an effect may
/// be applied again to change its end.
pub trait Action: Any + Sync + std::fmt::Debug {
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

    /// How it does many at once, if it can: then commands that wait together are executed together.
    fn bulk(&self) -> Option<&dyn Bulk> {
        None
    }

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

/// The steps of an [`Action`] on many effects at once. No two of them have the same target. The
/// action can be undone, shows what it did, and finds no evidence.
///
/// A change that fails may be done in part: the executor then takes it in smaller parts, down to
/// single effects, so that one that fails, fails alone. A look returns one result per attempt, in
/// their order.
pub trait Bulk: Sync {
    /// Whether it does many at once on this host, by the programs that are here.
    fn works_on(&self, host: &Host) -> bool;

    /// As [`Action::apply`].
    fn apply_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()>;

    /// As [`Action::is_in_force`].
    fn are_in_force<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a>;

    /// As [`Action::revert`].
    fn revert_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()>;

    /// As [`Action::is_lifted`].
    fn are_lifted<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a>;
}
