//! One interface to two databases: an enum of two pools, one transaction type, one kind of bind
//! value (`db.rs`, `bind.rs`). Statements are written once, in the subset that SQLite and PostgreSQL
//! share (`docs/decisions/0002-one-sql-text.md`).

mod bind;
mod bounds;
pub mod codec;
pub mod columns;
mod db;
pub mod duties;
pub mod error;
pub mod hints;
pub mod import_marker;
mod local;
pub mod nodes;
mod open;
#[cfg(test)]
mod plans;
mod postgresql;
pub mod presence;
pub mod probe;
pub(in crate::store) mod reconnects;
mod rows;
mod sqlite;
mod suitable;
#[cfg(test)]
mod tests;

pub use bind::Bind;
pub(in crate::store) use bind::binds;
pub use db::{Db, Row, Tx, Writes};
pub use error::{Result, StoreError};
pub(in crate::store) use local::LocalRow;
#[cfg(test)]
pub(in crate::store) use plans::{plan, reads_whole};

/// Declares a module's statements, and lists them for the test that prepares each on both
/// databases.
///
/// `VALUES {4}` in a text stands for the rows of a many-row statement, with 4 values each.
macro_rules! statements {
    ($($(#[$doc:meta])* $vis:vis $name:ident = $text:expr;)*) => {
        $($(#[$doc])* $vis const $name: &str = $text;)*
        /// Every statement of this module.
        pub(in crate::store) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}
pub(in crate::store) use statements;
