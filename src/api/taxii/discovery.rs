//! What this server is, and which collections a caller may read.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::answer::answer;
use crate::api::front::auth::{Caller, PullFeeds};
use crate::api::front::error::{ApiError, ApiResult};
use crate::api::front::extract::Path;
use crate::api::pull::Puller;
use crate::api::state::AppState;
use crate::compat::taxii::{STIX, TAXII, collection_id};
use crate::domain::feed::{FeedForm, FeedSpec};
use crate::views::taxii::{TaxiiCollection, TaxiiCollections, TaxiiDiscovery, TaxiiRoot};

/// The only API root.
const ROOT: &str = "/taxii2/riposte/";
/// Longest body of a request.
const MAX_CONTENT: i64 = 1;

/// Returns what this server is
///
/// Takes an API key or an access token as a bearer token, or the key of a consumer as the password of Basic authentication, with
/// any name.
#[utoipa::path(get, operation_id = "discovery", path = "/taxii2/", tag = "taxii",
    responses((status = 200, body = TaxiiDiscovery, content_type = TAXII)))]
pub(super) async fn server(_: Puller) -> ApiResult<Response> {
    answer(&TaxiiDiscovery {
        title: "Riposte".to_owned(),
        description: "Addresses that Riposte blocks, as indicators, to read".to_owned(),
        default: ROOT.to_owned(),
        api_roots: vec![ROOT.to_owned()],
    })
}

/// Returns what the API root is
#[utoipa::path(get, operation_id = "root", path = "/taxii2/riposte/", tag = "taxii",
    responses((status = 200, body = TaxiiRoot, content_type = TAXII)))]
pub(super) async fn root(_: Puller) -> ApiResult<Response> {
    answer(&TaxiiRoot {
        title: "Riposte".to_owned(),
        description: "Each feed of the form taxii is a collection".to_owned(),
        versions: vec![TAXII.to_owned()],
        max_content_length: MAX_CONTENT,
    })
}

/// Returns the collections that the caller may read
#[utoipa::path(get, operation_id = "collections", path = "/taxii2/riposte/collections/", tag = "taxii",
    responses((status = 200, body = TaxiiCollections, content_type = TAXII)))]
pub(super) async fn collections(Puller(caller): Puller, State(state): State<AppState>) -> ApiResult<Response> {
    let feeds = state.engine.feeds_of_form(FeedForm::Taxii);
    let own = feeds.iter().filter(|spec| may_read(&caller, spec).is_ok());
    answer(&TaxiiCollections { collections: own.map(|spec| view(spec)).collect() })
}

/// Returns a collection
#[utoipa::path(get, operation_id = "collection", path = "/taxii2/riposte/collections/{name}/", tag = "taxii",
    params(("name" = String, Path, description = "Id of the collection, or name of the feed")),
    responses((status = 200, body = TaxiiCollection, content_type = TAXII)))]
pub(super) async fn collection(
    Puller(caller): Puller,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<Response> {
    let spec = find(&caller, &state, &name)?;
    answer(&view(&spec))
}

/// The feed of a collection that the caller may read. Of another one nothing is said.
pub(super) fn find(caller: &Caller<PullFeeds>, state: &AppState, name: &str) -> ApiResult<Arc<FeedSpec>> {
    let feeds = state.engine.feeds_of_form(FeedForm::Taxii);
    let is_it = |spec: &&Arc<FeedSpec>| spec.name == name || collection_id(&spec.name).to_string() == name;
    let found = feeds.iter().find(is_it).filter(|spec| may_read(caller, spec).is_ok());
    found.cloned().ok_or_else(|| ApiError::not_found(format!("the collection {name:?} does not exist")))
}

fn may_read(caller: &Caller<PullFeeds>, spec: &FeedSpec) -> ApiResult<()> {
    if caller.principal.feeds().is_none() {
        return caller.unlimited("a collection lists what concerns all agents and policies");
    }
    let is_own = caller.principal.scopes.take_feed(&spec.name);
    if is_own { Ok(()) } else { Err(ApiError::forbidden("this key is bound to other feeds")) }
}

fn view(spec: &FeedSpec) -> TaxiiCollection {
    TaxiiCollection {
        id: collection_id(&spec.name).to_string(),
        title: spec.name.clone(),
        description: format!("Addresses of the feed {} that are blocked", spec.name),
        alias: spec.name.clone(),
        can_read: true,
        can_write: false,
        media_types: vec![STIX.to_owned()],
    }
}
