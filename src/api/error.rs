//! Errors as clients see them: problem+json (RFC 9457) with a stable `type`, and for bad input a JSON Pointer to each
//! fault. This is the only place where an error becomes an answer; the cause of a 5xx is logged here, once, and never
//! shown.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::domain::fault::Fault;
use crate::store::StoreError;

/// The body of every error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// What went wrong, as a stable word: `urn:riposte:problem:WORD`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for people, in a few words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// Each fault of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

/// An error on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    word: &'static str,
    title: &'static str,
    detail: String,
    faults: Vec<Fault>,
    retry_after_secs: Option<u64>,
}

/// Result of every handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// How long a client is asked to wait when the manager is busy.
const BUSY_RETRY_SECS: u64 = 1;

impl ApiError {
    fn new(status: StatusCode, word: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, word, title, detail: detail.into(), faults: Vec::new(), retry_after_secs: None }
    }

    /// 400: the request cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
    }

    /// 422: it can be read, and these parts of it are wrong.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [only] if only.pointer.is_empty() => only.detail.clone(),
            [only] => format!("{} {}", only.pointer, only.detail),
            many => format!("{} faults were found", many.len()),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The input has faults", detail).with_faults(faults)
    }

    /// 401: nobody has proved who they are.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Valid credentials are needed", detail)
    }

    /// 401: known, and dated so that the two clocks must differ.
    pub fn wrong_time(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, riposte_protocol::PROBLEM_CLOCK, "The clocks differ", detail)
    }

    /// 403: known, and not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "That is not allowed to you", detail)
    }

    /// 404.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is no such thing", what)
    }

    /// 409: it cannot be done as things stand.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "That cannot be done as things stand", detail)
    }

    /// 409: it can mean several things, which `faults` name.
    pub fn ambiguous(detail: impl Into<String>, faults: Vec<Fault>) -> Self {
        Self::new(StatusCode::CONFLICT, "ambiguous", "That names several things", detail).with_faults(faults)
    }

    /// 412: it has changed since the client read it.
    pub fn changed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "It has changed meanwhile", detail)
    }

    /// 428: the client must say which version it means.
    pub fn version_needed() -> Self {
        let detail = "send If-Match with the ETag that you read, so that nobody's change is lost";
        Self::new(StatusCode::PRECONDITION_REQUIRED, "version_needed", "If-Match is needed", detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The request is too large", detail)
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "That media type is not taken here", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let detail = "see /docs for what this address takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "That method is not taken here", detail)
    }

    /// 408: the request did not come to its end in time; nothing was done.
    pub fn timed_out() -> Self {
        let detail = "the request was not complete in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timed_out", "The request took too long", detail)
    }

    /// 503: the request was complete, and there was no answer to it in time.
    pub fn unanswered() -> Self {
        const RETRY_SECS: u64 = 5;
        let detail = "there was no answer in time, and what was asked for may have been done or may still be: look before you \
                      ask again, or repeat the request with the Idempotency-Key that it had";
        Self::unavailable(detail, RETRY_SECS)
    }

    /// 422 with the word that clients of `Idempotency-Key` look for.
    pub fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used before, for another request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "That key is taken", detail)
    }

    /// 429.
    pub fn too_many(detail: impl Into<String>, retry_after_secs: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "Too many requests", detail);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>, retry_after_secs: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not just now", detail);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 500: a fault of ours.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!("a request failed: {cause}");
        Self::broken()
    }

    /// The same, where the cause is in the log already.
    fn broken() -> Self {
        let detail = "the manager's log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong on our side", detail)
    }

    fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// The same, its faults placed below `pointer`: the input was a part of a larger one.
    #[must_use]
    pub fn below(mut self, pointer: &str) -> Self {
        for fault in &mut self.faults {
            fault.pointer.insert_str(0, pointer);
        }
        self
    }

    /// What the client is told.
    pub fn problem(self) -> Problem {
        Problem {
            kind: format!("{}{}", riposte_protocol::PROBLEM, self.word),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.faults,
        }
    }

    /// The status it will be answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for ApiError {}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let answer = Self::of_store(&error);
        // What is shared was logged once, where it happened.
        if answer.status.is_server_error() && !matches!(error, StoreError::Shared(_) | StoreError::Busy) {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(cause, "a request failed: {error}");
        }
        answer
    }
}

impl ApiError {
    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::not_found("there is no such thing"),
            StoreError::Duplicate => Self::conflict("something of that name exists already"),
            StoreError::Conflict => Self::conflict("it is not in a state in which that could be done"),
            StoreError::Busy => Self::unavailable("the ledger has more work than it may queue", BUSY_RETRY_SECS),
            StoreError::Unavailable(_) if error.is_full() => {
                Self::unavailable("the disk that holds the ledger is full: make room on it", BUSY_RETRY_SECS)
            }
            StoreError::Unavailable(_) => {
                Self::unavailable(format!("the database does not answer: {}", error.in_brief()), BUSY_RETRY_SECS)
            }
            StoreError::Held(_) | StoreError::Superseded => {
                Self::unavailable("another manager has taken this ledger over", BUSY_RETRY_SECS)
            }
            StoreError::Pooled => Self::unavailable("the database cannot be used through this pooler", BUSY_RETRY_SECS),
            StoreError::Shared(cause) => Self::of_store(cause),
            StoreError::Corrupt(_) | StoreError::Damaged(_) | StoreError::Migrate(_) | StoreError::Address(_) => {
                Self::broken()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after_secs) = (self.status, self.retry_after_secs);
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = (status, [content_type], body).into_response();
        if let Some(secs) = retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"riposte\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
