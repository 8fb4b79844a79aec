//! What the API says: the bodies of requests and responses, one file a resource. The API writes
//! them and the command line reads them, so neither knows a field that the other does not. A body
//! is defined here and nowhere else; the contract's schemas come from here too.
//!
//! Bodies of responses ignore unknown fields, because a manager may be newer than its client; those
//! of requests refuse them. A `…Row` is read straight from the store. There is no rule and no I/O.

pub mod actions;
pub mod agents;
pub mod alerts;
pub mod audit;
pub mod auth;
pub mod backtest;
pub mod bundle;
pub mod columns;
pub mod commands;
pub mod crowdsec;
pub mod document;
pub mod effects;
pub mod events;
pub mod explain;
pub mod feeds;
pub mod field_errors;
pub mod forwarders;
pub mod freeze;
pub mod health;
pub mod import;
pub mod keys;
pub mod legal_holds;
pub mod nodes;
pub mod oidc;
pub mod page;
pub mod policies;
pub mod problem;
pub mod protected;
pub mod responses;
pub mod secrets;
pub mod signing_key;
pub mod statistics;
pub mod targets;
pub mod taxii;
pub mod users;
pub mod wazuh;
pub mod webhooks;
pub mod words;
