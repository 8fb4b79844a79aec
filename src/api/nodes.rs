//! `/v1/nodes`: the managers on one ledger.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Deserialize;

use super::front::auth::{Caller, Read};
use super::front::error::ApiResult;
use super::front::extract::Query;
use super::front::page::{cursor_id, limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::views::nodes::Node;
use crate::views::page::Page;

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list))
}

/// Filter of a list of managers.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListNodes {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists the managers on this ledger
///
/// Oldest first, with their duties. One whose lease has ended stays listed for an hour.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(ListNodes),
    responses((status = 200, body = Page<Node>)))]
pub async fn list(
    _: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListNodes>,
    uri: Uri,
) -> ApiResult<Response> {
    let (limit, after) = (limit(query.limit)?, cursor_id(query.cursor.as_deref())?.map(|id| id.to_string()));
    let nodes = state.engine.nodes().await?;
    let rest = nodes.into_iter().filter(|node| after.as_ref().is_none_or(|after| node.id > *after));
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    Ok(page(rest.take(most).collect(), limit, &uri, |node| node.id.clone()))
}
