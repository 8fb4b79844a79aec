//! The words of the night: what is blocked and why, block, unblock, approve, freeze, protect. Each is one word at
//! the top of the command line, over the same views as the nouns. What changes something shows its plan first
//! (`change.rs`) and asks; `shown.rs` prints lists in every form.

pub mod approvals;
pub mod block;
pub mod change;
pub mod commands;
pub mod effects;
pub mod freeze;
pub mod phrases;
pub mod protect;
pub mod resolve;
pub mod shown;
pub mod targets;
pub mod timeline;
pub mod unblock;
