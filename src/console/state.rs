//! What every page shares.

use std::sync::Arc;

use axum::Router;

use super::shared_reads::SharedReads;
use super::tokens::{FormTokens, Refreshes};
use crate::api::front::memory::MemoryBudget;
use crate::engine::Engine;

/// What every page shares; cheap to clone.
#[derive(Clone)]
pub(super) struct Console {
    /// The API.
    pub(super) api: Router,
    /// The engine, for the clock, keys and names; pages change nothing through it.
    pub(super) engine: Arc<Engine>,
    pub(super) forms: Arc<FormTokens>,
    pub(super) refreshes: Arc<Refreshes>,
    pub(super) reads: Arc<SharedReads>,
    /// Memory for forms of people who have logged in.
    pub(super) people: MemoryBudget,
    /// Memory for forms without a session.
    pub(super) strangers: MemoryBudget,
    /// Whether browsers reach the manager over TLS.
    pub(super) is_tls: bool,
}
