//! The caller of an OpenC2 command: any credentials of `/v1`, or an API key as the password of Basic
//! authentication, beside any name.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::front::auth::{Caller, Needed, basic, of_key};
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::state::AppState;
use crate::domain::principal::Principal;
use crate::domain::right::Right;

/// An authenticated principal that has the right `R`.
#[derive(Debug)]
pub(super) struct OpenC2Caller<R: Needed>(Caller<R>);

impl<R: Needed> OpenC2Caller<R> {
    /// The principal.
    pub(super) const fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// Checks a further right.
    ///
    /// # Errors
    /// 403 without it.
    pub(super) fn may(&self, right: Right) -> ApiResult<()> {
        self.0.may(right)
    }
}

impl<R: Needed> FromRequestParts<AppState> for OpenC2Caller<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let Some((_, key)) = basic(parts) else { return Caller::from_request_parts(parts, state).await.map(Self) };
        match of_key(&state.engine, &key) {
            Some(principal) => Caller::admit(parts, state, principal).map(Self),
            None => {
                let why = "the password is no valid API key: a program logs in with a key, beside any name";
                Err(state.auth_failures.refuse(&state.engine, parts, why))
            }
        }
    }
}
