//! The caller of an operation below `/wazuh`: any credentials of `/v1`, or a token that stands for an API key.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::front::auth::{Caller, Needed, of_key_token};
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::state::AppState;
use crate::domain::principal::Principal;

/// An authenticated principal that has the right `R`.
#[derive(Debug)]
pub(super) struct WazuhCaller<R: Needed> {
    /// The principal.
    pub(super) principal: Principal,
    right: PhantomData<R>,
}

impl<R: Needed> FromRequestParts<AppState> for WazuhCaller<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let caller = match of_key_token(&state.engine, parts) {
            Some(Ok(principal)) => Caller::<R>::admit(parts, state, principal)?,
            Some(Err(why)) => return Err(state.auth_failures.refuse(&state.engine, parts, &why)),
            None => Caller::<R>::from_request_parts(parts, state).await?,
        };
        Ok(Self { principal: caller.principal, right: PhantomData })
    }
}
