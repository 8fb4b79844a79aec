//! `/v1/feeds`: lists of addresses in force that firewalls and bouncers fetch, with who has fetched what. The lists
//! themselves are served in `pull.rs` and `crowdsec/`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::front::auth::{Caller, Read, WritePolicies};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::{IfMatch, Json, Path, Query};
use super::front::page::{limit, page};
use super::front::table::{Table, operations};
use super::state::AppState;
use crate::domain::duration::Span;
use crate::engine::feed_changes::spec_of;
use crate::store::configured::feeds::{self, FeedRow};
use crate::views::feeds::{FeedDocument, FeedView};
use crate::views::page::Page;

/// Why a caller that is limited to some agents or policies may not.
const ABOUT_ALL: &str = "feeds are about all agents and policies";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list, create)).with(operations!(find, replace, delete))
}

/// Filter of a list of feeds.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFeeds {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Lists feeds by name, with their consumers
#[utoipa::path(get, path = "/v1/feeds", tag = "feeds", params(ListFeeds),
    responses((status = 200, body = Page<FeedView>)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Query(query): Query<ListFeeds>,
    uri: Uri,
) -> ApiResult<Response> {
    caller.unlimited(ABOUT_ALL)?;
    let limit = limit(query.limit)?;
    let rows = feeds::list(&state.engine.db, query.cursor.as_deref().unwrap_or_default(), limit + 1).await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        views.push(view(&state, row).await?);
    }
    Ok(page(views, limit, &uri, |view: &FeedView| view.name.clone()))
}

/// Returns one feed with its consumers, and what each must still be told
#[utoipa::path(get, path = "/v1/feeds/{name}", tag = "feeds", params(("name" = String, Path)),
    responses((status = 200, body = FeedView)))]
pub async fn find(
    caller: Caller<Read>,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    caller.unlimited(ABOUT_ALL)?;
    answer(&state, StatusCode::OK, &name).await
}

/// Creates a feed
///
/// A consumer fetches it with a key whose scope is `{"rights": ["pull_feeds"], "feeds": [NAME]}`.
#[utoipa::path(post, path = "/v1/feeds", tag = "feeds", params(("Idempotency-Key" = Option<String>, Header)),
    request_body = FeedDocument, responses((status = 201, body = FeedView), (status = 409)))]
pub async fn create(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    body: Json<FeedDocument>,
) -> ApiResult<Response> {
    caller.unlimited(ABOUT_ALL)?;
    let once = body.once(&caller.principal);
    let name = state.engine.create_feed(body.value, once, &caller.principal).await?;
    answer(&state, StatusCode::CREATED, &name).await
}

/// Replaces a feed
///
/// `If-Match` must carry the `ETag` that was read.
#[utoipa::path(put, path = "/v1/feeds/{name}", tag = "feeds",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = FeedDocument,
    responses((status = 200, body = FeedView), (status = 409)))]
pub async fn replace(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
    body: Json<FeedDocument>,
) -> ApiResult<Response> {
    caller.unlimited(ABOUT_ALL)?;
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.replace_feed(&name, version, body.value, &caller.principal).await?;
    answer(&state, StatusCode::OK, &name).await
}

/// Deletes a feed
///
/// Its consumers get 404 from then on, and most keep the list that they have.
#[utoipa::path(delete, path = "/v1/feeds/{name}", tag = "feeds",
    params(("name" = String, Path), ("If-Match" = String, Header)), responses((status = 204), (status = 409)))]
pub async fn delete(
    caller: Caller<WritePolicies>,
    State(state): State<AppState>,
    Path(name): Path<String>,
    IfMatch(version): IfMatch,
) -> ApiResult<StatusCode> {
    caller.unlimited(ABOUT_ALL)?;
    let version = version.ok_or_else(ApiError::version_needed)?;
    state.engine.delete_feed(&name, version, &caller.principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn answer(state: &AppState, status: StatusCode, name: &str) -> ApiResult<Response> {
    let row = feeds::find(&state.engine.db, name).await?;
    let view = view(state, row.ok_or_else(|| unknown(name))?).await?;
    Ok((status, [(header::ETAG, format!("\"{}\"", view.version))], axum::Json(view)).into_response())
}

/// 404 for a feed.
pub(super) fn unknown(name: &str) -> ApiError {
    ApiError::not_found(format!("feed {name:?} does not exist"))
}

async fn view(state: &AppState, row: FeedRow) -> ApiResult<FeedView> {
    let engine = &state.engine;
    let document: FeedDocument = row.document.read().map_err(|error| ApiError::internal(&error))?;
    // The one in use, whose seal was looked at. A feed that another manager has just created is not in use here yet.
    let spec = engine.feed_spec(&row.name).unwrap_or_else(|| Arc::new(spec_of(&document, row.version)));
    let served = engine.feed_list(&spec).await?;
    let entries = served.too_many.unwrap_or_else(|| served.list.listed().count());
    let FeedDocument { name, form, policies, labels, min_left, note, .. } = document;
    Ok(FeedView {
        name,
        form,
        policies,
        labels,
        actions: spec.actions.clone(),
        min_left,
        networks: spec.networks,
        max_entries: spec.max_entries,
        expected_interval: Span::of(spec.expected_interval),
        note,
        version: row.version,
        created_at: row.created_at,
        updated_at: row.updated_at,
        updated_by: row.updated_by,
        entries: i64::try_from(entries).unwrap_or(i64::MAX),
        sequence: served.event,
        too_long_since: served.over_since.map(Into::into),
        consumers: engine.consumers_of(&served).await?,
    })
}
