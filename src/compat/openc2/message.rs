//! The message around a command: with the envelope of the transfer specification, or the command alone.

use serde_json::{Map, Value};

use super::answer::{OpenC2Answer, ProducerHeaders};

/// Longest id of a request that is repeated in the answer, in bytes.
const MAX_ID: usize = 128;

/// A message.
#[derive(Debug)]
pub struct ProducerMessage {
    /// Its envelope, if it has one.
    pub headers: Option<ProducerHeaders>,
    /// The command, or why there is none.
    pub command: Result<Map<String, Value>, OpenC2Answer>,
}

/// Opens a message.
pub fn open(mut message: Map<String, Value>) -> ProducerMessage {
    if !message.contains_key("body") && !message.contains_key("headers") {
        return ProducerMessage { headers: None, command: Ok(message) };
    }
    let text = |headers: &Value, key: &str| {
        headers.get(key).and_then(Value::as_str).filter(|text| (1..=MAX_ID).contains(&text.len())).map(str::to_owned)
    };
    let headers = message.get("headers").unwrap_or(&Value::Null);
    let headers = ProducerHeaders { request_id: text(headers, "request_id"), from: text(headers, "from") };
    let request = message.get_mut("body").and_then(|body| body.get_mut("openc2")?.get_mut("request")).map(Value::take);
    let command = match request {
        Some(Value::Object(command)) => Ok(command),
        Some(_) => Err(OpenC2Answer::bad("/body/openc2/request is not a command, which is an object")),
        None => Err(OpenC2Answer::bad("/body/openc2/request is missing")),
    };
    ProducerMessage { headers: Some(headers), command }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn opened(message: &Value) -> ProducerMessage {
        open(message.as_object().unwrap().clone())
    }

    #[test]
    fn a_command_comes_alone_or_in_an_envelope() {
        let command = json!({"action": "query", "target": {"features": []}});
        let alone = opened(&command);
        assert_eq!((alone.headers, Value::Object(alone.command.unwrap())), (None, command.clone()));
        let whole = opened(&json!({"headers": {"request_id": "r", "from": "p", "to": ["x"]},
            "body": {"openc2": {"request": command}}}));
        let headers = ProducerHeaders { request_id: Some("r".into()), from: Some("p".into()) };
        assert_eq!((whole.headers, Value::Object(whole.command.unwrap())), (Some(headers), command));
        for bad in [json!({"headers": {}}), json!({"body": 7}), json!({"body": {"openc2": {"request": []}}})] {
            let fault = opened(&bad).command.unwrap_err();
            assert!(fault.text.starts_with("/body/openc2/request"), "{bad}");
        }
        let long = json!({"headers": {"request_id": "x".repeat(MAX_ID + 1), "from": 7}, "body": {}});
        assert_eq!(opened(&long).headers, Some(ProducerHeaders::default()));
    }
}
