//! Schemas of documents that clients send. A response contains every field, including defaults. A
//! request may omit fields with a default, and must not contain unknown or null fields. So a policy
//! has two schemas: `Policy` in responses and `PolicyDocument` in requests, which this file derives
//! from the first; and so has a scope.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Required fields by schema; other schemas have none.
const REQUIRED: [(&str, &[&str]); 6] = [
    ("Policy", &["name", "match", "respond"]),
    ("PolicyTest", &["alert", "fires"]),
    ("Respond", &["action"]),
    ("Escalation", &["ladder", "forget_after"]),
    ("Threshold", &["count", "within"]),
    ("Waves", &["count", "over"]),
];

/// Adds the request schemas, and lets requests refer to them.
pub(super) fn separate(contract: &mut Value) {
    let Some(schemas) = contract.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    unwrap_selector(schemas);
    let mut names = BTreeSet::new();
    reach(schemas, "Policy", &mut names);
    reach(schemas, "Scope", &mut names);
    for name in &names {
        let mut schema = schemas.get(name).cloned().unwrap_or_default();
        flatten(schemas, &mut schema);
        close(&mut schema);
        rename(&mut schema, &names);
        let required = REQUIRED.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, required)| required);
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("required");
            if !required.is_empty() {
                schema.insert("required".into(), json!(required));
            }
        }
        schemas.insert(format!("{name}Document"), schema);
    }
    for name in ["NewBacktest", "CustomAction", "NewManualResponse", "CreateUser", "ChangeUser", "CreateKey"] {
        let Some(schema) = schemas.get_mut(name) else { continue };
        rename(schema, &names);
        if name == "CustomAction" {
            close(schema);
        }
    }
    for operation in super::operations::operations(contract) {
        if let Some(body) = operation.get_mut("requestBody") {
            rename(body, &names);
        }
    }
}

/// A selector stands in `on` as it is, and not below a name of its own.
fn unwrap_selector(schemas: &mut Map<String, Value>) {
    let Some(on) = schemas.get_mut("On").and_then(Value::as_object_mut) else { return };
    let Some(Value::Array(mut kinds)) = on.remove("oneOf") else { return };
    for kind in &mut kinds {
        if let Some(selector) = kind.pointer("/properties/select").cloned() {
            *kind = selector;
        }
    }
    // A client that allows for new fields finds the list of agents in both.
    on.insert("anyOf".into(), Value::Array(kinds));
}

/// In a request a selector of `on` names something: none of its parts is empty. A response by hand
/// has no origin, and names agents in `agents` or in `on`. It comes after the bounds, which it copies.
pub(super) fn close_on(contract: &mut Value) {
    const PARTS: [(&str, &str); 3] = [("labels", "minProperties"), ("ids", "minItems"), ("not", "minProperties")];
    let Some(schemas) = contract.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    let Some(mut form) = schemas.get("AgentSelectorDocument").cloned() else { return };
    form["minProperties"] = json!(1);
    for (part, least) in PARTS {
        form["properties"][part][least] = json!(1);
    }
    let kinds = schemas.get_mut("OnDocument").and_then(|on| on.get_mut("anyOf")).and_then(Value::as_array_mut);
    let Some(kinds) = kinds else { return };
    kinds.retain(|kind| kind.get("$ref").is_none());
    kinds.push(form);
    let by_hand = kinds.iter().filter(|kind| kind["enum"] != json!(["origin"])).cloned().map(|mut kind| {
        if let Some(agents) = kind.pointer_mut("/properties/agents") {
            agents["items"] = json!({"type": "string", "format": "agent-word"});
        }
        kind
    });
    let by_hand: Vec<Value> = by_hand.collect();
    if let Some(response) = schemas.get_mut("NewManualResponse") {
        response["properties"]["on"] =
            json!({"description": "The agents as a policy names them, beside `agents`.", "anyOf": by_hand});
        response["anyOf"] = json!([{"required": ["agents"]}, {"required": ["on"]}]);
    }
}

/// Collects the object schemas that a schema consists of.
fn reach(schemas: &Map<String, Value>, name: &str, into: &mut BTreeSet<String>) {
    let Some(schema) = schemas.get(name) else { return };
    // An enum is the same in both directions.
    if schema.get("enum").is_some() || !into.insert(name.to_owned()) {
        return;
    }
    for name in references(schema) {
        reach(schemas, &name, into);
    }
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(object) => {
            let own = object.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
            own.map(str::to_owned).into_iter().chain(object.values().flat_map(references)).collect()
        }
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// Merges `allOf` parts into one object: only a single object can forbid other fields.
fn flatten(schemas: &Map<String, Value>, schema: &mut Value) {
    let Some(parts) = schema.get("allOf").and_then(Value::as_array).cloned() else { return };
    let mut properties = Map::new();
    for part in parts {
        let part = match references(&part).as_slice() {
            [only] if part.get("$ref").is_some() => schemas.get(only).cloned().unwrap_or_default(),
            _ => part,
        };
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
    }
    *schema = json!({"type": "object", "description": schema["description"], "properties": properties});
}

/// Forbids unknown and null fields.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(kinds)) = object.get_mut("oneOf") {
                kinds.retain(|kind| *kind != json!({"type": "null"}));
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    object.remove("oneOf");
                    object.extend(only.as_object().cloned().unwrap_or_default());
                }
            }
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".into(), json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

fn rename(schema: &mut Value, names: &BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref")
                && reference.rsplit('/').next().is_some_and(|name| names.contains(name))
            {
                reference.push_str("Document");
            }
            object.values_mut().for_each(|schema| rename(schema, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|schema| rename(schema, names)),
        _ => {}
    }
}
