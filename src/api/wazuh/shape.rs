//! The form of every answer below `/wazuh`: errors of the front door, of the router and of handlers become
//! Wazuh's, and `pretty=true` is obeyed. It stands around the routes, so that also an unknown path, a wrong
//! method and a manager without a lease are answered in that form.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::refused::ERROR_TYPE;
use crate::api::front::error::ApiError;
use crate::api::front::reworded::problem_of;
use crate::views::problem::Problem;
use crate::views::wazuh::WazuhProblem;

/// Where the resource is.
pub const PREFIX: &str = "/wazuh";
/// Most bytes of an answer that is laid out for people. A larger one is sent as it is.
const MAX_PRETTY_BYTES: usize = 64 * 1024 * 1024;
/// Spaces of each level, as Wazuh lays out.
const INDENT: &str = "   ";

/// The login of a user in the name of another, which is not there.
const RUN_AS: &str = "/wazuh/security/user/authenticate/run_as";

/// Why `run_as` is not there, in Wazuh's words. A 404 would look like an older Wazuh.
fn no_run_as() -> Response {
    let problem = WazuhProblem {
        title: "Permission Denied".to_owned(),
        detail: "The current user does not have authentication enabled through authorization context: Riposte has no \
                 authorization contexts, and a right belongs to the credentials alone"
            .to_owned(),
        remediation: Some(
            "Log in at /security/user/authenticate with the credentials of that person, or with an API key whose scope \
             is what the context would allow"
                .to_owned(),
        ),
        error: Some(6004),
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, ERROR_TYPE)], body).into_response()
}

/// Whether a path belongs to Wazuh's API.
pub fn is_wazuh(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts the answers below `/wazuh` into Wazuh's form.
pub async fn speak(request: Request, next: Next) -> Response {
    if !is_wazuh(request.uri().path()) {
        return next.run(request).await;
    }
    let is_pretty = request.uri().query().is_some_and(asks_for_pretty);
    let is_run_as = request.uri().path() == RUN_AS && request.method() == Method::POST;
    let response = next.run(request).await;
    let response = if is_run_as && response.status() == StatusCode::NOT_FOUND { no_run_as() } else { response };
    let response = worded(response).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.to_str()
            .is_ok_and(|kind| kind.starts_with("application/json") || kind.starts_with("application/problem+json"))
    });
    if is_pretty && is_json { laid_out(response).await } else { response }
}

fn asks_for_pretty(query: &str) -> bool {
    query.split('&').any(|pair| {
        pair.split_once('=').is_some_and(|(name, value)| name == "pretty" && value.eq_ignore_ascii_case("true"))
    })
}

/// Turns a problem document of Riposte into Wazuh's form.
async fn worded(response: Response) -> Response {
    let (mut parts, problem) = match problem_of(response).await {
        Ok(told) => told,
        Err(response) => return *response,
    };
    let (status, worded) = of_problem(&problem);
    parts.status = status;
    parts.headers.insert(header::CONTENT_TYPE, ERROR_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(serde_json::to_vec(&worded).unwrap_or_default()))
}

/// The status and the words that Wazuh has for a problem.
fn of_problem(problem: &Problem) -> (StatusCode, WazuhProblem) {
    const RIGHTS: &str = "Please, make sure you have permissions to execute the current request: GET /v1/whoami shows \
                          your role and your scope";
    const WAIT: &str = "Retry after the seconds in the header Retry-After";
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let plain = |title: &str, error: Option<u32>, remediation: Option<&str>| WazuhProblem {
        title: title.to_owned(),
        detail: problem.detail.clone(),
        remediation: remediation.map(str::to_owned),
        error,
    };
    let by_number =
        |title: &str| WazuhProblem { detail: format!("{}: {title}", problem.status), ..plain(title, None, None) };
    match status {
        StatusCode::UNAUTHORIZED => (status, plain("Unauthorized", None, None)),
        StatusCode::FORBIDDEN => (status, plain("Permission Denied", Some(4000), Some(RIGHTS))),
        StatusCode::NOT_FOUND => (status, by_number("Not Found")),
        StatusCode::METHOD_NOT_ALLOWED => (status, by_number("Method Not Allowed")),
        StatusCode::REQUEST_TIMEOUT => (status, plain("Request Timeout", None, None)),
        StatusCode::PAYLOAD_TOO_LARGE => (status, plain("Content size exceeded.", None, None)),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            let detail = format!("Invalid Content-type: {}", problem.detail);
            (StatusCode::NOT_ACCEPTABLE, WazuhProblem { detail, ..plain("Not Acceptable", Some(6002), None) })
        }
        StatusCode::TOO_MANY_REQUESTS => (status, plain("Too Many Requests", Some(6001), Some(WAIT))),
        StatusCode::SERVICE_UNAVAILABLE => (status, plain("Service Unavailable", Some(3021), Some(WAIT))),
        status if status.is_server_error() => (status, plain("Internal Error", Some(1000), None)),
        _ => {
            let faults: Vec<String> =
                problem.errors.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
            let detail = if faults.is_empty() { problem.detail.clone() } else { faults.join("; ") };
            (StatusCode::BAD_REQUEST, WazuhProblem { detail, ..plain("Bad Request", None, None) })
        }
    }
}

