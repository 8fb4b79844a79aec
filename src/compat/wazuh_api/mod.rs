//! What a call of Wazuh's API means in Riposte's words: which action and how long ([`command`]), what it is
//! aimed at ([`target`]), on which agents ([`agents`]), and what became of it ([`outcome`]);
//! and which agents a list is asked for ([`query`], [`fields`]).
//! `src/api/wazuh/` carries it out. Nothing here does I/O, and no guardrail is decided here: that is the
//! engine's.

pub mod agents;
pub mod command;
pub mod fields;
pub mod outcome;
pub mod query;
pub mod target;

/// The version of Wazuh whose API this one follows, as its clients compare it.
pub const FOLLOWED_VERSION: &str = "4.14.7";
