//! The API layer. `routes.rs` is the table of contents; each resource is one file with its
//! operations (its `routes`) and their handlers; their bodies are in `src/views/`. [`front`] is what
//! every request passes before its handler, [`state`] what handlers share. A handler extracts, calls
//! one function of a lower layer, and maps the result.

pub mod actions;
pub mod agent_key;
pub mod agents;
pub mod alerts;
pub mod approval_page;
pub mod audit;
pub mod auth;
pub mod backtest;
pub mod bundle;
pub mod commands;
mod contract;
mod contract_text;
pub mod counts;
pub mod crowdsec;
pub mod docs;
pub mod effects;
mod event_stream;
pub mod events;
pub mod exchange;
pub mod explain;
pub mod feeds;
pub mod forwarders;
pub mod freeze;
pub mod front;
pub mod health;
pub mod holds;
pub mod import;
pub mod ingest;
pub mod keys;
pub mod lift;
pub mod nodes;
pub mod oidc;
pub mod openc2;
pub mod outcomes;
pub mod policies;
pub mod poll;
pub mod protected;
pub mod pull;
pub mod rejected;
pub mod responses;
mod routes;
pub mod secrets;
mod service;
pub mod signing_key;
pub mod state;
pub mod statistics;
pub mod stream;
pub mod targets;
pub mod taxii;
pub mod users;
pub mod wazuh;
pub mod wazuh_agents;
pub mod webhooks;
pub mod whoami;

pub use contract::{contract, contract_yaml};
pub use contract_text::contract_file;
pub use service::router;
