//! Reads refusals. A proxy, a firewall or a portal may answer instead of the manager, with 401 and
//! 403 too. Only the manager's own problem documents say anything about this agent.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, SERVER, VIA};
use riposte_protocol::visible::is_hidden;
use riposte_protocol::{PROBLEM, PROBLEM_CLOCK};

use super::Ended;

/// Largest problem document that is read, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Longest quote of another server's answer, in characters.
const MAX_TOLD: usize = 120;

/// The manager's own problem (RFC 9457).
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// Last part of the problem's `type`.
    word: String,
    /// The manager's explanation.
    detail: String,
}

/// Reads the manager's own problem. Returns `None` if another server has answered, or the body is
/// not complete.
fn problem(headers: &HeaderMap, body: &[u8]) -> Option<Problem> {
    let media_type = text(headers, CONTENT_TYPE)?;
    if media_type.split(';').next()?.trim() != "application/problem+json" {
        return None;
    }
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let word = problem["type"].as_str()?.strip_prefix(PROBLEM)?;
    Some(Problem { word: told(word, MAX_TOLD), detail: told(problem["detail"].as_str().unwrap_or_default(), 500) })
}

/// Reads a refusal by 401 or 403.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Ended {
    match problem(headers, body) {
        Some(problem) if problem.word == PROBLEM_CLOCK => Ended::WrongTime(problem.detail),
        Some(problem) => Ended::Rejected(problem.detail),
        None => Ended::Refused(who(status, headers, body)),
    }
}

/// Which server has answered, and what, for people. The text is untrusted.
pub(super) fn who(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let server = match (text(headers, SERVER), text(headers, VIA)) {
        (Some(server), _) => server,
        (None, Some(via)) => format!("a proxy ({via})"),
        (None, None) => "a server that does not say what it is".into(),
    };
    let media_type = text(headers, CONTENT_TYPE).map_or_else(String::new, |media_type| format!(", {media_type}"));
    let said = told(&String::from_utf8_lossy(body), MAX_TOLD);
    let said = if said.is_empty() { said } else { format!(", which says: {said}") };
    format!("{status} from {server}{media_type}{said}")
}

/// The time in `Retry-After`, in seconds, at most an hour. A date is ignored; the manager never
/// sends one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let secs: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs.min(3600)))
}

fn text(headers: &HeaderMap, name: impl reqwest::header::AsHeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(told(&String::from_utf8_lossy(value.as_bytes()), MAX_TOLD)).filter(|text| !text.is_empty())
}

/// Another server's text, fit for a log: its first characters, without control characters.
fn told(text: &str, most: usize) -> String {
    let plain: String = text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).take(most * 4).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.join(" ").chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_managers_own_problem_counts() {
        let own = headers(&[("content-type", "application/problem+json; charset=utf-8")]);
        let body = br#"{"type":"urn:riposte:problem:forbidden","detail":"this agent was revoked"}"#;
        let found = problem(&own, body).unwrap();
        assert_eq!((found.word.as_str(), found.detail.as_str()), ("forbidden", "this agent was revoked"));
        for (media_type, body) in [
            ("text/html", body.as_slice()),
            ("application/json", body.as_slice()),
            ("application/problem+json", b"nope"),
            ("application/problem+json", &body[..20]),
            ("application/problem+json", br#"{"type":"about:blank","title":"Forbidden"}"#),
            ("application/problem+json", br#"{"type":7}"#),
        ] {
            let said = headers(&[("content-type", media_type)]);
            assert_eq!(problem(&said, body), None, "{media_type}: {}", String::from_utf8_lossy(body));
        }
        assert_eq!(problem(&HeaderMap::new(), body), None);
    }

    #[test]
    fn the_answering_server_is_quoted_without_control_characters() {
        let said = headers(&[("server", "nginx/1.24"), ("content-type", "text/html")]);
        let page = "<h1>403\u{1b}[31m</h1>\n\n  forbidden".repeat(50);
        let told = who(StatusCode::FORBIDDEN, &said, page.as_bytes());
        assert!(
            told.starts_with("403 Forbidden from nginx/1.24, text/html, which says: <h1>403 [31m</h1> forb"),
            "{told}"
        );
        assert!(told.chars().count() < 300 && !told.chars().any(char::is_control), "{told}");
        let unnamed = who(StatusCode::UNAUTHORIZED, &HeaderMap::new(), b"");
        assert_eq!(unnamed, "401 Unauthorized from a server that does not say what it is");
        let via = headers(&[("via", "1.1 squid")]);
        assert_eq!(
            who(StatusCode::FORBIDDEN, &via, b"\xff"),
            "403 Forbidden from a proxy (1.1 squid), which says: \u{fffd}"
        );
    }
}
