//! Lists are compressed for clients that accept gzip. Nothing else is: the length of a compressed
//! response tells an attacker who controls a part of it about the rest (BREACH), and no list holds a
//! secret. Streams and polls do not pass this layer.

use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};

/// Responses that are smaller, in bytes, fit into one packet either way.
const MIN_BYTES: u64 = 1024;

/// Marks a response as a page of a list.
#[derive(Clone, Copy, Debug)]
pub struct IsList;

/// The layer; [`accept`] must run before it.
pub fn layer() -> CompressionLayer<impl Predicate> {
    let is_list =
        |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| extensions.get::<IsList>().is_some();
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(MIN_BYTES).and(is_list))
}

/// Makes an uncompressed response acceptable to every request. The layer would otherwise answer 406
/// to one that excludes it, after the request was carried out.
pub async fn accept(mut request: Request) -> Request {
    let headers = request.headers_mut();
    let asked: Vec<HeaderValue> = headers.get_all(header::ACCEPT_ENCODING).iter().cloned().collect();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity;q=0.001"));
    for value in asked {
        headers.append(header::ACCEPT_ENCODING, value);
    }
    request
}
