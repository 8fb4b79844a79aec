//! Why a step of an action failed.

use crate::runner::{Exit, Program};

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The action refuses this target.
    #[error("{0}")]
    Refused(String),
    /// A program exceeded its time limit and was killed.
    #[error("{0}")]
    TimedOut(String),
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

/// The error of a program that failed: its name, its exit code, and the first line of its errors.
pub(crate) fn failure(program: &Program, exit: &Exit) -> ActionError {
    let complaint = exit.stderr.lines().chain(exit.stdout.lines()).find(|line| !line.trim().is_empty());
    let complaint = complaint.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    ActionError::Failed(format!("{} ended with {}{complaint}", program.name(), exit.code))
}
