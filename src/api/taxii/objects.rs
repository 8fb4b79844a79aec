//! The indicators of a collection. Without `added_after` they are those in force; with it, what has changed since, so that a
//! consumer learns of what was lifted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use riposte_protocol::time::Timestamp;
use serde::Deserialize;

use super::answer::answer;
use super::discovery::find;
use crate::api::front::auth::{Caller, PullFeeds};
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::{Path, Query};
use crate::api::pull::Puller;
use crate::api::state::AppState;
use crate::compat::taxii::{self, AskedFilter, ListPage, ListWalk, MOST, MOST_PARTS, ObjectFilter, ReadFrom, TAXII};
use crate::domain::fault::Fault;
use crate::domain::feed_list::{FeedEntry, FeedList};
use crate::engine::pull_feeds::kept::ServedList;
use crate::views::taxii::{TaxiiEnvelope, TaxiiManifest, TaxiiVersions};

/// `Retry-After` in seconds while a feed is too long: people have to change something first.
const TOO_LONG_RETRY_SECS: u64 = 60;
/// Time of the first and of the last entry of a page.
const DATES: [HeaderName; 2] =
    [HeaderName::from_static("x-taxii-date-added-first"), HeaderName::from_static("x-taxii-date-added-last")];

/// What a client asks for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AskObjects {
    /// Only what has changed after this time. Use `X-TAXII-Date-Added-Last` of the last answer.
    added_after: Option<String>,
    /// Most objects of the answer.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// Where the answer begins: `next` of the one before.
    next: Option<String>,
    /// Ids, separated by commas.
    #[serde(rename = "match[id]")]
    ids: Option<String>,
    /// Types, separated by commas; every object is an `indicator`.
    #[serde(rename = "match[type]")]
    types: Option<String>,
    /// Versions, separated by commas: `all`, `first`, `last`, or times. The last one is kept.
    #[serde(rename = "match[version]")]
    versions: Option<String>,
    /// Versions of STIX, separated by commas; every object has `2.1`.
    #[serde(rename = "match[spec_version]")]
    spec_versions: Option<String>,
}

/// A request that was read.
struct Asked {
    walk: ListWalk,
    filter: ObjectFilter,
    limit: usize,
}

impl AskObjects {
    fn read(self, list: &FeedList) -> ApiResult<Asked> {
        let Self { added_after, limit, next, ids, types, versions, spec_versions } = self;
        let wrong = |field: &str, why: &str| ApiError::invalid(vec![Fault::at(format!("/{field}"), why)]);
        let limit = match limit {
            None => MOST,
            Some(text) => {
                let limit = text.trim().parse::<usize>().ok().filter(|limit| *limit > 0);
                limit.ok_or_else(|| wrong("limit", "must be a number of 1 or more"))?
            }
        };
        let walk = match (next, added_after) {
            (Some(text), _) => {
                let walk = ListWalk::go_on(&text).filter(|walk| walk.is_of(list));
                walk.ok_or_else(|| wrong("next", "is not what an earlier answer of this list gave; begin again"))?
            }
            (None, Some(text)) => {
                let at = text.trim().parse::<Timestamp>();
                let at = at.map_err(|_| wrong("added_after", "must be a time such as 2026-11-24T10:00:00.000Z"))?;
                ListWalk::begin(ReadFrom::After(at), list)
            }
            (None, None) => ListWalk::begin(ReadFrom::InForce, list),
        };
        let filter = ObjectFilter::read(&AskedFilter { ids, types, versions, spec_versions });
        let many = format!("has more than {MOST_PARTS} parts");
        let filter = filter.map_err(|name| wrong(&format!("match[{name}]"), &many))?;
        Ok(Asked { walk, filter, limit })
    }
}

/// Returns indicators of a collection: those in force, or what has changed since `added_after`
///
/// An indicator whose block was lifted has a `valid_until` that is over.
#[utoipa::path(get, operation_id = "objects", path = "/taxii2/riposte/collections/{name}/objects/", tag = "taxii",
    params(AskObjects, ("name" = String, Path, description = "Id of the collection, or name of the feed")),
    responses((status = 200, body = TaxiiEnvelope, content_type = TAXII)))]
pub(super) async fn list(
    Puller(caller): Puller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(asked): Query<AskObjects>,
    method: Method,
) -> ApiResult<Response> {
    let served = served(&caller, &state, &name).await?;
    let Asked { walk, filter, limit } = asked.read(&served.list)?;
    let (is_whole, from, now) = (filter.takes_all(), walk.from, state.engine.clock.now());
    let (list, feed) = (Arc::clone(&served.list), served.spec.name.clone());
    let (envelope, dates) = aside(move || {
        let page = taxii::page(&feed, &list, &walk, &filter, limit);
        let objects = page.entries.iter().map(|(value, entry)| taxii::indicator(&feed, value, entry, now)).collect();
        (TaxiiEnvelope { more: page.next.is_some(), next: page.next.clone(), objects }, dates(&page))
    })
    .await?;
    // A HEAD is no fetch, and neither is a page in between, or a part of the list.
    if method == Method::GET && !envelope.more && is_whole {
        note(&caller, &state, &served, from).await?;
    }
    dated(answer(&envelope)?, dates)
}

/// Returns the indicators of a collection without their content
#[utoipa::path(get, operation_id = "manifest", path = "/taxii2/riposte/collections/{name}/manifest/", tag = "taxii",
    params(AskObjects, ("name" = String, Path, description = "Id of the collection, or name of the feed")),
    responses((status = 200, body = TaxiiManifest, content_type = TAXII)))]
