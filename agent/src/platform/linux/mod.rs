//! What only Linux shows.

pub(crate) mod waiting;
