//! `/v1/api-keys`: keys for people and pipelines.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::Millis;
use super::field_errors;
use crate::domain::duration::Span;
use crate::domain::principal::Role;
use crate::domain::scope::Scope;

/// An API key, without its secret.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyRow {
    /// Public part of the key.
    pub id: String,
    /// Purpose, as the operator named it.
    pub name: String,
    /// Role, which decides the key's rights. A personal key never has more rights than its user.
    pub role: Role,
    /// The person that a personal key belongs to; absent for a service key.
    #[sqlx(rename = "user_name")]
    pub user: Option<String>,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// Creation time.
    pub created_at: Millis,
    /// Principal that created it.
    pub created_by: String,
    /// Expiry time; absent: valid until revoked.
    pub expires_at: Option<Millis>,
    /// Revocation time, if revoked.
    pub revoked_at: Option<Millis>,
    /// Time of the last request with it, to the minute.
    pub last_used_at: Option<Millis>,
    /// Client address of that request.
    pub last_used_from: Option<String>,
    /// Whether its sender signs requests instead of sending the key.
    #[serde(default)]
    pub is_webhook: bool,
    /// Fingerprint of the client certificate that stands for it: SHA-256 in hexadecimal. Such a key has no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What it may do at most, beside the role; a personal key is limited by its user's scope too.
    #[sqlx(try_from = "Option<String>")]
    #[serde(default, skip_serializing_if = "Scope::is_unlimited")]
    pub scope: Scope,
}

/// Kind of an API key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// A key of a program: a principal of its own, which counts in no quorum.
    #[default]
    Service,
    /// A key of a person: its requests are the person's.
    Personal,
}

/// An API key in a list.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyView {
    /// The key.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub key: KeyRow,
    /// Kind of the key.
    pub kind: KeyKind,
    /// Whether it expires within 14 days.
    pub expires_soon: bool,
}

/// An API key to create.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Purpose of the key.
    #[schema(min_length = 1, max_length = 128, format = "one-line")]
    pub name: String,
    /// Kind of the key; `personal` is for oneself.
    #[serde(default)]
    pub kind: KeyKind,
    /// Role, which decides the key's rights; for a personal key at most one's own, and not `ingest`.
    pub role: Role,
    /// The pipeline that the key sends alerts for. Alerts are deduplicated among keys of the same
    /// pipeline. A replacement key, or a second sender of the same alerts, names the same pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "siem-1")]
    pub pipeline: Option<String>,
    /// Validity; absent: until revoked, or 90 days for a personal key, which has 365 days at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "duration-text", example = "90d")]
    pub expires_in: Option<Span>,
    /// Make the key of a sender that signs its requests (Standard Webhooks); only with the role `ingest`.
    #[serde(default)]
    pub webhook: bool,
    /// A client certificate in PEM, which is its only credential; for consumers of feeds, whose scope has the right
    /// `pull_feeds` alone. The authorities in `tls_client_ca` must have signed it; the key ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65536)]
    pub certificate: Option<String>,
    /// What it may do at most, beside the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Scope>)]
    pub scope: Option<Value>,
}

/// A new API key; its secret is shown once.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedKey {
    /// Public part of the key.
    pub id: String,
    /// The whole key, `rip_ID_SECRET`; absent in the response to a retry, because only its hash is
    /// stored, and of a key with a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The secret that the sender signs with, `whsec_…`, of a key that was made with `webhook`; its requests go
    /// to `/v1/ingest/ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
    /// Kind of the key.
    pub kind: KeyKind,
    /// Role, which decides the key's rights.
    pub role: Role,
    /// Pipeline that the key is bound to, if any.
    pub pipeline: Option<String>,
    /// Expiry time; absent: until revoked.
    pub expires_at: Option<Timestamp>,
}
