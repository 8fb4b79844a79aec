//! The form of every error below `/crowdsec`: `{"message": "…"}`, with the statuses that bouncers know. It stands
//! around the routes, so that also an unknown path and a wrong method are answered in that form.

use axum::body::Body;
use axum::extract::Request;
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::front::reworded;
use crate::views::crowdsec::CrowdsecError;
use crate::views::problem::Problem;

fn is_crowdsec(path: &str) -> bool {
    path.strip_prefix("/crowdsec").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts the errors below `/crowdsec` into `CrowdSec`'s form.
pub async fn speak(request: Request, next: Next) -> Response {
    let write = |parts: &mut Parts, problem: Problem| {
        let (status, error) = of_problem(&problem);
        parts.status = status;
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        parts.headers.remove(header::WWW_AUTHENTICATE);
        Body::from(serde_json::to_vec(&error).unwrap_or_default())
    };
    reworded::speak(request, next, is_crowdsec, write).await
}

fn of_problem(problem: &Problem) -> (StatusCode, CrowdsecError) {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match status {
        // Bouncers know one status for a key that is not accepted, with these words before the reason.
        StatusCode::UNAUTHORIZED => {
            (StatusCode::FORBIDDEN, CrowdsecError { message: format!("access forbidden: {}", problem.detail) })
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            (StatusCode::BAD_REQUEST, CrowdsecError { message: problem.detail.clone() })
        }
        status => (status, CrowdsecError { message: problem.detail.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_a_message_with_a_status_that_bouncers_know() {
        let of = |status: u16| {
            let kind = "urn:riposte:problem:x".to_owned();
            let problem = Problem { kind, title: "x".into(), status, detail: "why".into(), errors: Vec::new() };
            let (status, error) = of_problem(&problem);
            (status.as_u16(), error.message)
        };
        assert_eq!(of(401), (403, "access forbidden: why".to_owned()));
        for (status, told) in
            [(400, 400), (403, 403), (404, 404), (405, 405), (413, 413), (422, 400), (429, 429), (503, 503)]
        {
            assert_eq!(of(status), (told, "why".to_owned()));
        }
        assert!(is_crowdsec("/crowdsec") && is_crowdsec("/crowdsec/v2") && !is_crowdsec("/crowdsecs"));
    }
}
