//! The integration tests: one binary, the real program over real sockets, on a fresh database each.

mod support;

mod alerts;
mod auth;
mod contract;
mod corpus;
mod policies;
mod responses;
mod storage;

mod processes;

mod crash;
mod delivery;
mod real_drop;
