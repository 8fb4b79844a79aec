//! `/v1/auth/oidc` and `/v1/users/{name}/identities`: single sign-on at OpenID providers.

use serde::{Deserialize, Serialize};

use super::columns::Millis;

/// An OpenID provider.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignOnProvider {
    /// Its name.
    pub name: String,
}

/// The OpenID providers at which people can log in.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignOnProviders {
    /// In the order of the configuration.
    pub providers: Vec<SignOnProvider>,
}

/// An identity of a user at an OpenID provider.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IdentityRow {
    /// Issuer of the provider.
    pub issuer: String,
    /// Id of the person there (`sub`).
    pub subject: String,
    /// Name of the user.
    pub user_name: String,
    /// Whether each login there sets the role by the groups. If not, an administrator sets it.
    pub role_from_groups: bool,
    /// Creation time.
    pub created_at: Millis,
    /// Principal that linked it: the user at the first login, or an administrator.
    pub created_by: String,
}

/// The identities of a user.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UserIdentities {
    /// By issuer.
    pub identities: Vec<IdentityRow>,
}

/// An identity to link to a user.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkIdentity {
    /// Id of the person at the provider (`sub`).
    #[schema(min_length = 1, max_length = 255, format = "one-line")]
    pub subject: String,
    /// Whether each login there sets the role by the groups.
    #[serde(default)]
    pub role_from_groups: bool,
}

/// What a browser takes to the program that began a login: `code`, or `error` with its description.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SignOnResult {
    /// Login code, for `POST /v1/auth/token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `access_denied`, or `temporarily_unavailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why there is no code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}
