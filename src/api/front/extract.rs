//! Extractors and their errors: bodies with limits before and after decompression, JSON with a
//! pointer to the fault, queries without unknown parameters.

use crate::domain::audit::reason_fault;
use std::io::Read as _;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::controls;
use super::error::{ApiError, ApiResult};
use super::memory::MemoryBudget;
use crate::api::state::AppState;
use crate::domain::fault::Fault;
use crate::domain::principal::Principal;
use crate::domain::trace::Traceparent;
use crate::store::ledger::idempotency::Once;

/// Default maximum size of a JSON body, in bytes.
const MAX_JSON_BYTES: usize = 1024 * 1024;
/// Maximum window of a zstd frame, as a power of two: 32 MiB, more than the default maximum body.
const MAX_WINDOW_LOG: u32 = 25;
/// Time limit for receiving a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A complete body, within the limit and decompressed.
#[derive(Debug)]
pub struct Payload {
    /// Media type in lower case without parameters; empty if absent.
    pub media_type: String,
    /// The decompressed bytes.
    pub bytes: Bytes,
    /// Memory permit, to be held as long as the bytes.
    pub permit: OwnedSemaphorePermit,
}

impl Payload {
    /// Reads a body of at most `limit` bytes, before and after decompression, with a permit from
    /// `budget`.
    ///
    /// # Errors
    /// 413, 415 or 400; 503 if the budget is exhausted.
    pub async fn read(request: Request, limit: usize, budget: &MemoryBudget) -> ApiResult<Self> {
        let media_type = media_type(request.headers());
        let encoding = content_encoding(request.headers())?;
        let (bytes, taken) = collect(request, limit, budget).await?;
        let (bytes, taken) = match encoding {
            Encoding::Identity => (bytes, taken),
            // Decompressing megabytes would block other requests on this thread.
            other => {
                let budget = budget.clone();
                let plain = tokio::task::spawn_blocking(move || decompress(&bytes, other, limit, &budget)).await;
                plain.map_err(|error| ApiError::internal(&error))??
            }
        };
        Ok(Self { media_type, bytes, permit: taken })
    }
}

/// Receives the whole body within the time limit.
async fn collect(request: Request, limit: usize, budget: &MemoryBudget) -> ApiResult<(Bytes, OwnedSemaphorePermit)> {
    let all = tokio::time::timeout(BODY_TIMEOUT, collect_all(request, limit, budget)).await;
    all.map_err(|_| ApiError::timed_out())?
}

async fn collect_all(
    request: Request,
    limit: usize,
    budget: &MemoryBudget,
) -> ApiResult<(Bytes, OwnedSemaphorePermit)> {
    let mut body = Limited::new(request.into_body(), limit);
    let (mut bytes, mut taken) = (Vec::new(), budget.take(0)?);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => ApiError::too_large(format!("the body exceeds the limit of {limit} bytes")),
            None => ApiError::malformed(format!("the body could not be read: {error}")),
        })?;
        if let Ok(data) = frame.into_data() {
            taken.merge(budget.take(data.len())?);
            // Copied: a chunk of one byte may hold a whole buffer of the connection.
            bytes.extend_from_slice(&data);
        }
    }
    Ok((bytes.into(), taken))
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[derive(Clone, Copy)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn content_encoding(headers: &HeaderMap) -> ApiResult<Encoding> {
    let value = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    match value.as_deref() {
        None | Some("" | "identity") => Ok(Encoding::Identity),
        Some("gzip" | "x-gzip") => Ok(Encoding::Gzip),
        Some("zstd") => Ok(Encoding::Zstd),
        Some(_) => Err(ApiError::unsupported("Content-Encoding may be gzip or zstd")),
    }
}

/// Decompresses at most `limit` bytes, because kilobytes can expand to gigabytes. Each chunk takes
/// its permit first.
fn decompress(
    bytes: &[u8],
    encoding: Encoding,
    limit: usize,
    budget: &MemoryBudget,
) -> ApiResult<(Bytes, OwnedSemaphorePermit)> {
    let piece = limit.clamp(1, 64 * 1024);
    let failed = |error: std::io::Error| ApiError::malformed(format!("the body cannot be decompressed: {error}"));
    let mut source: Box<dyn std::io::Read + '_> = match encoding {
        Encoding::Identity => Box::new(bytes),
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(bytes).map_err(failed)?;
            // A frame's header alone could reserve 128 MiB.
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
    };
    let (mut plain, mut taken) = (Vec::new(), budget.take(0)?);
    loop {
        let before = plain.len();
        taken.merge(budget.take(piece)?);
        let most = u64::try_from(piece).unwrap_or(u64::MAX);
        source.by_ref().take(most).read_to_end(&mut plain).map_err(failed)?;
        if plain.len() > limit {
            return Err(ApiError::too_large(format!("the decompressed body exceeds the limit of {limit} bytes")));
        }
        let read = plain.len() - before;
        drop(taken.split(piece - read));
        if read < piece {
            return Ok((plain.into(), taken));
        }
    }
}

/// A JSON body of at most `LIMIT` bytes.
#[derive(Debug)]
pub struct Json<T, const LIMIT: usize = MAX_JSON_BYTES> {
    /// The parsed value.
    pub value: T,
    /// SHA-256 of method, path and body; identifies the request of an `Idempotency-Key`.
    fingerprint: Vec<u8>,
    key: Option<String>,
}

