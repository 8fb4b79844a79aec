//! Faults of an input: a JSON Pointer (RFC 6901) and an explanation. Every parser of the domain
//! uses them, so clients always learn the field.

use serde::{Deserialize, Serialize};

/// A fault in an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Fault {
    /// JSON Pointer to the field; empty for the whole input.
    pub pointer: String,
    /// Explanation for people.
    pub detail: String,
}

impl Fault {
    /// Creates a fault at `pointer`.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}
