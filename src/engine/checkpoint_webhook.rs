//! The webhook of checkpoints: a POST of each one, signed by Standard Webhooks. A receiver that takes one
//! twice knows it by its `webhook-id`, which follows from the checkpoint.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Url};
use riposte_protocol::time::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::egress::client::{ClientSettings, EgressClient};
use super::egress::error::{EgressError, words};
use super::egress::rules::Egress;
use crate::domain::webhook::WebhookSecret;
use crate::store::ledger::checkpoints::StoredCheckpoint;

/// Time limit of one request: that of a round at a place.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Type of the message in its body.
const TYPE: &str = "audit.checkpoint";

/// A receiver of checkpoints, with the secret that it verifies them with.
#[derive(Debug)]
pub struct CheckpointWebhook {
    client: EgressClient,
    url: Url,
    secret: WebhookSecret,
}

impl CheckpointWebhook {
    /// A receiver at `url`, whose host counts as listed.
    ///
    /// # Errors
    /// [`EgressError::Client`] or [`EgressError::NoHost`].
    pub fn new(egress: &Egress, url: Url, secret: WebhookSecret) -> Result<Self, EgressError> {
        let client = egress.client(ClientSettings {
            authorities: Vec::new(),
            // The configuration has plain HTTP for a loopback address only.
            is_plain: url.scheme() == "http",
            listed: Some(url.clone()),
            timeout: TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
        })?;
        Ok(Self { client, url, secret })
    }

    /// Where it is, without path and query: they may be what lets a caller in.
    pub(super) fn place(&self) -> String {
        format!("the webhook {}", self.url.origin().ascii_serialization())
    }

    /// Posts one checkpoint at `now`.
    ///
    /// # Errors
    /// Why the receiver does not have it, in words.
    pub(super) async fn post(&self, checkpoint: &StoredCheckpoint, now: Timestamp) -> Result<(), String> {
        let StoredCheckpoint { seq, token } = checkpoint;
        let digest: String =
            Sha256::digest(token.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let (id, seconds) = (format!("checkpoint_{digest}"), now.as_secs().to_string());
        let data = json!({"seq": seq, "checkpoint": token});
        let body = json!({"type": TYPE, "timestamp": now, "data": data}).to_string();
        let signature = self.secret.sign(&id, &seconds, body.as_bytes());
        let request = self.client.request(Method::POST, &self.url).map_err(|error| words(&error))?;
        let request = request.header(CONTENT_TYPE, "application/json").header("webhook-id", id);
        let request = request.header("webhook-timestamp", seconds).header("webhook-signature", signature).body(body);
        let response = request.send().await.map_err(|error| words(&error.without_url()))?;
        if response.status().is_success() { Ok(()) } else { Err(format!("it answered {}", response.status())) }
    }
}
