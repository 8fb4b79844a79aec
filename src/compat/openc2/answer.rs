//! Responses of OpenC2: a status, a sentence, results; with the envelope of the message, if it had one.

use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

/// What an envelope says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerHeaders {
    /// The producer's id of the request.
    pub request_id: Option<String>,
    /// Who sends it.
    pub from: Option<String>,
}

/// The statuses of OpenC2 that Riposte sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenC2Status {
    /// The command is taken, and not carried out yet.
    Processing = 102,
    /// The command is committed.
    Ok = 200,
    /// The command has faults.
    BadRequest = 400,
    /// There are no valid credentials.
    Unauthorized = 401,
    /// The caller may not do this.
    Forbidden = 403,
    /// What the command names does not exist.
    NotFound = 404,
    /// The manager failed.
    InternalError = 500,
    /// The command is well-formed, and Riposte cannot do that.
    NotImplemented = 501,
    /// Not now.
    Unavailable = 503,
}

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenC2Answer {
    /// Its status.
    pub status: OpenC2Status,
    /// The same in a sentence.
    pub text: String,
    /// Results by profile.
    pub results: Map<String, Value>,
}

impl OpenC2Answer {
    /// One without results.
    pub fn new(status: OpenC2Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), results: Map::new() }
    }

    /// 400.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(OpenC2Status::BadRequest, text)
    }

    /// 404.
    pub fn nowhere(text: impl Into<String>) -> Self {
        Self::new(OpenC2Status::NotFound, text)
    }

    /// 501.
    pub fn beyond(text: impl Into<String>) -> Self {
        Self::new(OpenC2Status::NotImplemented, text)
    }

    /// With a result.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.results.insert(key.to_owned(), value);
        self
    }

    /// As JSON; inside an envelope to the producer with these headers, if its message had one.
    pub fn write(self, headers: Option<&ProducerHeaders>, now: Timestamp) -> Value {
        let mut response = json!({"status": self.status as u16, "status_text": self.text});
        if !self.results.is_empty() {
            response["results"] = Value::Object(self.results);
        }
        let Some(ProducerHeaders { request_id, from }) = headers else { return response };
        let mut own = json!({"created": now.as_millis(), "from": "riposte"});
        if let Some(request_id) = request_id {
            own["request_id"] = json!(request_id);
        }
        if let Some(from) = from {
            own["to"] = json!([from]);
        }
        json!({"headers": own, "body": {"openc2": {"response": response}}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_in_the_form_of_the_message() {
        let answer = OpenC2Answer::new(OpenC2Status::Ok, "done").with("slpf", json!({"rule_number": 7}));
        let now = Timestamp::from_millis(5);
        let bare = json!({"status": 200, "status_text": "done", "results": {"slpf": {"rule_number": 7}}});
        assert_eq!(answer.clone().write(None, now), bare);
        let headers = ProducerHeaders { request_id: Some("r".into()), from: Some("p".into()) };
        let written = answer.write(Some(&headers), now);
        assert_eq!(written["headers"], json!({"created": 5, "from": "riposte", "request_id": "r", "to": ["p"]}));
        assert_eq!(written["body"]["openc2"]["response"], bare);
    }
}
