//! What people configure, and who may take part: policies with their breakers, custom actions,
//! protected entries and the freeze; agents, people with their sessions, API keys and the signing key. Every change is committed
//! in a [`LedgerTx`](super::ledger::audit::LedgerTx), which records the [`caches`] that it makes
//! stale.

pub mod actions;
pub mod agent_keys;
pub mod agents;
pub mod breakers;
pub mod caches;
pub mod changes;
pub mod enrolment;
pub mod feeds;
pub mod freeze;
pub mod identities;
pub mod key_statements;
pub mod keys;
pub mod legal_holds;
pub mod policies;
pub mod protected;
mod scope;
pub mod secrets;
pub mod sessions;
pub mod signing_keys;
pub mod users;
pub mod wazuh_agents;
pub mod webhooks;
