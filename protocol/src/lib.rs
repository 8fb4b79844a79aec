//! What a manager and its agents must agree on, and nothing else: the words on the wire, the signatures
//! that make an order an order, the targets both sides accept, and the delivery rules. No I/O, no clock,
//! no async: everything here is a function of its arguments, so that both programs and the tests run the
//! same code.
//!
//! Reading order: [`time`] and [`target`] (values), [`message`] (the wire), [`jws`], [`command`] and
//! [`identity`] (signatures), [`delivery`] (what to send when, and what to do with what arrives).

pub mod account;
pub mod command;
pub mod delivery;
pub mod identity;
pub mod jws;
pub mod message;
pub mod target;
pub mod time;
pub mod visible;
pub mod words;

/// The WebSocket subprotocol that names this version of the protocol.
pub const SUBPROTOCOL: &str = "riposte.v1";

/// The `iss` of every command and the `aud` of every agent token.
pub const MANAGER: &str = "riposte";

/// What the `type` of every problem document of a manager begins with. An answer without it comes from somebody else.
pub const PROBLEM: &str = "urn:riposte:problem:";

/// The word of the problem that a token's time is not near the manager's.
pub const PROBLEM_CLOCK: &str = "clock";

/// The header in which a manager tells agents its time, in RFC 3339: hosts exist whose own clock is days off.
pub const TIME_HEADER: &str = "riposte-time";
