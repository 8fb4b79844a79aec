//! What the demo and the day before it share: the samples, and waiting for a manager.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::client::Remote;
use crate::views::agents::AgentView;
use crate::views::page::Page;

/// The policies of the demo.
pub(super) const POLICIES: &str = include_str!("policies.json");
/// The sample alerts.
pub(super) const ALERTS: &str = include_str!("alerts.json");
/// Polling interval of the audit log.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// Time limit for the agent's connection, and for the last revert.
const PATIENCE: Duration = Duration::from_secs(30);
/// Validity of the agent's enrolment token.
pub(super) const TOKEN_LASTS: &str = "1h";

pub(super) async fn ready(manager: &str, key_file: PathBuf) -> anyhow::Result<Remote> {
    let remote = Remote::to(manager, key_file);
    patiently("the manager to be ready", async || remote.get::<Page<AgentView>>("/v1/agents").await.ok()).await?;
    Ok(remote)
}

/// Repeats a request until it succeeds or times out.
pub(super) async fn patiently<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("waited too long for {what}"))
}

/// A sample alert: what is printed of it, and the rest as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SampleAlert {
    pub(super) rule: SampleRule,
    pub(super) agent: SampleAgent,
    pub(super) data: SampleData,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SampleRule {
    pub(super) id: String,
    pub(super) level: u8,
    pub(super) description: String,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SampleAgent {
    pub(super) id: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SampleData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) srcip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dstuser: Option<String>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// A sample alert as a Wazuh manager would send it at this time.
#[derive(Debug, Serialize)]
pub(super) struct SentAlert {
    pub(super) timestamp: Timestamp,
    pub(super) id: String,
    pub(super) manager: SendingManager,
    #[serde(flatten)]
    pub(super) sample: SampleAlert,
}

#[derive(Debug, Serialize)]
pub(super) struct SendingManager {
    pub(super) name: &'static str,
}

impl SentAlert {
    pub(super) fn new(sample: SampleAlert, number: usize, timestamp: Timestamp) -> Self {
        let id = format!("{}.{number}", timestamp.as_secs());
        Self { timestamp, id, manager: SendingManager { name: "demo" }, sample }
    }
}
