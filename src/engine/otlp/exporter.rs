//! The way to the collector: POST of protobuf, by the rules for calls of the manager. A failure that may
//! pass is tried again a few times; then the data are dropped, because newer ones wait.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use tokio_util::sync::CancellationToken;

use crate::engine::egress::client::{ClientSettings, EgressClient};
use crate::engine::egress::error::{EgressError, words};
use crate::engine::egress::rules::Egress;

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Delays before the second try and those after it.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Longest delay that a collector can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What the configuration says about the export.
#[derive(Clone, Debug)]
pub struct OtlpSettings {
    /// Base URL of the collector.
    pub endpoint: Url,
    /// Headers of each request, such as a key. Marked as sensitive, so that no log has them.
    pub headers: HeaderMap,
    /// Traces that are recorded, of a million.
    pub sample_millionths: u32,
    /// Time between two exports.
    pub interval: Duration,
}

/// The collector.
#[derive(Debug)]
pub struct OtlpExporter {
    client: EgressClient,
    pub(super) settings: OtlpSettings,
}

/// Why an export failed, and whether it may succeed when it is tried again.
struct Failure {
    why: String,
    again: Option<Duration>,
}

impl OtlpExporter {
    /// A collector at the endpoint, whose host counts as listed.
    ///
    /// # Errors
    /// [`EgressError::Client`] or [`EgressError::NoHost`].
    pub fn new(egress: &Egress, settings: OtlpSettings) -> Result<Self, EgressError> {
        let client = egress.client(ClientSettings {
            authorities: Vec::new(),
            is_plain: settings.endpoint.scheme() == "http",
            listed: Some(settings.endpoint.clone()),
            timeout: TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
        })?;
        Ok(Self { client, settings })
    }

    /// Where it is, without path and query.
    pub(super) fn place(&self) -> String {
        format!("the OTLP collector {}", self.settings.endpoint.origin().ascii_serialization())
    }

    /// Posts a request for one signal, `traces` or `metrics`. After `stop` it is tried once only.
    ///
    /// # Errors
    /// Why the collector does not have it, in words.
    pub(super) async fn post(&self, signal: &str, body: Vec<u8>, stop: &CancellationToken) -> Result<(), String> {
        let mut url = self.settings.endpoint.clone();
        url.set_path(&format!("{}/v1/{signal}", url.path().trim_end_matches('/')));
        let body = bytes::Bytes::from(body);
        let mut delays = RETRIES.into_iter();
        loop {
            let Failure { why, again } = match self.try_once(&url, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let (Some(asked), Some(delay)) = (again, delays.next()) else { return Err(why) };
            tokio::select! {
                () = tokio::time::sleep(delay.max(asked)) => {}
                () = stop.cancelled() => return Err(why),
            }
        }
    }

    async fn try_once(&self, url: &Url, body: bytes::Bytes) -> Result<(), Failure> {
        let lasting = |error: EgressError| Failure { why: words(&error), again: None };
        let request = self.client.request(Method::POST, url).map_err(lasting)?;
        let request = request.headers(self.settings.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/x-protobuf").body(body);
        let passing = |error: reqwest::Error| Failure { why: words(&error.without_url()), again: Some(Duration::ZERO) };
        let response = request.send().await.map_err(passing)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        // The statuses that OTLP names as passing.
        let may_pass = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let asked = Duration::from_secs(asked.unwrap_or(0)).min(MAX_RETRY_AFTER);
        Err(Failure { why: format!("it answered {status}"), again: may_pass.then_some(asked) })
    }
}
