//! `log-only`: writes one line into the agent's log and changes nothing. For trying a policy out,
//! and for policies that only notify the reader of the log.

use riposte_protocol::command::Op;

use super::{About, Action, Attempt, Form, Host, Parameter, Proof, Step};

/// The action.
#[derive(Debug)]
pub(super) struct LogOnly;

impl Action for LogOnly {
    fn about(&self) -> &About {
        const ABOUT: About = About {
            name: "log-only",
            summary: "Writes a line into the agent's log and touches nothing",
            networks: true,
            windows: Proof::Wine,
            lock_domain: "log",
            parameters: &[Parameter {
                form: Form::Text("TEXT"),
                summary: "written into the line",
                repeated: true,
                ..Parameter::DEFAULT
            }],
            applied: "a line in the agent's log",
            verified: "the line was written",
            undone: "another line",
            rights: "none",
            ..About::DEFAULT
        };
        &ABOUT
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        Ok(())
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        format!("a log line: {} {}", op.as_str(), attempt.target)
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let arguments = attempt.arguments.join(" ");
            tracing::info!(action = self.name(), target = %attempt.target, arguments, "log-only: applied");
            Ok(())
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // A log line leaves no state: without a journal entry there is none.
        Box::pin(async { Ok(attempt.undo.is_some()) })
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
