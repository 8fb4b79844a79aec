//! What an operator configures about the intake, by the start of the manager.

use crate::domain::formats::ObservableMappings;
use crate::domain::pipeline::Recurring;
use crate::domain::policy::MaxAge;

/// Configuration of the intake.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Site-specific fields that hold observables.
    pub mappings: ObservableMappings,
    /// Maximum alert age for policies without a limit.
    pub max_age: MaxAge,
    /// Pipelines whose alert ids recur.
    pub recurring: Recurring,
}