impl<T, const LIMIT: usize> Json<T, LIMIT> {
    /// The idempotent request, if `Idempotency-Key` is set.
    pub fn once(&self, principal: &Principal) -> Option<Once> {
        let (principal, fingerprint) = (principal.actor.clone(), self.fingerprint.clone());
        self.key.clone().map(|key| Once { principal, key, fingerprint })
    }
}

impl<T: DeserializeOwned, const LIMIT: usize> FromRequest<AppState> for Json<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let key = idempotency_key(request.headers())?;
        let path = request.uri().path().to_owned();
        let asked = format!("{} {path}\n", request.method());
        let payload = Payload::read(request, LIMIT, state.memory.of(&path)).await?;
        if !payload.media_type.is_empty() && !is_json(&payload.media_type) {
            return Err(ApiError::unsupported("Content-Type must be application/json"));
        }
        // Agents' reports may contain control characters from program output.
        if path != "/v1/agent/poll" {
            controls::check_body(&payload.bytes)?;
        }
        let fingerprint = fingerprint(&asked, &payload.bytes);
        Ok(Self { value: read_json(&payload.bytes)?, fingerprint, key })
    }
}

/// SHA-256 of a request.
pub fn fingerprint(asked: &str, body: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(asked).chain_update(body).finalize().to_vec()
}

/// The request's `Idempotency-Key`.
///
/// # Errors
/// 400 if it is not 1 to 255 printable ASCII characters.
pub fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let is_printable = |text: &&str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let text = value.to_str().ok().filter(|text| (1..=255).contains(&text.len())).filter(is_printable);
    match text {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(ApiError::malformed("Idempotency-Key must be 1 to 255 printable ASCII characters")),
    }
}

/// The request's `traceparent` (W3C Trace Context), if well-formed.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    Traceparent::parse(text).map(|_| text)
}

/// Whether a media type is JSON.
pub fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Parses JSON; the error points at the field.
///
/// # Errors
/// 400 if it is not JSON, 422 if it does not match the type.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    // No body is a list. One would be read as the fields of an object in their order.
    if bytes.trim_ascii_start().starts_with(b"[") && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Err(ApiError::invalid(vec![Fault::at("", "the body must be a JSON object, not a list")]));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() {
            ApiError::invalid(vec![Fault::at(pointer, error.to_string())])
        } else {
            ApiError::malformed(format!("the body is not JSON: {error}"))
        }
    })?;
    reader.end().map_err(|error| ApiError::malformed(format!("the body continues after the JSON value: {error}")))?;
    Ok(value)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

/// Checks a person's reason.
///
/// # Errors
/// 422 if it is missing or too long.
pub fn reason(text: String) -> ApiResult<String> {
    match reason_fault(&text) {
        None => Ok(text),
        Some(fault) => Err(ApiError::invalid(vec![fault])),
    }
}

/// The query string.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> ApiResult<Self> {
        controls::check_query(&parts.uri)?;
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::malformed(format!("the query: {}", rejection.body_text()))),
        }
    }
}

/// A path parameter. An invalid value is 404, because no object can have it.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        controls::check_path(parts, state).await?;
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::not_found("the path does not exist")),
        }
    }
}

/// The expected version from `If-Match`.
#[derive(Debug)]
pub struct IfMatch(pub Option<i64>);

impl FromRequestParts<AppState> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> ApiResult<Self> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let version =
            value.to_str().ok().and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok());
        match version {
            Some(version) => Ok(Self(Some(version))),
            None => Err(ApiError::changed("If-Match must be an ETag of this API, such as \"3\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decompression_bomb_is_refused() {
        let limit = 64 * 1024;
        let zeros = vec![0_u8; 4 * 1024 * 1024];
        let zstd = zstd::stream::encode_all(zeros.as_slice(), 1).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, &zeros).unwrap();
        for (bytes, encoding) in [(zstd, Encoding::Zstd), (gzip.finish().unwrap(), Encoding::Gzip)] {
            assert!(bytes.len() < limit);
            let budget = MemoryBudget::new(2 * limit);
            assert_eq!(decompress(&bytes, encoding, limit, &budget).unwrap_err().status().as_u16(), 413);
            let no_more = decompress(&bytes, encoding, usize::MAX - 1, &budget).unwrap_err();
            assert_eq!(no_more.status().as_u16(), 503, "the decompressed part takes a permit too");
            assert!(budget.take(2 * limit).is_ok(), "and releases it");
            assert!(
                decompress(&bytes[..bytes.len() / 2], encoding, usize::MAX - 1, &MemoryBudget::new(1 << 30)).is_err(),
                "a torn body is an error"
            );
        }
    }

    #[test]
    fn a_fault_in_a_body_has_a_pointer() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            #[expect(dead_code, reason = "only read")]
            list: Vec<u8>,
        }
        let error = |text: &str| format!("{:?}", read_json::<Body>(text.as_bytes()).unwrap_err());
        assert!(error(r#"{"list":[1,"x"]}"#).contains("/list/1"));
        assert!(error(r#"{"list":[],"lost":1}"#).contains("unknown field"));
        assert!(error(r#"{"list":[]"#).contains("malformed"));
        assert!(error(r#"{"list":[]} x"#).contains("malformed"));
        assert!(error("[[1]]").contains("not a list") && error("[[1]").contains("malformed"));
    }

    #[test]
    fn only_a_well_formed_traceparent_is_passed_on() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            traceparent(&headers).map(str::to_owned)
        };
        assert!(with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        for bad in ["", "x", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-1-2-3"] {
            assert_eq!(with(bad), None, "{bad}");
        }
    }
}
