//! Responses of a manager, read as the views that the API writes (`views/`). What does not fit is
//! an error with the operation and the field. [`Said`] keeps what a newer manager says beyond that.

use anyhow::{Context as _, bail};
use reqwest::{Response, StatusCode};
use riposte_protocol::PROBLEM;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::views::field_errors;
use crate::views::problem::Problem;

/// The hint for a server that complains about plain HTTP.
pub const HTTPS_HINT: &str = "this port speaks https: write https:// before the manager's address";

/// What the manager said: the JSON as it came, for `--json`, and what this version knows of it.
#[derive(Clone, Debug)]
pub struct Said<T> {
    /// The JSON, with fields that only a newer version knows.
    pub json: Value,
    /// What this version knows.
    pub view: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let view = field_errors::read(&json).map_err(serde::de::Error::custom)?;
        Ok(Self { json, view })
    }
}

impl<T> Serialize for Said<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// A response whose body is not read yet.
#[derive(Debug)]
pub struct Pending {
    /// The response.
    pub response: Response,
    /// The operation for messages, such as `GET /v1/agents`.
    pub operation: String,
}

/// A response of the manager.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    body: Value,
    /// The manager's address.
    origin: String,
    operation: String,
}

impl Reply {
    /// Reads a response to its end.
    ///
    /// # Errors
    /// If it is incomplete, or not a manager's.
    pub async fn read(pending: Pending) -> anyhow::Result<Self> {
        let Pending { response, operation } = pending;
        let (status, origin) = (response.status(), response.url().origin().ascii_serialization());
        let bytes = response.bytes().await.context("the manager's answer is incomplete")?;
        if is_https_refusal(status, &bytes) {
            bail!(HTTPS_HINT);
        }
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => bail!(stranger(&origin, &format!("it answers {status} and no JSON"))),
        };
        let reply = Self { status, body, origin, operation };
        // A manager refuses by a problem document of its own; a proxy or another program does not.
        if !status.is_success() && reply.refused().is_none() {
            bail!(stranger(&reply.origin, &format!("it answers {status}")));
        }
        Ok(reply)
    }

    /// The body of a successful response.
    ///
    /// # Errors
    /// The manager's problem, if the status is an error, or what does not fit.
    pub fn done<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        if let Some(why) = self.refused() {
            bail!(why);
        }
        let Self { body, origin, operation, .. } = self;
        read(body).map_err(|why| anyhow::anyhow!(misfit(&origin, &operation, &why)))
    }

    /// Checks that the response is a success; its body does not matter.
    ///
    /// # Errors
    /// The manager's problem.
    pub fn accepted(self) -> anyhow::Result<()> {
        self.refused().map_or(Ok(()), |why| bail!(why))
    }

    /// The word of the manager's problem, such as `forbidden`; `None` if it did not refuse.
    pub fn problem_word(&self) -> Option<String> {
        let problem = problem(&self.body).filter(|_| !self.status.is_success())?;
        problem.kind.strip_prefix(PROBLEM).map(|word| word.trim_start_matches(':').to_owned())
    }

    /// Why the manager refused; `None` if it did not.
    pub fn refused(&self) -> Option<String> {
        let problem = problem(&self.body).filter(|_| !self.status.is_success());
        problem.map(|problem| format!("{}: {}", self.status, told(&problem)))
    }
}

/// A manager's own problem document (RFC 9457); `None` for anything else.
pub fn problem(body: &Value) -> Option<Problem> {
    Problem::deserialize(body).ok().filter(|problem| problem.kind.starts_with(PROBLEM))
}

/// Reads `body`; the error names the field.
fn read<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(body).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })
}

/// Reads one line of a streamed response.
///
/// # Errors
/// If it is not JSON, or does not fit.
pub fn line<T: DeserializeOwned>(bytes: &[u8], operation: &str) -> anyhow::Result<T> {
    let body = serde_json::from_slice(bytes).context("the manager's answer is not JSON")?;
    read(body).map_err(|why| anyhow::anyhow!("the manager's answer to {operation} does not fit: {why}"))
}

/// Formats a problem for people.
pub fn told(problem: &Problem) -> String {
    let faults = problem.errors.iter().map(|fault| format!("\n  {}: {}", fault.pointer, fault.detail));
    format!("{}{}", problem.detail, faults.collect::<String>())
}

/// The error that another program answers where a manager should.
pub fn stranger(manager: &str, what: &str) -> String {
    format!(
        "what answers at {manager} is not a Riposte manager ({what}); check the address, and the proxy if there is one"
    )
}

/// The error that an answer has not the form that this version expects.
fn misfit(manager: &str, operation: &str, why: &str) -> String {
    format!(
        "what answers at {manager} is not a Riposte manager, or one of another version: its answer to {operation} does not \
         fit: {why}; check the address, the proxy if there is one, and the versions of both"
    )
}

/// Whether a server complains about plain HTTP on its TLS port, in nginx's or Go's words.
pub fn is_https_refusal(status: StatusCode, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    status == StatusCode::BAD_REQUEST && is_plain_at_https_port(&text)
}

fn is_plain_at_https_port(text: &str) -> bool {
    text.contains("plain HTTP request was sent to HTTPS port") || text.contains("HTTP request to an HTTPS server")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::views::audit::AuditRow;
    use crate::views::page::Page;

    fn entry() -> Value {
        json!({"seq": 1, "at": "2026-11-24T10:00:00.000Z", "actor": "riposte", "verb": "created", "noun": "response",
            "noun_id": "r", "detail": "", "hash": "00ff", "of_a_later_version": [1]})
    }

    #[test]
    fn what_a_newer_manager_says_beyond_is_kept() {
        let page: Page<Said<AuditRow>> = read(json!({"items": [entry()], "next_cursor": null, "more": 1})).unwrap();
        let [said] = page.items.as_slice() else { panic!("{page:?}") };
        assert_eq!((said.view.hash.as_slice(), serde_json::to_value(said).unwrap()), (&[0, 255][..], entry()));
    }

    #[test]
    fn an_answer_that_does_not_fit_names_operation_and_field() {
        let mut wrong = entry();
        wrong["at"] = json!("yesterday");
        let reply = Reply {
            status: StatusCode::OK,
            body: json!({"items": [entry(), wrong], "next_cursor": null}),
            origin: "http://127.0.0.1:8480".to_owned(),
            operation: "GET /v1/audit".to_owned(),
        };
        let told = reply.done::<Page<Said<AuditRow>>>().unwrap_err().to_string();
        assert!(told.contains("its answer to GET /v1/audit does not fit: items[1]: at: "), "{told}");
    }
}
