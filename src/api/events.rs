//! `/v1/events`: what happens, in the order in which it was committed; as a stream of server-sent
//! events, or page by page. `event_stream.rs` is the stream.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::event_stream::Follower;
use super::front::auth::{Caller, Read};
use super::front::error::{ApiError, ApiResult};
use super::front::extract::Query;
use super::front::page::{cursor_number, limit};
use super::front::table::{Table, operations};
use super::front::visible::Visible;
use super::state::AppState;
use crate::domain::event::TypePattern;
use crate::domain::fault::Fault;
use crate::engine::event_filter::EventFilter;
use crate::store::ledger::events::EventBounds;
use crate::views::events::CloudEvent;
use crate::views::page::Page;

/// The header with which a client goes on after a lost connection.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Media type of a stream.
const EVENT_STREAM: &str = "text/event-stream";

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new().with(operations!(list))
}

/// Which events, and how.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListEvents {
    /// Whether to stream; by default unless the request accepts `application/json` and no stream.
    follow: Option<bool>,
    /// Number of the last event that the client has; the header `Last-Event-ID` counts more.
    #[param(minimum = 0, maximum = 2_000_000_000)]
    after: Option<i64>,
    /// Types, separated by commas; `response.*` stands for all that begin so.
    #[param(example = "response.*,approval.requested")]
    r#type: Option<String>,
    /// Policy.
    policy: Option<String>,
    /// Agent, by its id or name.
    agent: Option<String>,
    /// Target.
    target: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Follows or lists events, oldest first
///
/// As `text/event-stream` the response does not end: each message has the number of the event as its `id`, the type
/// without prefix as its `event`, and the event as its `data`. After a lost connection, send the last `id` in
/// `Last-Event-ID`. Without a number a stream begins now, and a list with the oldest event that is kept. The message
/// `gap` says which events are missing. The response is 410 if the events after the number are not kept any more, or
/// the number is beyond the last event.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(ListEvents, ("Last-Event-ID" = Option<String>, Header, description = "Number of the last event that the client has.")),
    responses((status = 200, content((Page<CloudEvent> = "application/json"), (String = "text/event-stream"))), (status = 410)))]
pub async fn list(
    caller: Caller<Read>,
    State(state): State<AppState>,
    headers: HeaderMap,
    Query(query): Query<ListEvents>,
    uri: Uri,
) -> ApiResult<Response> {
    let is_stream = query.follow.unwrap_or_else(|| !accepts_only_json(&headers));
    let mark = mark(&headers, query.after)?;
    let ListEvents { r#type, policy, agent, target, limit: asked, cursor, .. } = query;
    let fleet = state.engine.fleet.load_full();
    let visible = Visible::to(&caller, &state.engine);
    let called = |word: &str| fleet.called(word).map(|agent| agent.id);
    let called = |word: &str| called(word).filter(|agent| visible.agent(&agent.to_string()));
    let (types, agent) = asked_for(r#type.as_deref(), agent.as_deref(), called)?;
    let filter = EventFilter::new(types, policy.as_deref(), agent, target.as_deref());
    if !is_stream {
        return page(&state, &visible, &filter, (asked, cursor, mark), &uri).await;
    }
    let pages: Vec<Fault> = [("/limit", asked.is_some()), ("/cursor", cursor.is_some())]
        .into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(pointer, _)| Fault::at(pointer, "is only for lists: add follow=false"))
        .collect();
    if !pages.is_empty() {
        return Err(ApiError::invalid(pages));
    }
    drop(visible);
    stream(state, caller, filter, mark).await
}

/// Reads the types and the agent of a query; `called` finds an agent by its name.
///
/// # Errors
/// 422 with each type that no event has, and for an agent that is not there.
fn asked_for(
    types: Option<&str>,
    agent: Option<&str>,
    called: impl Fn(&str) -> Option<Uuid>,
) -> ApiResult<(Vec<TypePattern>, Option<Uuid>)> {
    let (mut patterns, mut faults) = (Vec::new(), Vec::new());
    for word in types.into_iter().flat_map(|types| types.split(',')) {
        match TypePattern::parse(word) {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => faults.push(Fault::at("/type", why)),
        }
    }
    let id = agent.map(|word| word.trim().parse().ok().or_else(|| called(word.trim())));
    if id.is_some_and(|id| id.is_none()) {
        faults.push(Fault::at("/agent", "is neither the id nor the name of an enrolled agent"));
    }
    if faults.is_empty() { Ok((patterns, id.flatten())) } else { Err(ApiError::invalid(faults)) }
}

/// Opens a stream behind event `mark`, or at the end of the feed.
async fn stream(state: AppState, caller: Caller<Read>, filter: EventFilter, mark: Option<i64>) -> ApiResult<Response> {
    const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    let slot = state.follower_slots.take(&caller.principal.actor)?;
    // Before the store says where the feed ends, so that nothing is lost in between.
    let batches = state.engine.feed.follow();
    let bounds = state.engine.event_bounds().await?;
    let mark = reached(bounds, mark.unwrap_or(bounds.last))?;
    let messages = Follower::new(state, caller.principal, filter, batches, mark, slot).messages();
    let headers = [(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, "no-cache"), (BUFFERING, "no")];
    Ok((headers, Body::from_stream(messages)).into_response())
}

/// A page of events, oldest first.
async fn page(
    state: &AppState,
    visible: &Visible<'_>,
    filter: &EventFilter,
    (asked, cursor, mark): (Option<i64>, Option<String>, Option<i64>),
    uri: &Uri,
) -> ApiResult<Response> {
    let bounds = state.engine.event_bounds().await?;
    let oldest = bounds.oldest.map_or(bounds.last, |oldest| oldest - 1);
    let from = cursor_number(cursor.as_deref())?.or(mark);
    let from = from.map_or(Ok(oldest), |from| reached(bounds, from))?;
    let mut page = visible.filling(limit(asked)?, Some(from.to_string()));
    if filter.takes_some() {
        page.hides();
    }
    while let Some((cursor, count)) = page.wants() {
        let rows = state.engine.events_after(cursor_number(cursor.as_deref())?.unwrap_or(from), count).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            let is_shown = filter.takes(&row)? && visible.event(&row)?;
            shown.push((row.seq.to_string(), is_shown.then(|| state.engine.cloud_event(row))));
        }
        page.add(shown);
    }
    Ok(page.page(uri))
}

