//! The words of the night: what is blocked and why, block, unblock, approve, freeze, protect. Each is one word at
//! the top of the command line, over the same views as the nouns. What changes something shows its plan first
//! (`change.rs`) and asks; lists and single things are printed by `cli/shown.rs`.

pub mod agents;
pub mod approvals;
pub mod block;
pub mod change;
pub mod commands;
pub mod effects;
pub mod freeze;
pub mod phrases;
pub mod protect;
pub mod resolve;
pub mod targets;
pub mod timeline;
pub mod unblock;
