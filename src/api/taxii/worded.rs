//! The form of every error below `/taxii2`. It stands around the routes, so that also an unknown path and a wrong method are
//! answered in that form.

use axum::body::Body;
use axum::extract::Request;
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::front::reworded;
use crate::compat::taxii::TAXII;
use crate::views::problem::Problem;
use crate::views::taxii::TaxiiError;

/// Whether a path belongs to TAXII.
fn is_taxii(path: &str) -> bool {
    path.strip_prefix("/taxii2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts the errors below `/taxii2` into TAXII's form.
pub async fn speak(request: Request, next: Next) -> Response {
    let write = |parts: &mut Parts, problem: Problem| {
        if parts.status == StatusCode::UNPROCESSABLE_ENTITY {
            parts.status = StatusCode::BAD_REQUEST;
        }
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TAXII));
        Body::from(serde_json::to_vec(&of_problem(problem, parts.status)).unwrap_or_default())
    };
    reworded::speak(request, next, is_taxii, write).await
}

fn of_problem(problem: Problem, status: StatusCode) -> TaxiiError {
    let faults =
        problem.errors.iter().map(|fault| format!("{} {}", fault.pointer.trim_start_matches('/'), fault.detail));
    let faults: Vec<String> = faults.collect();
    TaxiiError {
        title: problem.title,
        description: if faults.is_empty() { problem.detail } else { faults.join("; ") },
        error_code: problem.kind,
        http_status: status.as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fault::Fault;

    #[test]
    fn every_error_is_a_message_of_taxii() {
        let problem = |errors| Problem {
            kind: "urn:riposte:problem:invalid".into(),
            title: "Invalid".into(),
            status: 422,
            detail: "why".into(),
            errors,
        };
        let of = |errors| serde_json::to_value(of_problem(problem(errors), StatusCode::BAD_REQUEST)).unwrap();
        insta::assert_json_snapshot!([of(vec![]), of(vec![Fault::at("/limit", "must be a number")])]);
        assert!(is_taxii("/taxii2") && is_taxii("/taxii2/x") && !is_taxii("/taxii21"));
    }
}