/// The number of the last event that the client has.
fn mark(headers: &HeaderMap, after: Option<i64>) -> ApiResult<Option<i64>> {
    if after.is_some_and(|after| after < 0) {
        return Err(ApiError::invalid(vec![Fault::at("/after", "must be the number of an event, or 0")]));
    }
    let Some(last) = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) else { return Ok(after) };
    let number = last.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok()).filter(|number| *number >= 0);
    let wrong = || ApiError::malformed("Last-Event-ID is not the id of an event of this manager, which is a number");
    Ok(Some(number.ok_or_else(wrong)?))
}

/// `mark`, if all events after it are there.
fn reached(bounds: EventBounds, mark: i64) -> ApiResult<i64> {
    if bounds.reach(mark) {
        return Ok(mark);
    }
    let EventBounds { oldest, last } = bounds;
    let first = oldest.unwrap_or(last.saturating_add(1));
    Err(ApiError::gone(if mark > last {
        format!(
            "event {mark} is not in this ledger, whose last event is {last}: it was probably restored from a backup; begin \
             without a number, and read the lists of responses and effects for what is in force"
        )
    } else {
        format!(
            "the events from {} to {} are not kept any more; go on with after={}, and read the lists of responses and \
             effects for what was missed",
            mark.saturating_add(1),
            first.saturating_sub(1),
            first.saturating_sub(1)
        )
    }))
}

/// Whether the request accepts JSON and no stream.
fn accepts_only_json(headers: &HeaderMap) -> bool {
    let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let has = |media_type: &str| accepted.iter().any(|value| value.to_ascii_lowercase().contains(media_type));
    has("application/json") && !has(EVENT_STREAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asks_for_json_alone_gets_a_list() {
        for (accept, is_list) in [
            ("*/*", false),
            ("application/json", true),
            ("Application/JSON;q=0.9, */*", true),
            ("text/event-stream, application/json", false),
            ("text/event-stream", false),
        ] {
            let headers: HeaderMap = [(ACCEPT, accept.parse().unwrap())].into_iter().collect();
            assert_eq!(accepts_only_json(&headers), is_list, "{accept}");
        }
        assert!(!accepts_only_json(&HeaderMap::new()));
    }

    #[test]
    fn unknown_types_and_agents_are_named() {
        let read = |types: &str, agent: Option<&str>| asked_for(Some(types), agent, |_| None);
        assert!(read("response.*, effect.lifted", None).is_ok());
        let problem = read("response.create,effects.*", Some("web-1")).unwrap_err().problem();
        let faults: Vec<(&str, &str)> =
            problem.errors.iter().map(|fault| (fault.pointer.as_str(), fault.detail.as_str())).collect();
        assert_eq!(faults.iter().map(|(pointer, _)| *pointer).collect::<Vec<_>>(), ["/type", "/type", "/agent"]);
        assert!(faults[0].1.contains("response.create") && faults[1].1.contains("effects.*"), "{faults:?}");
    }
}
