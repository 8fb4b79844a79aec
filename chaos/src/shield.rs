//! A client that protects a network while faults happen, and retries until the manager accepts it.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::clock::now_ms;
use crate::plan::{Network, Plan};

/// Limit of attempts: faults last for seconds.
const ATTEMPTS: usize = 60;

/// When a network became protected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turned {
    /// Time of the first request, in Unix milliseconds: the network may be protected from here on.
    pub(crate) asked_at_ms: i64,
    /// Time of the manager's acceptance, in Unix milliseconds: the network must be protected from
    /// here on.
    pub(crate) granted_at_ms: i64,
}

/// The running task.
#[derive(Debug)]
pub(crate) struct Shield(JoinSet<anyhow::Result<Turned>>);

impl Shield {
    /// Starts a task that protects [`Network::TURNING`] after `pause`.
    pub(crate) fn start(api: Api, pause: Duration) -> Self {
        let mut task = JoinSet::new();
        task.spawn(turn(api, pause));
        Self(task)
    }

    /// The two times.
    ///
    /// # Errors
    /// If the network could not be protected.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Turned> {
        self.0.join_next().await.context("no protection task is running")??
    }
}

/// Repeats the request until it is answered.
async fn turn(api: Api, pause: Duration) -> anyhow::Result<Turned> {
    tokio::time::sleep(pause).await;
    let asked_at_ms = now_ms();
    let mut attempts = 1;
    loop {
        match api.post_as("turning", "/v1/protected", &Plan::protected(Network::TURNING)).await {
            Ok(_) => return Ok(Turned { asked_at_ms, granted_at_ms: now_ms() }),
            Err(error) if attempts == ATTEMPTS => return Err(error.context("a network could not be protected")),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
        attempts += 1;
    }
}
