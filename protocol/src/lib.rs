//! The contract between a manager and its agents: the messages on the wire, the signatures of
//! orders, the targets that both sides accept, and the delivery rules.
//!
//! No I/O, no clock, no async: every function depends only on its arguments, so that both programs
//! and the tests run the same code.
//!
//! Reading order: [`time`] and [`target`] (values), [`message`] (the wire), [`key`], [`jws`],
//! [`command`] and [`identity`] (signatures), [`key_change`] and [`enrolment`] (how both first meet), [`delivery`]
//! (what to send when, and what to do with what arrives).

pub mod account;
pub mod command;
pub mod delivery;
pub mod enrolment;
pub mod identity;
pub mod jws;
pub mod key;
pub mod key_change;
pub mod key_statement;
pub mod message;
pub mod target;
pub mod time;
pub mod visible;
pub mod words;

/// The WebSocket subprotocol that names this version of the protocol.
pub const SUBPROTOCOL: &str = "riposte.v1";

/// The `iss` of every command and the `aud` of every agent token.
pub const MANAGER: &str = "riposte";

/// Prefix of the `type` of every problem document of a manager. An answer without it comes from
/// another server.
pub const PROBLEM: &str = "urn:riposte:problem:";

/// Last part of the problem's `type` if a token's time is not near the manager's.
pub const PROBLEM_CLOCK: &str = "clock";

/// The header with the manager's time, in RFC 3339, because a host's own clock can be days off.
pub const TIME_HEADER: &str = "riposte-time";
