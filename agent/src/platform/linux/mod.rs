//! What only Linux shows.

pub(crate) mod ruleset;
pub(crate) mod waiting;
