//! Riposte, the manager: alerts come in, policies decide, commands go to agents, and every block is
//! lifted again.
//!
//! THE MAP, in the order of the flow:
//!
//! 1. `api/alerts.rs` splits a request into alerts and passes them to `engine/intake.rs`.
//! 2. `engine/intake.rs` parses each (`domain/formats/` makes a `domain/alert.rs` of it) and has it
//!    decided.
//! 3. `engine/decide.rs` evaluates the compiled policies (`domain/index.rs`) and returns the
//!    responses.
//! 4. `store/writer/mod.rs` commits alert, responses, effects, commands and audit entries together
//!    (`store/ledger/holds.rs`, by the rules of `domain/effect.rs`). Only then is the request
//!    answered.
//! 5. `engine/hub.rs` wakes the connections of the agents concerned (`api/stream.rs`,
//!    `api/poll.rs`), which fetch their pending commands from `engine/deliver.rs`.
//! 6. The agent answers; `api/exchange.rs` passes the results to `store/ledger/settle.rs`.
//! 7. `engine/undo.rs` ends expired responses; `engine/sweep.rs` owns every other deadline.
//!
//! Beside the flow: `compat/ossec/` translates a Wazuh manager's configuration into policies.
//!
//! Floors, one way down: main > cli > console > api > compat > engine > store > views > domain > protocol.
//! `clock`, `config`, `exposition`, `host`, `shutdown` and `telemetry` are ground: every floor may use them, and they
//! use none. `tests/architecture/` fails on an arrow up.

pub mod api;
pub mod cli;
pub mod clock;
pub mod compat;
pub mod config;
pub mod console;
pub mod domain;
pub mod engine;
pub mod exposition;
pub mod host;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod views;
