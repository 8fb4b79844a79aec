//! Writes JSON as YAML that versions 1.1 and 1.2 read alike. In 1.1 `on`, `yes`, `n` and the like
//! are booleans, and `12:30` and `2026-01-01` are numbers and dates, as keys too. Many tools still
//! use 1.1, so only unambiguous text is unquoted.

use serde_json::{Map, Value};

/// Words that some version parses as another type, in lower case.
const MISTAKEN: [&str; 9] = ["y", "n", "yes", "no", "true", "false", "on", "off", "null"];
/// Keys that come first; the others follow by name.
const FIRST: [&str; 26] = [
    "openapi",
    "info",
    "title",
    "tags",
    "summary",
    "operationId",
    "name",
    "in",
    "$ref",
    "type",
    "format",
    "description",
    "version",
    "required",
    "schema",
    "parameters",
    "requestBody",
    "responses",
    "get",
    "post",
    "put",
    "patch",
    "delete",
    "paths",
    "components",
    "security",
];
/// Keys whose children are names and not keywords: those are sorted by name.
const NAMED: [&str; 6] = ["properties", "schemas", "paths", "responses", "headers", "content"];

/// Writes `value` as a document.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    node(&mut text, value, 0, false);
    text
}

fn node(into: &mut String, value: &Value, indent: usize, is_named: bool) {
    match value {
        Value::Object(object) => {
            for (key, value) in sorted(object, is_named) {
                pad(into, indent);
                into.push_str(&word(key));
                into.push(':');
                match value {
                    Value::Object(object) if !object.is_empty() => {
                        into.push('\n');
                        node(into, value, indent + 2, NAMED.contains(&key.as_str()) && !is_named);
                    }
                    Value::Array(list) if !list.is_empty() => {
                        into.push('\n');
                        node(into, value, indent, false);
                    }
                    other => scalar(into, other, indent),
                }
            }
        }
        Value::Array(list) => {
            for item in list {
                match item {
                    Value::Object(object) if !object.is_empty() => {
                        let mut inner = String::new();
                        node(&mut inner, item, indent + 2, false);
                        pad(into, indent);
                        into.push_str("- ");
                        into.push_str(inner.trim_start_matches(' '));
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        pad(into, indent);
                        into.push_str("-\n");
                        node(into, item, indent + 2, false);
                    }
                    other => {
                        pad(into, indent);
                        into.push('-');
                        scalar(into, other, indent);
                    }
                }
            }
        }
        other => scalar(into, other, indent),
    }
}

fn sorted(object: &Map<String, Value>, is_named: bool) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
    entries.sort_by_key(|(key, _)| (if is_named { 0 } else { rank(key) }, *key));
    entries
}

fn pad(into: &mut String, indent: usize) {
    into.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(into: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) if is_block(text) => {
            into.push_str(" |-\n");
            for line in text.lines() {
                pad(into, indent + 2);
                into.push_str(line);
                into.push('\n');
            }
        }
        Value::String(text) => {
            into.push(' ');
            into.push_str(&word(text));
            into.push('\n');
        }
        other => {
            into.push(' ');
            into.push_str(&other.to_string());
            into.push('\n');
        }
    }
}

/// Whether a multi-line text can be a block scalar.
fn is_block(text: &str) -> bool {
    let is_plain = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.chars().any(char::is_control);
    text.contains('\n') && !text.ends_with('\n') && text.split('\n').all(is_plain)
}

/// A text on one line: plain, or as JSON, which is valid YAML.
fn word(text: &str) -> String {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || " _/.-".contains(c));
    if first && rest && !text.ends_with(' ') && !MISTAKEN.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let quoted = Value::from(text).to_string();
    quoted.chars().map(|c| if is_printable(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }).collect()
}

/// Whether YAML 1.1 allows the character unescaped. JSON escapes only the first 32.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ambiguous_yaml_scalars_are_quoted() {
        let value = json!({
            "on": ["On", "yes", "12:30", "2026-01-01", "0x1", "", "~", "# x", "a: b", " a", "a ", "a b", "/v1/x"],
            "properties": {"type": "a\nb", "name": {}}, "type": [[1, null], [], {"a": true, "b": "\u{7f}"}],
        });
        let text = write(&value);
        insta::assert_snapshot!(text, @r##"
        type:
        -
          - 1
          - null
        - []
        - a: true
          b: "\u007f"
        "on":
        - "On"
        - "yes"
        - "12:30"
        - "2026-01-01"
        - "0x1"
        - ""
        - "~"
        - "# x"
        - "a: b"
        - " a"
        - "a "
        - a b
        - /v1/x
        properties:
          name: {}
          type: |-
            a
            b
        "##);
    }

    #[test]
    fn the_contract_survives_a_yaml_round_trip() {
        let contract = super::super::contract();
        let read: Value = yaml_serde::from_str(&write(&contract)).unwrap();
        assert_eq!(read, contract);
    }
}
