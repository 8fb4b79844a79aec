//! Errors of calls below `/wazuh`: those with a number of Wazuh's own, and all others, which `shape.rs` puts
//! into Wazuh's form.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::front::error::ApiError;
use crate::compat::wazuh_api::query::QueryFault;
use crate::engine::refusal::Refusal;
use crate::store::StoreError;
use crate::views::wazuh::WazuhProblem;

/// Media type of errors, with the parameter that Wazuh sends.
pub(super) const ERROR_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json; charset=utf-8");

/// An error of a call.
#[derive(Debug)]
pub(super) enum Refused {
    /// One that has its form already.
    Worded(StatusCode, WazuhProblem, Option<u64>),
    /// Any other.
    Api(Box<ApiError>),
}

impl Refused {
    /// 401: a login that failed.
    pub(super) fn login(detail: impl Into<String>) -> Self {
        Self::Worded(StatusCode::UNAUTHORIZED, problem("Unauthorized", detail, None), None)
    }

    /// 403, error 6000: too many failed logins from the address.
    pub(super) fn blocked(retry_after_secs: u64) -> Self {
        let detail = "Limit of login attempts reached. The current IP has been blocked due to a high number of login \
                      attempts";
        let problem = problem("Permission Denied", detail, Some(6000));
        Self::Worded(StatusCode::FORBIDDEN, problem, Some(retry_after_secs))
    }

    /// 400, with a number if Wazuh has one.
    pub(super) fn bad_request(detail: impl Into<String>, error: Option<u32>) -> Self {
        Self::Worded(StatusCode::BAD_REQUEST, problem("Bad Request", detail, error), None)
    }
}

fn problem(title: &str, detail: impl Into<String>, error: Option<u32>) -> WazuhProblem {
    WazuhProblem { title: title.to_owned(), detail: detail.into(), remediation: None, error }
}

impl From<QueryFault> for Refused {
    fn from(fault: QueryFault) -> Self {
        let mut problem = problem("Bad Request", fault.to_string(), Some(fault.code()));
        problem.remediation = Some(fault.remedy());
        Self::Worded(StatusCode::BAD_REQUEST, problem, None)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        ApiError::from(refusal).into()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        ApiError::from(error).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, problem, retry_after_secs) = match self {
            Self::Api(error) => return error.into_response(),
            Self::Worded(status, problem, secs) => (status, problem, secs),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, ERROR_TYPE)], body).into_response();
        if let Some(secs) = retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"riposte\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
