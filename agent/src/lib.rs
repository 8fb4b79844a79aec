//! The Riposte agent: it takes signed commands from its manager, executes them and reports what it
//! did. It reverts every effect on time, even without a connection to the manager.
//!
//! The path of a command, one file a step:
//!
//! ```text
//! session (stream | poll) → intake → journal → executor → actions → runner
//!                     results ← journal ←┘
//! ```
//!
//! - [`session`] carries messages; it holds nothing that a lost connection could lose.
//! - [`intake`] verifies or refuses what arrives, and puts it on disk before it is acknowledged.
//! - [`journal`] holds what was received, what is in force and how to undo it, and what is to be
//!   reported.
//! - [`executor`] runs one lane per lock domain: commands by number, reverts by the clock.
//! - [`actions`] know how to apply, verify and revert; [`runner`] starts their programs and ends
//!   them.
//! - [`scripts`] run custom programs as Wazuh does; [`responses_log`] logs actions in Wazuh's
//!   format.
//!
//! [`local_policy`] and [`self_protection`] say what must not be done here, even by a signed order.
//! [`platform`] has what differs between operating systems; [`platform::service`] speaks to the
//! system's manager of services.
//!
//! [`clock`], [`conventions`], [`durable`], [`manager_time`], [`manager_url`],
//! [`moment`], [`pin`], [`platform`], [`refusal`], [`tasks`], [`telemetry`], [`tls`] and [`unreachable`] are
//! ground: every module may use them.

pub mod actions;
pub mod agent;
pub mod cli;
pub mod clock;
pub mod conventions;
pub mod durable;
pub mod enroll;
pub mod executor;
pub mod identity;
pub mod intake;
pub mod journal;
pub mod local_policy;
pub mod manager_time;
pub mod manager_url;
pub mod moment;
pub mod own_key;
pub mod pin;
pub mod platform;
pub mod refusal;
pub mod responses_log;
pub mod runner;
pub mod scripts;
pub mod self_protection;
pub mod session;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod unreachable;
pub mod wazuh_identity;
