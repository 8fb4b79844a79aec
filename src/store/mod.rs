//! The store layer. All SQL is here and only here, one file per noun; each statement serves both
//! databases. [`database`] holds the connections, and [`writer`] the group commit. [`ledger`] is
//! what happens, [`configured`] what people set up, and [`doctor`] checks the whole.
//!
//! Reads call a noun's functions directly. Every change of the ledger runs inside an
//! [`ledger::audit::LedgerTx`], which cannot be committed without its audit entries.

pub mod configured;
pub mod database;
pub mod doctor;
pub mod ledger;
pub mod seals;
pub mod transfer;
pub mod writer;

#[cfg(test)]
mod tests;

pub use database::{Db, StoreError};

/// All named statements, for the test that prepares each on both databases.
pub fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    let modules = [
        configured::actions::STATEMENTS,
        configured::agent_keys::STATEMENTS,
        configured::agents::STATEMENTS,
        configured::breakers::STATEMENTS,
        configured::changes::STATEMENTS,
        configured::enrolment::STATEMENTS,
        configured::feeds::STATEMENTS,
        configured::freeze::STATEMENTS,
        configured::identities::STATEMENTS,
        configured::key_statements::STATEMENTS,
        configured::keys::STATEMENTS,
        configured::legal_holds::STATEMENTS,
        configured::policies::STATEMENTS,
        configured::protected::STATEMENTS,
        configured::secrets::STATEMENTS,
        configured::sessions::STATEMENTS,
        configured::signing_keys::STATEMENTS,
        configured::users::STATEMENTS,
        configured::wazuh_agents::STATEMENTS,
        configured::webhooks::STATEMENTS,
        database::presence::STATEMENTS,
        database::probe::STATEMENTS,
        doctor::STATEMENTS,
        ledger::alert_lists::STATEMENTS,
        ledger::alerts::STATEMENTS,
        ledger::approvals::STATEMENTS,
        ledger::audit::STATEMENTS,
        ledger::by_hand::STATEMENTS,
        ledger::checkpoints::STATEMENTS,
        ledger::commands::STATEMENTS,
        ledger::converge::STATEMENTS,
        ledger::effects::STATEMENTS,
        ledger::feeds::STATEMENTS,
        ledger::guard::STATEMENTS,
        ledger::end::STATEMENTS,
        ledger::events::STATEMENTS,
        ledger::failures::STATEMENTS,
        ledger::forgotten::STATEMENTS,
        ledger::forwarders::STATEMENTS,
        ledger::holds::STATEMENTS,
        ledger::idempotency::STATEMENTS,
        ledger::late_alerts::STATEMENTS,
        ledger::openc2::STATEMENTS,
        ledger::outcomes::STATEMENTS,
        ledger::queue::STATEMENTS,
        ledger::rejected::STATEMENTS,
        ledger::release::STATEMENTS,
        ledger::responses::STATEMENTS,
        ledger::retention::STATEMENTS,
        ledger::resync::STATEMENTS,
        ledger::settle::STATEMENTS,
        ledger::traces::STATEMENTS,
        ledger::settle::effects::STATEMENTS,
        ledger::settle::results::STATEMENTS,
        ledger::stages::STATEMENTS,
        ledger::standing::STATEMENTS,
        ledger::statistics::STATEMENTS,
        ledger::strangers::STATEMENTS,
        ledger::targets::STATEMENTS,
        ledger::lift_plans::STATEMENTS,
        ledger::waves::STATEMENTS,
        ledger::webhook_messages::STATEMENTS,
        seals::read::STATEMENTS,
        seals::sets::STATEMENTS,
        seals::whole::STATEMENTS,
        transfer::tables::STATEMENTS,
    ];
    modules.into_iter().flatten().copied()
}
