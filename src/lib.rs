//! Riposte, the manager: alerts come in, policies decide, commands go to agents, and every block is lifted again.
//!
//! THE MAP, in the order in which the flow passes:
//!
//! 1. `api/alerts.rs` takes a request apart and hands its alerts to `engine/intake.rs`.
//! 2. `engine/intake.rs` reads each (`domain/shapes/` makes a `domain/alert.rs` of it) and has it decided.
//! 3. `engine/decide.rs` asks the compiled policies (`domain/index.rs`) and says what follows.
//! 4. `store/writer.rs` commits alert, responses, effects, commands and audit entries together (`store/ledger.rs`,
//!    by the rules of `domain/effect.rs`), and only then is the request answered.
//! 5. `engine/hub.rs` nudges the connections of the agents concerned (`api/stream.rs`, `api/poll.rs`), which fetch what
//!    is owed from `engine/deliver.rs`.
//! 6. The agent answers; `api/exchange.rs` hands that to `store/settle.rs`.
//! 7. `engine/undo.rs` ends what is over, `engine/sweep.rs` owns every other deadline.
//!
//! Aside from the flow: `compat/ossec/` says what a Wazuh manager's configuration means in Riposte's words.
//!
//! Floors, one way down: main > cli > api > compat > engine > store > domain > protocol. `clock`, `config`, `shutdown` and
//! `telemetry` are ground: anyone may stand on them, they use nobody. `tests/architecture/` fails on an arrow up.

pub mod api;
pub mod cli;
pub mod clock;
pub mod compat;
pub mod config;
pub mod domain;
pub mod engine;
pub mod shutdown;
pub mod store;
pub mod telemetry;
