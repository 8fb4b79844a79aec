//! Actions: accepted targets and arguments, and the default target. The agent implements them
//! (`agent/src/actions/`); this module lets the manager refuse policies and requests that no agent
//! could carry out. `definition.rs` says what an action is, `built_in.rs` lists the built-in ones,
//! `custom.rs` reads those of operators, `schema.rs` says whether a schema of arguments can be
//! checked in time, and `catalogue.rs` finds an action by its name.

mod built_in;
mod catalogue;
mod custom;
mod definition;
pub mod hidden;
mod named_process;
mod schema;

pub use catalogue::Catalogue;
pub use definition::{Accounts, Action, is_name};
