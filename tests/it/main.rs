//! The integration tests: one binary, the real program over real sockets, on a fresh database each.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here fails the test")]

#[macro_use]
mod support;

mod accounts;
mod actions;
mod agent_keys;
mod alerts;
mod attacks;
mod audit;
mod auth;
mod backtest;
mod bounds;
mod bundles;
mod by_hand;
mod checkpoint_webhook;
mod checkpoints;
mod cluster;
mod commands;
mod compose;
mod conformance;
mod contract;
mod controls;
mod convergence;
mod corpus;
mod credentials;
mod deciding;
mod events;
mod events_limits;
mod events_process;
mod guardrails;
mod import;
mod in_force;
mod key_rotation;
mod limits;
mod many;
mod matrix;
mod metrics;
mod operations;
mod outcomes;
mod people;
mod policies;
mod priority;
mod properties;
mod protected;
mod proxies;
mod quorums;
mod reading;
mod repeats;
mod response_cli;
mod responses;
mod seals;
mod sign_on;
mod staging;
mod storage;
mod words;

mod processes;

mod config_cli;
mod docs;
mod policy_cli;
mod policy_import_cli;
mod policy_library;

mod compatibility;
mod crash;
mod delivery;
mod field_agent;
mod headers;
mod health;
mod legal_holds;
mod log;
mod login_cli;
mod nodes;
mod own_ids;
mod real_agent;
mod real_drop;
mod recovery;
mod rejected_orders;
mod retention;
mod retention_crash;
mod scopes;
mod scripts;
mod sealed_keys;
mod secrets;
mod sign_on_cli;
mod signing_key;
mod tls;
mod transfer;
mod transports;
mod unreachable;
mod unsuitable;