pub(super) async fn manifest(
    Puller(caller): Puller,
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(asked): Query<AskObjects>,
) -> ApiResult<Response> {
    let served = served(&caller, &state, &name).await?;
    let Asked { walk, filter, limit } = asked.read(&served.list)?;
    let (list, feed) = (Arc::clone(&served.list), served.spec.name.clone());
    let (manifest, dates) = aside(move || {
        let page = taxii::page(&feed, &list, &walk, &filter, limit);
        let objects = page.entries.iter().map(|(value, entry)| taxii::record(&feed, value, entry)).collect();
        (TaxiiManifest { more: page.next.is_some(), next: page.next.clone(), objects }, dates(&page))
    })
    .await?;
    dated(answer(&manifest)?, dates)
}

/// Returns one indicator
#[utoipa::path(get, operation_id = "object", path = "/taxii2/riposte/collections/{name}/objects/{id}/", tag = "taxii",
    params(("name" = String, Path, description = "Id of the collection, or name of the feed"),
        ("id" = String, Path, description = "Id of the indicator")),
    responses((status = 200, body = TaxiiEnvelope, content_type = TAXII)))]
pub(super) async fn one(
    Puller(caller): Puller,
    State(state): State<AppState>,
    Path((name, id)): Path<(String, String)>,
) -> ApiResult<Response> {
    let served = served(&caller, &state, &name).await?;
    let now = state.engine.clock.now();
    let (objects, changed_at) = found(&served, id, move |feed, value, entry| {
        (vec![taxii::indicator(feed, value, entry, now)], entry.changed_at)
    })
    .await?;
    dated(answer(&TaxiiEnvelope { more: false, next: None, objects })?, [Some(changed_at); 2])
}

/// Returns the versions of an indicator: the last one is kept
#[utoipa::path(get, operation_id = "versions", path = "/taxii2/riposte/collections/{name}/objects/{id}/versions/",
    tag = "taxii", params(("name" = String, Path, description = "Id of the collection, or name of the feed"),
        ("id" = String, Path, description = "Id of the indicator")),
    responses((status = 200, body = TaxiiVersions, content_type = TAXII)))]
pub(super) async fn versions(
    Puller(caller): Puller,
    State(state): State<AppState>,
    Path((name, id)): Path<(String, String)>,
) -> ApiResult<Response> {
    let served = served(&caller, &state, &name).await?;
    let changed_at = found(&served, id, |_, _, entry| entry.changed_at).await?;
    dated(answer(&TaxiiVersions { versions: vec![changed_at.into()] })?, [Some(changed_at); 2])
}

/// What `read` makes of the entry with the id of an indicator.
async fn found<T: Send + 'static>(
    served: &ServedList,
    id: String,
    read: impl FnOnce(&str, &str, &FeedEntry) -> T + Send + 'static,
) -> ApiResult<T> {
    let (list, feed) = (Arc::clone(&served.list), served.spec.name.clone());
    let wanted = id.clone();
    let found =
        aside(move || taxii::find(&feed, &list, &wanted).map(|(value, entry)| read(&feed, value, entry))).await?;
    found.ok_or_else(|| ApiError::not_found(format!("the object {id:?} does not exist")))
}

/// A list can be long: other requests are not to wait for it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))
}

/// The list of a collection that the caller may read.
async fn served(caller: &Caller<PullFeeds>, state: &AppState, name: &str) -> ApiResult<ServedList> {
    let spec = find(caller, state, name)?;
    let served = state.engine.feed_list(&spec).await?;
    match served.too_many {
        None => Ok(served),
        Some(count) => {
            let (name, most) = (&spec.name, spec.max_entries);
            let why = format!("the feed {name} has {count} entries and may hold {most}, so it is not served");
            Err(ApiError::unavailable(why, TOO_LONG_RETRY_SECS))
        }
    }
}

/// Notes that a consumer has everything now.
async fn note(caller: &Caller<PullFeeds>, state: &AppState, served: &ServedList, from: ReadFrom) -> ApiResult<()> {
    let engine = &state.engine;
    let Some(consumer) = engine.consumer_name(&caller.principal) else { return Ok(()) };
    let before = engine.feed_consumer(&served.spec.name, &consumer).await?;
    let now = engine.clock.now();
    // Everything in force names no removal, and neither does what came after a time at which the removal was there already.
    let is_told = match (from, &before) {
        (ReadFrom::InForce, _) => false,
        (ReadFrom::After(_), None) => true,
        (ReadFrom::After(at), Some(row)) => !served.list.since(row.revision).any(|(_, entry)| {
            let is_owed = !entry.is_listed && !entry.until.is_over(now);
            is_owed && entry.revision > row.revision && entry.changed_at <= at
        }),
    };
    if is_told {
        engine.note_fetch(served, &consumer, before.as_ref(), caller.address);
    } else {
        engine.note_start(served, &consumer, before.as_ref(), caller.address);
    }
    Ok(())
}

/// Times of the first entry of a page, and up to which it is whole.
fn dates(page: &ListPage<'_>) -> [Option<Timestamp>; 2] {
    [page.entries.first().map(|(_, entry)| entry.changed_at), page.whole_until]
}

/// With the times of the first and of the last entry.
fn dated(mut response: Response, dates: [Option<Timestamp>; 2]) -> ApiResult<Response> {
    for (name, at) in DATES.into_iter().zip(dates) {
        if let Some(at) = at {
            let at = HeaderValue::from_str(&at.to_string()).map_err(|error| ApiError::internal(&error))?;
            response.headers_mut().insert(name, at);
        }
    }
    Ok(response)
}
