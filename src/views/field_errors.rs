//! Errors that name the field. Serde buffers a flattened part, and forgets which of its fields it
//! was reading when it failed.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Reads a part of a body; the error begins with the path of the field. For flattened parts:
/// `#[serde(flatten, deserialize_with = "field_errors::read")]`.
///
/// # Errors
/// If a field does not fit.
pub fn read<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => error.into_inner(),
            path => D::Error::custom(format_args!("{path}: {}", error.inner())),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::command::CommandState;
    use crate::views::commands::CommandView;
    use crate::views::page::Page;

    #[test]
    fn an_error_names_the_field_also_of_a_flattened_part() {
        let command = |detail: serde_json::Value| {
            json!({"id": "c", "agent_id": "a", "seq": 1, "effect_id": "e", "response_id": "r", "op": "apply", "action": "x",
                "target_kind": "none", "target_value": "", "arguments": [], "until": null, "state": "queued", "detail": detail,
                "created_at": "2026-11-24T10:00:00.000Z", "expires_at": null, "deliveries": 0, "delivered_at": null,
                "acknowledged_at": null, "finished_at": null, "result": null, "of_a_later_version": {}})
        };
        let read = |items: serde_json::Value| {
            serde_path_to_error::deserialize::<_, Page<CommandView>>(json!({"items": items, "next_cursor": null}))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(json!([command(json!(""))])).unwrap().items[0].command.state, CommandState::Queued);
        let fault = read(json!([command(json!("")), command(json!(3))])).unwrap_err();
        assert_eq!(fault, "items[1]: detail: invalid type: integer `3`, expected a string");
        let mut without = command(json!(""));
        without.as_object_mut().unwrap().remove("seq");
        assert_eq!(read(json!([without])).unwrap_err(), "items[0]: missing field `seq`");
    }
}
