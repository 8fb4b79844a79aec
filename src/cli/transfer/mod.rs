//! `riposte export` and `riposte import`: a ledger as one file, and from it into an empty database of
//! either kind (`docs/operations.md`, Moving to another database). Keys stay in the data directory.

pub mod export;
mod file;
pub mod import;
mod progress;
mod proof;
