//! What is wrong with an input: where, as a JSON Pointer (RFC 6901), and why. Every parser of the domain speaks
//! this, so that a client always learns the field.

use serde::Serialize;

/// One fault in an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Fault {
    /// JSON Pointer to the field; empty for the whole input.
    pub pointer: String,
    /// What is wrong there, for people.
    pub detail: String,
}

impl Fault {
    /// A fault at `pointer`.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}
