//! `/v1/forwarders`: the programs that bring alerts, as they report themselves.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::columns::Millis;

/// What a forwarder says of itself.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwarderReport {
    /// Version of the program.
    #[schema(max_length = 64, format = "one-line", example = "0.1.0")]
    pub version: String,
    /// Bytes of alerts, uncompressed, that are not forwarded yet.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub behind_bytes: i64,
    /// Time of the last alert that the manager took; absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_alert_at: Option<Timestamp>,
}

/// A forwarder.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForwarderRow {
    /// Name of the Wazuh manager.
    pub name: String,
    /// Principal whose key it has.
    pub principal: String,
    /// Version of the program.
    pub version: String,
    /// When it reported last.
    pub heard_at: Millis,
    /// Bytes that it had not forwarded then.
    pub behind_bytes: i64,
    /// Time of the last alert that the manager took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_alert_at: Option<Millis>,
    /// Whether it has not reported for five minutes.
    pub is_silent: bool,
}
