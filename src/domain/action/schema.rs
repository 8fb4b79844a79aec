//! What a JSON Schema of arguments costs to check. A schema of 16 KiB can refer to its own parts so
//! often that one check takes years, or so deep that it overflows the stack. So the parts that a check
//! may visit are counted, with every reference followed, before the schema is used.

use std::collections::HashMap;

use serde_json::Value;

/// Limit of parts that a check may visit. Schemas of arguments have a few dozen.
const MAX_PARTS: u64 = 10_000;
/// Limit of levels, with references followed.
const MAX_LEVELS: usize = 64;
/// References whose destination depends on more than the schema's text.
const OTHER_REFERENCES: [&str; 5] = ["$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$recursiveAnchor"];

/// Why a schema is not used; `None` if it is cheap to check.
pub(super) fn fault(schema: &Value) -> Option<String> {
    Parts { schema, known: HashMap::new() }.of(schema, "", 0).err()
}

struct Parts<'a> {
    schema: &'a Value,
    /// The number of parts and of levels behind each reference; `None` while it is being counted.
    known: HashMap<&'a str, Option<(u64, usize)>>,
}

impl<'a> Parts<'a> {
    /// Counts the parts and the levels of `node`, which is `level` levels deep. `name` is its key.
    fn of(&mut self, node: &'a Value, name: &str, level: usize) -> Result<(u64, usize), String> {
        if level > MAX_LEVELS {
            return Err(too_deep());
        }
        let (mut parts, mut levels) = (1_u64, 1);
        let mut add = |(more, below): (u64, usize)| {
            parts = parts.saturating_add(more);
            levels = levels.max(below + 1);
            if parts > MAX_PARTS { Err(format!("takes more than {MAX_PARTS} steps to check")) } else { Ok(()) }
        };
        match node {
            Value::Array(items) => {
                for item in items {
                    add(self.of(item, "", level + 1)?)?;
                }
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    if OTHER_REFERENCES.contains(&key.as_str()) || (key == "$id" && level > 0) {
                        return Err(format!("has {key}; refer to its own parts by $ref and #/… only"));
                    }
                    add(self.of(value, key, level + 1)?)?;
                }
            }
            Value::String(pointer) if name == "$ref" => add(self.referred(pointer, level)?)?,
            _ => {}
        }
        Ok((parts, levels))
    }

    /// Counts what a reference leads to.
    fn referred(&mut self, pointer: &'a str, level: usize) -> Result<(u64, usize), String> {
        match self.known.get(pointer) {
            Some(Some((_, levels))) if level + levels > MAX_LEVELS => return Err(too_deep()),
            Some(Some(counted)) => return Ok(*counted),
            Some(None) => return Err(format!("refers to itself by {pointer:?}")),
            None => {}
        }
        let target = pointer.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
        let target = target.ok_or_else(|| format!("refers to {pointer:?}, which is none of its own parts"))?;
        self.known.insert(pointer, None);
        let counted = self.of(target, "", level + 1)?;
        self.known.insert(pointer, Some(counted));
        Ok(counted)
    }
}

fn too_deep() -> String {
    format!("has more than {MAX_LEVELS} parts inside one another")
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    /// A chain of definitions, each of which refers `times` to the next.
    fn chain(length: usize, times: usize) -> Value {
        let mut definitions: Map<String, Value> = (0..length)
            .map(|n| (format!("d{n}"), json!({"allOf": vec![json!({"$ref": format!("#/$defs/d{}", n + 1)}); times]})))
            .collect();
        definitions.insert(format!("d{length}"), json!({"type": "array"}));
        json!({"$defs": definitions, "$ref": "#/$defs/d0"})
    }

    #[test]
    fn a_schema_whose_check_would_not_end_is_refused() {
        for (schema, why) in [
            (chain(13, 2), "more than 10000 steps"),
            (chain(40, 2), "inside one another"),
            (chain(1000, 1), "inside one another"),
            (json!({"$ref": "#"}), "refers to itself"),
            (json!({"items": {"$ref": "#/items"}}), "refers to itself"),
            (json!({"$ref": "http://127.0.0.1/x"}), "none of its own parts"),
            (json!({"$ref": "#/$defs/missing"}), "none of its own parts"),
            (json!({"$ref": "#x", "$defs": {"x": {"$anchor": "x"}}}), "$anchor"),
            (json!({"items": {"$id": "x", "allOf": [{"$ref": "x"}]}}), "$id"),
        ] {
            let fault = fault(&schema).unwrap_or_else(|| panic!("{schema} is accepted"));
            assert!(fault.contains(why), "{schema}: {fault}");
        }
    }

    #[test]
    fn ordinary_schemas_are_cheap() {
        for schema in [
            json!(true),
            json!({"$id": "https://example.org/x", "type": "array", "items": {"$ref": "#/$defs/level"},
                "$defs": {"level": {"enum": ["low", "high"]}}}),
            json!({"type": "array", "items": {"enum": ["$ref", "$anchor"]}}),
            chain(3, 4),
        ] {
            assert_eq!(fault(&schema), None, "{schema}");
        }
        assert!(super::super::Catalogue::built_in().iter().all(|action| fault(&action.parameters).is_none()));
    }
}
