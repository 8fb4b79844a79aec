//! What tells a page that something has changed: the API's stream of events, as the person may see
//! it, reduced to one message for each batch. The page then loads itself anew.

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::page::{PageFailure, PageResult};
use super::session::Session;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Which events.
#[derive(Debug, Deserialize)]
pub(super) struct Types {
    r#type: String,
}

/// The stream of one page.
pub(super) async fn events(session: Session, Query(asked): Query<Types>, headers: HeaderMap) -> PageResult {
    let path = format!("/v1/events?follow=true&type={}", utf8_percent_encode(&asked.r#type, NON_ALPHANUMERIC));
    let open = async |last: Option<&HeaderValue>| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, EVENT_STREAM);
        if let Some(last) = last {
            headers.insert(LAST_EVENT_ID, last.clone());
        }
        session.api.call(Method::GET, &path, headers, Body::empty()).await
    };
    let last = headers.get(LAST_EVENT_ID);
    let mut answer = open(last).await?;
    // What the page has missed is not kept any more: it begins anew, and loads itself once.
    let is_gap = answer.status() == StatusCode::GONE && last.is_some();
    if is_gap {
        answer = open(None).await?;
    }
    if !answer.status().is_success() {
        return Err(PageFailure::new(answer.status(), "The stream of events cannot be opened."));
    }
    let first = is_gap.then(|| Ok(Bytes::from_static(b"event: gap\ndata: 1\n\n")));
    let mut buffered = Vec::new();
    let rest =
        answer.into_body().into_data_stream().map(move |chunk| chunk.map(|chunk| reduced(&mut buffered, &chunk)));
    let body = Body::from_stream(futures_util::stream::iter(first).chain(rest));
    let mut response: Response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One message with the number of the last event for all whole messages; what has no event passes as
/// a comment, so that a silent connection is not taken for a dead one.
fn reduced(buffered: &mut Vec<u8>, chunk: &[u8]) -> Bytes {
    buffered.extend_from_slice(chunk);
    let Some(end) = buffered.windows(2).rposition(|pair| pair == b"\n\n") else { return Bytes::new() };
    let whole: Vec<u8> = buffered.drain(..end + 2).collect();
    let lines = || whole.split(|byte| *byte == b'\n');
    let last = lines().rfind(|line| line.starts_with(b"id:"));
    let retry = lines().rfind(|line| line.starts_with(b"retry:"));
    let has_event = lines().any(|line| line.starts_with(b"data:"));
    let mut message = Vec::new();
    for line in [last, retry].into_iter().flatten() {
        message.extend_from_slice(line);
        message.push(b'\n');
    }
    message.extend_from_slice(if has_event { b"event: changed\ndata: 1\n\n" } else { b":\n\n" });
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_becomes_one_message_with_the_last_number() {
        let mut buffered = Vec::new();
        let batch =
            b"id: 7\nevent: response.created\ndata: {\"a\":1}\n\nid: 8\nevent: effect.lifted\ndata: {}\n\nid: 9\nda";
        assert_eq!(reduced(&mut buffered, batch), "id: 8\nevent: changed\ndata: 1\n\n");
        assert_eq!(reduced(&mut buffered, b"ta: {}"), "");
        assert_eq!(reduced(&mut buffered, b"\n\n"), "id: 9\nevent: changed\ndata: 1\n\n");
        assert_eq!(reduced(&mut buffered, b":\n\n"), ":\n\n");
        assert_eq!(reduced(&mut buffered, b"retry: 2000\n\n"), "retry: 2000\n:\n\n");
    }
}
