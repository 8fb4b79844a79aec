//! `/v1/actions`: what agents can be asked to do.

use axum::http::Uri;
use axum::response::Response;

use super::auth::{Caller, Read};
use super::page::{Page, page};
use crate::domain::action::{ACTIONS, Action};

/// Lists the actions
#[utoipa::path(get, path = "/v1/actions", tag = "actions", responses((status = 200, body = Page<Action>)))]
pub async fn list(_: Caller<Read>, uri: Uri) -> Response {
    page(ACTIONS.to_vec(), i64::MAX, &uri, |action| action.name.to_owned())
}
