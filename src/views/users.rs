//! `/v1/users`: the people who may log in. A password is never in a response, except a temporary
//! one in the response to the request that made it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::Millis;
use super::field_errors;
use crate::domain::principal::Role;
use crate::domain::scope::Scope;

/// A person.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UserRow {
    /// Login name; never given to another person. `forgotten-…` is the pseudonym of a person who was forgotten.
    pub name: String,
    /// Role, which decides the rights.
    pub role: Role,
    /// Version, for `If-Match`.
    pub version: i64,
    /// Whether the password is temporary and must be changed at the next login.
    pub must_change_password: bool,
    /// Whether a login needs a one-time code.
    pub has_totp: bool,
    /// Creation time.
    pub created_at: Millis,
    /// Principal that created the user.
    pub created_by: String,
    /// Time of the last change by an administrator.
    pub changed_at: Millis,
    /// Since when the user cannot log in; absent: enabled.
    pub disabled_at: Option<Millis>,
    /// Deletion time; a deleted user stays disabled for ever.
    pub deleted_at: Option<Millis>,
    /// Time of the last login.
    pub last_login_at: Option<Millis>,
    /// Address of the last login.
    pub last_login_from: Option<String>,
    /// What the person may do at most, beside the role.
    #[sqlx(try_from = "Option<String>")]
    #[serde(default, skip_serializing_if = "Scope::is_unlimited")]
    pub scope: Scope,
}

/// A person who was forgotten.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForgottenUser {
    /// What took the place of the name.
    pub pseudonym: String,
}

/// A person to create.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Login name, which the person keeps for ever.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "alice")]
    pub name: String,
    /// Role; `ingest` is for keys of pipelines only.
    pub role: Role,
    /// Password; absent: a temporary one is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 12, max_length = 1024, format = "one-line")]
    pub password: Option<String>,
    /// What the person may do at most, beside the role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Scope>)]
    pub scope: Option<Value>,
}

/// A new person.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreatedUser {
    /// The person.
    #[serde(flatten, deserialize_with = "field_errors::read")]
    pub user: UserRow,
    /// The generated password, shown once; absent if the request has one, and in the response to a
    /// retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary_password: Option<String>,
}

/// A change of a person.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// New role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether the person can log in. Disabling ends all sessions and stops personal keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_disabled: Option<bool>,
    /// What the person may do at most; `{}` takes all limits away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Scope>)]
    pub scope: Option<Value>,
}

/// A request for a new temporary password.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    /// Whether the one-time codes are removed too, for a person who lost the device.
    #[serde(default)]
    pub remove_totp: bool,
}

/// A new temporary password.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub struct NewPassword {
    /// The password, shown once. It must be changed before a token is issued.
    pub temporary_password: String,
}
