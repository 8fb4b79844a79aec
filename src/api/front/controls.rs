//! Refuses control characters in the texts of a request: NUL, which PostgreSQL cannot store, and
//! the others, which can change what a terminal shows. Queries, paths and bodies are checked where
//! they are extracted, so handlers need no check. The response names the field.

use axum::extract::{FromRequestParts as _, Query, RawPathParams};
use axum::http::Uri;
use axum::http::request::Parts;
use serde_json::Value;

use super::error::{ApiError, ApiResult};
use crate::api::state::AppState;
use crate::domain::fault::Fault;

const DETAIL: &str = "contains a control character";
/// Maximum number of reported faults.
const MAX_FAULTS: usize = 100;

/// Checks every query parameter.
///
/// # Errors
/// 422 with the names of parameters that contain a control character.
pub(super) fn check_query(uri: &Uri) -> ApiResult<()> {
    // The handler's own type refuses a query that cannot be parsed.
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else { return Ok(()) };
    let is_bad = |text: &str| text.chars().any(char::is_control);
    let bad = parameters.iter().filter(|(name, value)| is_bad(name) || is_bad(value));
    refuse(bad.map(|(name, _)| Fault::at(format!("/{}", escaped(name)), DETAIL)).take(MAX_FAULTS).collect())
}

/// Checks every path parameter.
///
/// # Errors
/// 404: no object has such a name.
pub(super) async fn check_path(parts: &mut Parts, state: &AppState) -> ApiResult<()> {
    let Ok(named) = RawPathParams::from_request_parts(parts, state).await else { return Ok(()) };
    match named.iter().find(|(_, value)| value.chars().any(char::is_control)) {
        Some((name, _)) => Err(ApiError::not_found(format!("no object has this {name}: it {DETAIL}"))),
        None => Ok(()),
    }
}

/// Checks every string of a JSON body; line breaks and tabs are allowed. Invalid JSON is left to
/// the parser.
///
/// # Errors
/// 422 with a pointer to each string that contains a control character.
pub(in crate::api) fn check_body(bytes: &[u8]) -> ApiResult<()> {
    // Fast path: JSON escapes controls with a backslash, except DEL and those that begin with 0xc2.
    if !bytes.iter().any(|byte| matches!(byte, b'\\' | 0x7f | 0xc2)) {
        return Ok(());
    }
    let Ok(body) = serde_json::from_slice(bytes) else { return Ok(()) };
    let mut faults = Vec::new();
    walk(&body, &mut String::new(), &mut faults);
    refuse(faults)
}

fn walk(value: &Value, at: &mut String, faults: &mut Vec<Fault>) {
    let is_bad = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    let length = at.len();
    match value {
        _ if faults.len() >= MAX_FAULTS => {}
        Value::String(text) if is_bad(text) => faults.push(Fault::at(at.as_str(), DETAIL)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                at.push('/');
                at.push_str(&index.to_string());
                walk(item, at, faults);
                at.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, item) in fields {
                at.push('/');
                at.push_str(&escaped(name));
                if is_bad(name) {
                    faults.push(Fault::at(at.as_str(), DETAIL));
                } else if name != "alert" || !item.is_object() {
                    // The alert in a policy's test may contain what alerts may contain.
                    walk(item, at, faults);
                }
                at.truncate(length);
            }
        }
        _ => {}
    }
}

/// Escapes a key for a JSON Pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn refuse(faults: Vec<Fault>) -> ApiResult<()> {
    if faults.is_empty() { Ok(()) } else { Err(ApiError::invalid(faults)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_character_is_found_anywhere() {
        let found = |body: &str| check_body(body.as_bytes()).err().map(|error| format!("{:?}", error.problem().errors));
        for (body, pointer) in [
            (r#"{"a": "x\u0000"}"#, "/a"),
            (r#"{"a": ["x", {"b/c": "\u001b[31m"}]}"#, "/a/1/b~1c"),
            (r#"{"a\u0007": 1}"#, "/a\\u{7}"),
            (r#""\b""#, "\"\""),
            ("{\"a\": \"\u{7f}\"}", "/a"),
            ("{\"a\": \"\u{9b}31m\"}", "/a"),
            (r#"{"alert": "\u0000"}"#, "/alert"),
        ] {
            assert!(found(body).is_some_and(|said| said.contains(pointer)), "{body}: {:?}", found(body));
        }
        for fine in [
            r#"{"a": "one\n\ttwo\r\n \u00e9 \\u0000"}"#,
            r#"{"tests": [{"alert": {"full_log": "\u0000"}}]}"#,
            "no JSON \\",
            "£",
        ] {
            assert_eq!(found(fine), None, "{fine}");
        }
    }
}
