//! The ledger: what happened and what is owed. [`alerts`] become [`responses`], whose [`holds`] on
//! effects ([`standing`]) become [`commands`]; [`guard`] and [`approvals`] decide which may act, and
//! [`settle`] and [`converge`] record what agents report. A [`release`] ends holds and the responses
//! without any ([`end`]). Every change is committed in an [`audit::LedgerTx`].

pub mod alert_lists;
pub mod alerts;
pub mod approvals;
pub mod audit;
pub mod audit_head;
pub(in crate::store) mod by_hand;
pub mod checkpoints;
pub mod commands;
pub mod contained;
pub mod converge;
pub mod effects;
pub mod end;
pub mod events;
pub mod failures;
pub mod feeds;
pub mod forgotten;
pub mod forwarders;
pub mod guard;
pub mod holds;
pub mod idempotency;
pub mod late_alerts;
pub mod lift_plans;
pub mod openc2;
pub mod outcomes;
pub mod queue;
pub mod rejected;
pub mod release;
mod removed_texts;
pub mod responses;
pub mod resync;
pub mod retention;
pub mod settle;
pub mod stages;
pub mod standing;
pub mod statistics;
pub mod story;
pub mod strangers;
pub mod targets;
pub mod trace_queue;
pub mod traces;
pub mod waves;
pub mod webhook_messages;
