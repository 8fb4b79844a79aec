//! What an operator configures about alerts and responses, by the start of the manager.

use crate::domain::by_hand::ByHand;
use crate::domain::formats::AlertMappings;
use crate::domain::pipeline::Recurring;
use crate::domain::policy::MaxAge;

/// Configuration of the intake and of responses by hand.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Site-specific fields that hold observables.
    pub mappings: AlertMappings,
    /// Maximum alert age for policies without a limit.
    pub max_age: MaxAge,
    /// Pipelines whose alert ids recur.
    pub recurring: Recurring,
    /// Guardrails of responses by hand.
    pub by_hand: ByHand,
}
