//! `log-only`: writes one line into the agent's log and touches nothing. For trying a policy out, and for policies
//! whose whole point is that somebody reads a line.

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use serde_json::Value;

use super::{Action, Attempt, Step};

/// The action.
#[derive(Debug)]
pub(super) struct LogOnly;

impl Action for LogOnly {
    fn name(&self) -> &'static str {
        "log-only"
    }

    fn target_kind(&self) -> Option<TargetKind> {
        None
    }

    fn lock_domain(&self) -> &'static str {
        "log"
    }

    fn availability(&self) -> Result<(), String> {
        Ok(())
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        format!("a log line: {} {}", op.as_str(), attempt.target)
    }

    fn prepare<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(Value::Null) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let arguments = attempt.arguments.join(" ");
            tracing::info!(action = self.name(), target = %attempt.target, arguments, "log-only: applied");
            Ok(())
        })
    }

    fn is_in_force<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // The line was written, or `apply` would not have come back.
        Box::pin(async { Ok(true) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            tracing::info!(action = self.name(), target = %attempt.target, "log-only: reverted");
            Ok(())
        })
    }

    fn is_lifted<'a>(&'a self, _attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(true) })
    }
}
