//! The store layer. All SQL is here and only here, one file per noun; each statement serves both
//! databases. [`db`] holds the connections, [`writer`] the group commit.
//!
//! Reads call a noun's functions directly. Every change of the ledger runs inside an
//! [`audit::LedgerTx`], which cannot be committed without its audit entries.

pub mod actions;
pub mod agents;
pub mod alerts;
pub mod approvals;
pub mod audit;
pub mod audit_head;
mod bind;
pub mod breakers;
pub mod caches;
pub mod codec;
pub mod columns;
pub mod commands;
pub mod converge;
pub mod db;
pub mod doctor;
pub mod effects;
pub mod enrolment;
pub mod error;
mod failures;
pub mod freeze;
pub mod guard;
pub mod idempotency;
pub mod keys;
pub mod ledger;
pub mod nodes;
pub mod outcomes;
pub mod policies;
mod postgresql;
pub mod probe;
pub mod protected;
mod queue;
pub mod responses;
pub mod resync;
mod rows;
pub mod settle;
pub mod signing_keys;
pub mod story;
mod strangers;
pub mod waves;
pub mod writer;

pub use db::{Db, StoreError};

/// All named statements, for the test that prepares each on both databases.
pub fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    let modules = [
        actions::STATEMENTS,
        agents::STATEMENTS,
        alerts::STATEMENTS,
        approvals::STATEMENTS,
        audit::STATEMENTS,
        breakers::STATEMENTS,
        commands::STATEMENTS,
        converge::STATEMENTS,
        doctor::STATEMENTS,
        effects::STATEMENTS,
        enrolment::STATEMENTS,
        freeze::STATEMENTS,
        guard::STATEMENTS,
        idempotency::STATEMENTS,
        keys::STATEMENTS,
        ledger::STATEMENTS,
        outcomes::STATEMENTS,
        policies::STATEMENTS,
        probe::STATEMENTS,
        protected::STATEMENTS,
        responses::STATEMENTS,
        resync::STATEMENTS,
        settle::STATEMENTS,
        signing_keys::STATEMENTS,
        waves::STATEMENTS,
    ];
    modules.into_iter().flatten().copied()
}
