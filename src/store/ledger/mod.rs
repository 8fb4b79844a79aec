//! The ledger: what happened and what is owed. [`alerts`] become [`responses`], whose [`holds`] on
//! [`effects`] become [`commands`]; [`guard`] and [`approvals`] decide which may act, and [`settle`]
//! and [`converge`] record what agents report. Every change is committed in an [`audit::LedgerTx`].

pub mod alerts;
pub mod approvals;
pub mod audit;
pub mod audit_head;
pub mod commands;
pub mod converge;
pub mod effects;
mod failures;
pub mod guard;
pub mod holds;
pub mod idempotency;
pub mod outcomes;
mod queue;
pub mod responses;
pub mod resync;
pub mod settle;
pub mod story;
mod strangers;
pub mod waves;
