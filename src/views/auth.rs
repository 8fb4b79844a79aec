//! `/v1/auth`, `/v1/whoami` and the key set of access tokens: how a person gets and ends a session.
//! Bodies with passwords and tokens have no `Debug`, so that no log line can hold one.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::principal::Role;
use crate::domain::scope::Scope;

/// A login, or the refresh of a session: `username` and `password`, or `login_code` and
/// `code_verifier`, or `refresh_token`.
#[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AskToken {
    /// Login name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = "one-line")]
    pub username: Option<String>,
    /// Password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = "one-line")]
    pub password: Option<String>,
    /// One-time code of six digits, where the user has enrolled for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16, format = "one-line")]
    pub totp: Option<String>,
    /// The session's current refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = "one-line")]
    pub refresh_token: Option<String>,
    /// Code that a login at an OpenID provider returned, valid once and for a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = "one-line")]
    pub login_code: Option<String>,
    /// Verifier of the `code_challenge` that the login began with (RFC 7636).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = "one-line")]
    pub code_verifier: Option<String>,
}

/// The tokens of a session.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct IssuedToken {
    /// Signed access token, for `Authorization: Bearer`.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Validity of the access token, in seconds.
    pub expires_in: u64,
    /// The next refresh token, `rir_SESSION_SECRET`; the previous one is used up.
    pub refresh_token: String,
    /// Until when the refresh token is valid.
    pub refresh_expires_at: Timestamp,
    /// Rights, separated by spaces.
    pub scope: String,
    /// Name of the user; empty from a manager before single sign-on.
    #[serde(default)]
    pub username: String,
}

/// The end of a session that began at an OpenID provider.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EndedSession {
    /// Where the person ends the session at the provider too.
    pub end_session_url: String,
}

/// A change of one's own password.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// Login name.
    #[schema(max_length = 1024, format = "one-line")]
    pub username: String,
    /// Current password, which may be a temporary one.
    #[schema(max_length = 1024, format = "one-line")]
    pub password: String,
    /// One-time code of six digits, where the user has enrolled for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16, format = "one-line")]
    pub totp: Option<String>,
    /// New password, other than the current one and the name.
    #[schema(min_length = 12, max_length = 1024, format = "one-line")]
    pub new_password: String,
}

/// A secret for one-time codes (RFC 6238), shown once. It is active after a confirmed code.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewTotp {
    /// The secret in base32.
    pub secret: String,
    /// The same as a URI, which authenticator programs read as a QR code.
    pub otpauth_uri: String,
}

/// A one-time code.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    /// Six digits.
    #[schema(max_length = 16, format = "one-line")]
    pub code: String,
}

/// Kind of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person, by a session or a personal key.
    User,
    /// A service key.
    Service,
}

/// Kind of the credentials of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// An access token of a session.
    Session,
    /// An API key.
    Key,
}

/// The caller, as this manager sees it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WhoAmI {
    /// The principal as in the audit log: `user:NAME`, or `key:ID` for a service key.
    pub principal: String,
    /// Kind of the principal.
    pub kind: PrincipalKind,
    /// The user's name, or that of the service key.
    pub name: String,
    /// Current role.
    pub role: Role,
    /// Current rights.
    pub rights: Vec<String>,
    /// What the principal may do at most, beside the role; all of these apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// Kind of the credentials.
    pub via: CredentialKind,
    /// Public part of the API key, with `via` = `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Until when the key or the session is valid; absent: until revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether the API key expires within 14 days.
    #[serde(default)]
    pub expires_soon: bool,
    /// Client address of this request.
    pub address: String,
}

/// A key set (RFC 7517): the public keys of access tokens.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeySet {
    /// The previous, the current and the next key.
    pub keys: Vec<PublicJwk>,
}

/// A public key (RFC 8037).
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublicJwk {
    /// Always `OKP`.
    pub kty: String,
    /// Always `Ed25519`.
    pub crv: String,
    /// The key in base64url.
    pub x: String,
    /// Id of the key, as in the header of a token.
    pub kid: String,
    /// Always `EdDSA`.
    pub alg: String,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: String,
}
