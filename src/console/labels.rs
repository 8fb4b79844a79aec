//! Labels of agents as people read and write them: `env=prod, role=web`.

use serde_json::{Map, Value};

/// Labels in one line.
pub(super) fn shown(labels: Map<String, Value>) -> String {
    let pairs = labels.into_iter().map(|(name, value)| match value {
        Value::String(value) => format!("{name}={value}"),
        value => format!("{name}={value}"),
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// Labels as people write them; a name with an empty value removes the label.
///
/// # Errors
/// If a part is no label.
pub(super) fn read(text: &str) -> Result<Vec<(String, Value)>, String> {
    let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part} is no label: write name=value"))?;
        let value = value.trim();
        Ok((name.trim().to_owned(), if value.is_empty() { Value::Null } else { Value::from(value) }))
    };
    parts.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_read_as_people_write_them() {
        let labels: Map<String, Value> = read("env=prod, role = web, old=").unwrap().into_iter().collect();
        assert_eq!(Value::Object(labels.clone()), json!({"env": "prod", "role": "web", "old": null}));
        assert_eq!(shown(json!({"env": "prod", "role": "web"}).as_object().unwrap().clone()), "env=prod, role=web");
        assert_eq!(read("prod").unwrap_err(), "prod is no label: write name=value");
    }
}
