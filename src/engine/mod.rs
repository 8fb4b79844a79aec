//! The engine layer: one file per stage of the flow. [`intake`] parses alerts and has them decided
//! ([`decide`]) and committed; the [`hub`] knows the connections, [`deliver`] the pending commands;
//! [`undo`] ends expired responses, and the [`sweep`] owns every other deadline. They share an
//! [`Engine`] (`state.rs`), and `start.rs` starts them.
//!
//! The store is the only durable state. Policies, agents and keys are cached as immutable snapshots
//! that are replaced on change.

pub mod access_tokens;
mod account_duties;
mod actions;
pub mod agent_keys;
pub mod agent_tokens;
pub mod agents;
mod agreement;
pub mod announcements;
pub mod backtest;
mod cache;
pub mod capabilities;
mod checkpoint_copies;
pub mod checkpoint_webhook;
pub mod checkpoints;
pub mod clocks;
pub mod conditions;
mod connections;
pub mod decide;
pub mod deliver;
pub mod deliveries;
pub mod denials;
pub mod egress;
mod epochs;
pub mod event_filter;
pub mod failed_logins;
pub mod feed;
pub mod feed_changes;
mod feed_reader;
mod forget;
pub mod health;
pub mod hub;
pub mod idempotency;
mod identities;
mod import;
pub mod incident;
pub mod intake;
mod key_numbers;
pub mod key_recovery;
pub mod key_rotation;
pub mod key_tokens;
pub mod key_uses;
pub mod keys;
pub mod last_look;
pub mod ledger_gauges;
mod legal_holds;
pub mod lockouts;
mod log_beginning;
pub mod login;
mod nodes;
pub mod oidc;
mod one_time_codes;
mod openc2;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod owed_batch;
mod own_ids;
pub mod passwords;
mod peer_watch;
pub mod peers;
mod people;
mod policies;
pub mod policy_tests;
mod presence_news;
mod protected;
pub mod pull_feeds;
pub mod readiness;
pub mod refusal;
mod rejected;
pub mod respond;
pub mod retention;
pub mod retention_ages;
pub mod rules;
mod scopes;
mod seal_watch;
mod secret_changes;
pub mod secret_values;
pub mod secrets;
pub mod sign_on;
pub mod signer;
mod start;
mod state;
pub mod sweep;
mod syslog;
mod told_presence;
pub mod undo;
pub mod undo_timer;
mod users;
mod wazuh_agents;
pub mod webhooks;

pub use state::{Engine, EngineSettings, ManagerKeys};
