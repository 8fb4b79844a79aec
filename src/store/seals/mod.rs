//! Seals: rows that grant power carry a keyed hash that only the manager can make. This module knows which
//! rows are sealed (`sets.rs`), checks them where they are read (`read.rs`), and keeps what is wrong (`known.rs`);
//! `ledger.rs` seals what a transaction changed, and `whole.rs` the ledger as a whole.

pub mod known;
pub(in crate::store) mod ledger;
pub(in crate::store) mod read;
pub mod sets;
pub mod value;
pub mod whole;
