//! Errors as clients see them: problem+json (RFC 9457) with a stable `type`, and a JSON Pointer to
//! each fault of the input. Only this file turns an error into a response. The cause of a 5xx is
//! logged here, once, and never shown.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::request_id;
use crate::domain::fault::Fault;
use crate::engine::refusal::Refusal;
use crate::store::StoreError;
use crate::views::problem::Problem;

/// An error that becomes a response.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    word: &'static str,
    title: &'static str,
    detail: String,
    faults: Vec<Fault>,
    retry_after_secs: Option<u64>,
}

/// Result type of handlers.
pub type ApiResult<T> = Result<T, ApiError>;

/// `Retry-After` in seconds while the manager is busy.
const BUSY_RETRY_SECS: u64 = 1;

/// `Retry-After` in seconds while an OpenID provider does not answer.
const PROVIDER_RETRY_SECS: u64 = 5;

impl ApiError {
    fn new(status: StatusCode, word: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, word, title, detail: detail.into(), faults: Vec::new(), retry_after_secs: None }
    }

    /// 400: the request cannot be parsed.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail)
    }

    /// 422: the request is well-formed, but has these faults.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [only] if only.pointer.is_empty() => only.detail.clone(),
            [only] => format!("{} {}", only.pointer, only.detail),
            many => format!("{} faults were found", many.len()),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid input", detail).with_faults(faults)
    }

    /// 401: the credentials are missing or invalid.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Authentication required", detail)
    }

    /// 401: valid credentials, but the client's clock differs too much.
    pub fn wrong_time(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, riposte_protocol::PROBLEM_CLOCK, "Clocks differ", detail)
    }

    /// 403: authenticated, but without the right.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// 401: the password is right, and a one-time code is missing.
    fn totp_required(detail: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "totp-required", "One-time code required", detail)
    }

    /// 403: the password is right and temporary.
    fn password_change_required(detail: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "password-change-required", "Password change required", detail)
    }

    /// 404.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", what)
    }

    /// 409: the request contradicts the current state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict with the current state", detail)
    }

    /// 409: the id is ambiguous; `faults` name the candidates.
    pub fn ambiguous(detail: impl Into<String>, faults: Vec<Fault>) -> Self {
        Self::new(StatusCode::CONFLICT, "ambiguous", "Ambiguous id", detail).with_faults(faults)
    }

    /// 410: what was asked for is not kept any more.
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "gone", "Not kept any more", detail)
    }

    /// 412: the resource has changed since it was read.
    pub fn changed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "Changed since it was read", detail)
    }

    /// 428: `If-Match` is missing.
    pub fn version_needed() -> Self {
        let detail = "send If-Match with the ETag that you read, so that no other change is lost";
        Self::new(StatusCode::PRECONDITION_REQUIRED, "version_needed", "If-Match required", detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Request too large", detail)
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Unsupported media type", detail)
    }

    /// 406: the client takes none of the media types that there are.
    pub fn not_acceptable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let detail = "see /docs for the methods of this path";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", detail)
    }

    /// 408: the body did not arrive in time; nothing was done.
    pub fn timed_out() -> Self {
        let detail = "the request did not arrive in time; nothing was done";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timed_out", "Request timed out", detail)
    }

    /// 503: the request was complete, but was not answered in time.
    pub fn unanswered() -> Self {
        const RETRY_SECS: u64 = 5;
        let detail = "there was no answer in time, and what was asked for may have been done or may still be: look before you \
                      ask again, or repeat the request with the Idempotency-Key that it had";
        Self::unavailable(detail, RETRY_SECS)
    }

    /// 422: the `Idempotency-Key` was used for another request.
    pub fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used for another request; send a new key";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency-Key already used", detail)
    }

    /// 429.
    pub fn too_many(detail: impl Into<String>, retry_after_secs: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "Too many requests", detail);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>, retry_after_secs: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Overloaded or unavailable", detail);
        Self { retry_after_secs: Some(retry_after_secs), ..error }
    }

    /// 500: an internal error, logged with its cause.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(request = request_id::current(), "a request failed: {cause}");
        Self::broken()
    }

    /// 500 without a log line, because the cause is logged already.
    fn broken() -> Self {
        let detail = "see the manager's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// Prefixes the pointers of all faults with `pointer`, because the input was part of a larger
    /// document.
    #[must_use]
    pub fn below(mut self, pointer: &str) -> Self {
        for fault in &mut self.faults {
            fault.pointer.insert_str(0, pointer);
        }
        self
    }

    /// The response body.
    pub fn problem(self) -> Problem {
        Problem {
            kind: format!("{}{}", riposte_protocol::PROBLEM, self.word),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.faults,
        }
    }

    /// The response status.
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
        // A shared error was logged once, where it occurred.
        if answer.status.is_server_error() && !matches!(error, StoreError::Shared(_) | StoreError::Busy) {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(cause, request = request_id::current(), "a request failed: {error}");
        }
        answer
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(faults) => Self::invalid(faults),
            Refusal::NotFound(what) => Self::not_found(what),
            Refusal::Conflict(why) => Self::conflict(why),
            Refusal::Forbidden(why) => Self::forbidden(why),
            Refusal::Changed(why) => Self::changed(why),
            Refusal::KeyReused => Self::key_reused(),
            Refusal::Credentials(why) => Self::unauthenticated(why),
            Refusal::TotpRequired => Self::totp_required(refusal.to_string()),
            Refusal::PasswordChangeRequired => Self::password_change_required(refusal.to_string()),
            Refusal::ProviderAway(why) => Self::unavailable(why, PROVIDER_RETRY_SECS),
            Refusal::TooMany(_, secs) => Self::too_many(refusal.to_string(), secs),
            Refusal::Overloaded(why) => Self::unavailable(why, BUSY_RETRY_SECS),
            Refusal::System(cause) => Self::internal(&cause),
            Refusal::Store(error) => error.into(),
        }
    }
}

impl ApiError {
    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::not_found("it does not exist"),
            StoreError::Duplicate => Self::conflict("the name is taken"),
            StoreError::Conflict => Self::conflict("its current state does not allow this"),
            StoreError::Sealed(_) => Self::conflict(error.to_string()),
            StoreError::Busy => Self::unavailable("the writer's queue is full", BUSY_RETRY_SECS),
            StoreError::Unavailable(_) if error.is_full() => {
                Self::unavailable("the disk that holds the ledger is full: make room on it", BUSY_RETRY_SECS)
            }
            StoreError::Unavailable(_) => {
                Self::unavailable(format!("the database does not answer: {}", error.in_brief()), BUSY_RETRY_SECS)
            }
            StoreError::Held(_) | StoreError::LeaseLost | StoreError::OlderConnection => {
                Self::unavailable(error.to_string(), BUSY_RETRY_SECS)
            }
            StoreError::Outdated(_) => {
                Self::unavailable("the configuration is being changed: try again", BUSY_RETRY_SECS)
            }
            StoreError::Pooled => Self::unavailable("the database cannot be used through this pooler", BUSY_RETRY_SECS),
            StoreError::Shared(cause) => Self::of_store(cause),
            StoreError::Corrupt(_)
            | StoreError::Word(_)
            | StoreError::Damaged(_)
            | StoreError::Migrate(_)
            | StoreError::Unsuitable(_)
            | StoreError::Importing(_)
            | StoreError::Address(_) => Self::broken(),
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
