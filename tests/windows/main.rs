//! The agent for Windows under Wine, against a real manager on loopback. `make windows` builds the
//! agent, the recorder programs and the prefix that these tests use (`scripts/windows.sh`).
//!
//! What Wine has only as a stub proves nothing: `netsh`, `reg`, `net`, `powershell`, `tasklist` are
//! recorders of our own here, and nothing is asserted of Wine's log of events or its firewall.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod actions;
mod crashes;
mod programs;
mod refusals;
mod service;
mod wine;
