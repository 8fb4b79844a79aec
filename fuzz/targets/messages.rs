//! Frames and bodies between manager and agent: what one side reads, it writes again as the same
//! message, and unknown fields change nothing.

use std::fmt::Debug;

use riposte_protocol::message::{EnrollRequest, EnrollResponse, FromAgent, PollRequest, PollResponse, ToAgent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) fn check(input: &[u8]) {
    both::<FromAgent>(input, |message| *message == FromAgent::Unknown);
    both::<ToAgent>(input, |message| *message == ToAgent::Unknown);
    both::<PollRequest>(input, |_| false);
    both::<PollResponse>(input, |_| false);
    both::<EnrollRequest>(input, |_| false);
    both::<EnrollResponse>(input, |_| false);
}

fn both<M: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8], is_unknown: fn(&M) -> bool) {
    let Ok(message) = serde_json::from_slice::<M>(input) else { return };
    if is_unknown(&message) {
        return;
    }
    let written = serde_json::to_vec(&message).unwrap();
    let again: M = serde_json::from_slice(&written).unwrap();
    assert_eq!(again, message);
    assert_eq!(serde_json::to_vec(&again).unwrap(), written, "the canonical form");
    // A later version adds fields; an earlier reader must not mind.
    if let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(&written) {
        object.insert("a_field_of_a_later_version".to_owned(), serde_json::json!({"deep": [1]}));
        let later: M = serde_json::from_value(Value::Object(object)).unwrap();
        assert_eq!(later, message);
    }
}
