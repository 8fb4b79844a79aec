//! Schemas of documents that clients send. A response contains every field, including defaults. A
//! request may omit fields with a default, and must not contain unknown or null fields. So a policy
//! has two schemas: `Policy` in responses and `PolicyDocument` in requests, which this file derives
//! from the first; and so has a scope.
//!
//! Every kind of a union has a schema of its own: generators of clients name the others themselves, and
//! give one name to several.

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
    name_items(schemas);
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

/// The items of a page are the schema that their name says.
fn name_items(schemas: &mut Map<String, Value>) {
    let pages: Vec<String> = schemas.keys().filter(|name| name.starts_with("Page_")).cloned().collect();
    for page in pages {
        let Some(items) = schemas.get_mut(&page).and_then(|page| page.pointer_mut("/properties/items/items")) else {
            continue;
        };
        let name = page.trim_start_matches("Page_");
        let item = std::mem::replace(items, reference(name));
        schemas.entry(name).or_insert(item);
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Names the kinds of `on`: its words together, a list of agents, and a selector, which stands in `on` as
/// it is and not below a name of its own.
fn unwrap_selector(schemas: &mut Map<String, Value>) {
    let Some(on) = schemas.get_mut("On").and_then(Value::as_object_mut) else { return };
    let Some(Value::Array(kinds)) = on.remove("oneOf") else { return };
    on.insert("oneOf".into(), json!([reference("OnWord"), reference("OnAgents"), reference("OnSelector")]));
    let words: Vec<&Value> = kinds.iter().filter_map(|kind| kind.get("enum")?.as_array()).flatten().collect();
    schemas.insert("OnWord".into(), on_word(&words));
    let agents = kinds.iter().find(|kind| kind.pointer("/properties/agents").is_some()).cloned();
    schemas.insert("OnAgents".into(), agents.unwrap_or_default());
    let mut selector = schemas.get("AgentSelector").cloned().unwrap_or_default();
    // A client that allows for new fields would find the list of agents in both.
    selector["not"] = json!({"required": ["agents"]});
    schemas.insert("OnSelector".into(), selector);
}

fn on_word(words: &[&Value]) -> Value {
    let mut description = "`all`: every enrolled agent. `server`: the agent on the Wazuh manager's own host, with \
                           `wazuh_id` `000`."
        .to_owned();
    if words.iter().any(|word| **word == "origin") {
        description.push_str(" `origin`: the agent that the alert comes from.");
    }
    json!({"type": "string", "description": description, "enum": words})
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
    let Some(mut agents) = schemas.get("OnAgentsDocument").cloned() else { return };
    agents["properties"]["agents"]["items"] = json!({"type": "string", "format": "agent-word"});
    if let Some(response) = schemas.get_mut("NewManualResponse") {
        response["properties"]["on"] = json!({"description": "The agents as a policy names them, beside `agents`.",
            "oneOf": [reference("ManualOnWord"), reference("ManualOnAgents"), reference("OnSelectorDocument")]});
        // Not as `anyOf`, of which generators of clients make a union without fields.
        response["if"] = json!({"not": {"required": ["agents"]}});
        response["then"] = json!({"required": ["on"]});
    }
    let words = schemas.get("OnWord").and_then(|word| word["enum"].as_array()).cloned().unwrap_or_default();
    let words: Vec<&Value> = words.iter().filter(|word| **word != "origin").collect();
    let word = on_word(&words);
    schemas.extend([
        ("OnSelectorDocument".to_owned(), form),
        ("ManualOnWord".to_owned(), word),
        ("ManualOnAgents".to_owned(), agents),
    ]);
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