/// The same answer with line breaks.
async fn laid_out(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = match to_bytes(body, MAX_PRETTY_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::internal(&error).into_response(),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(indented(&bytes)))
}

/// JSON that has no spaces, with line breaks; the order of its fields stays.
fn indented(compact: &[u8]) -> Vec<u8> {
    let mut laid_out = Vec::with_capacity(compact.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    let line = |laid_out: &mut Vec<u8>, depth: usize| {
        laid_out.push(b'\n');
        laid_out.extend(INDENT.repeat(depth).into_bytes());
    };
    for (at, byte) in compact.iter().copied().enumerate() {
        let next = compact.get(at + 1).copied();
        match byte {
            _ if in_string => {
                laid_out.push(byte);
                in_string = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
                continue;
            }
            b'{' | b'[' if matches!((byte, next), (b'{', Some(b'}')) | (b'[', Some(b']'))) => laid_out.push(byte),
            b'{' | b'[' => {
                laid_out.push(byte);
                depth += 1;
                line(&mut laid_out, depth);
            }
            b'}' | b']' => {
                if !matches!(laid_out.last(), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    line(&mut laid_out, depth);
                }
                laid_out.push(byte);
            }
            b',' => {
                laid_out.push(byte);
                line(&mut laid_out, depth);
            }
            b':' => laid_out.extend(b": "),
            _ => laid_out.push(byte),
        }
        in_string = byte == b'"';
    }
    laid_out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_answer_is_laid_out_as_wazuh_does_and_says_the_same() {
        let value = json!({"a": {"b": [1, "x,{\"y\\\\\"}"], "c": []}, "d": {}, "e": [[], [{}]], "f": null});
        let compact = serde_json::to_vec(&value).unwrap();
        let text = String::from_utf8(indented(&compact)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        let mut expected = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(INDENT.as_bytes());
        let mut serializer = serde_json::Serializer::with_formatter(&mut expected, formatter);
        serde::Serialize::serialize(&value, &mut serializer).unwrap();
        assert_eq!(text, String::from_utf8(expected).unwrap());
    }

    #[test]
    fn only_paths_of_wazuhs_api_are_put_into_its_form() {
        for path in ["/wazuh", "/wazuh/", "/wazuh/agents", "/wazuh/nothing"] {
            assert!(is_wazuh(path), "{path}");
        }
        for path in ["/wazuhs", "/v1/wazuh", "/", "/v1/agents"] {
            assert!(!is_wazuh(path), "{path}");
        }
        assert!(asks_for_pretty("a=b&pretty=true") && asks_for_pretty("pretty=True"));
        assert!(!asks_for_pretty("pretty=false") && !asks_for_pretty("pretty") && !asks_for_pretty("xpretty=true"));
    }

    #[test]
    fn every_status_has_the_words_of_wazuh() {
        let of = |status: u16| {
            let kind = "urn:riposte:problem:x".to_owned();
            let problem = Problem { kind, title: "x".into(), status, detail: "why".into(), errors: Vec::new() };
            let (status, problem) = of_problem(&problem);
            (status.as_u16(), problem.title, problem.error)
        };
        for (status, told, title, error) in [
            (400, 400, "Bad Request", None),
            (401, 401, "Unauthorized", None),
            (403, 403, "Permission Denied", Some(4000)),
            (404, 404, "Not Found", None),
            (405, 405, "Method Not Allowed", None),
            (408, 408, "Request Timeout", None),
            (409, 400, "Bad Request", None),
            (413, 413, "Content size exceeded.", None),
            (415, 406, "Not Acceptable", Some(6002)),
            (422, 400, "Bad Request", None),
            (429, 429, "Too Many Requests", Some(6001)),
            (500, 500, "Internal Error", Some(1000)),
            (503, 503, "Service Unavailable", Some(3021)),
        ] {
            assert_eq!(of(status), (told, title.to_owned(), error));
        }
    }
}
