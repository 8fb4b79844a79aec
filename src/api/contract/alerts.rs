//! Schemas of alerts in each accepted format, and bodies that are no JSON. The parsers
//! (`domain/formats/`) read few fields and ignore the others, so the schemas are open. They name the
//! fields of a well-formed alert.

use serde_json::{Value, json};

/// Adds the schemas, and the bodies of the requests that take alerts or a configuration.
pub(super) fn describe(contract: &mut Value, max_batch: usize) {
    let Some(schemas) = contract.pointer_mut("/components/schemas") else { return };
    schemas["GenericAlert"] = generic();
    schemas["WazuhAlert"] = wazuh();
    schemas["WazuhFinding"] = finding();
    let formats = ["GenericAlert", "WazuhAlert", "WazuhFinding"];
    let formats = formats.map(|name| json!({"$ref": format!("#/components/schemas/{name}")}));
    schemas["AnyAlert"] = json!({"description": "One alert.", "oneOf": formats});
    let alert = json!({"$ref": "#/components/schemas/AnyAlert"});
    let list = json!({"type": "array", "minItems": 1, "maxItems": max_batch, "items": alert});
    let mut bodies = formats.to_vec();
    // Beside the formats and not beside their union, which clients would import twice.
    bodies.push(list);
    if let Some(content) = contract.pointer_mut("/paths/~1v1~1alerts/post/requestBody/content") {
        content["application/json"]["schema"] = json!({ "oneOf": bodies });
        // A list and a file are no choice that Python's isinstance could make, so that clients in Python
        // send lines to the other route.
        content["application/x-ndjson"] = json!({});
        other_names(content);
    }
    if let Some(content) = contract.pointer_mut("/paths/~1v1~1ingest~1{secret}/post/requestBody/content") {
        content["application/x-ndjson"]["schema"] =
            json!({"type": "string", "format": "binary", "description": "One alert per line."});
        other_names(content);
    }
    if let Some(content) = contract.pointer_mut("/paths/~1v1~1policies~1import/post/requestBody/content") {
        content["application/xml"]["schema"]["format"] = json!("binary");
        // Without a schema of its own: a client has one way to send it.
        content["text/xml"] = json!({});
    }
}

/// Other names of `application/x-ndjson`.
fn other_names(content: &mut Value) {
    for name in ["application/ndjson", "application/jsonl"] {
        content[name] = json!({});
    }
}

/// A short string, or a number that stands for its text.
fn word() -> Value {
    json!({"type": ["string", "integer"], "minLength": 1, "maxLength": 256, "pattern": "^[^\\u0000]*$",
        "minimum": 0, "maximum": u64::MAX})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn rule() -> Value {
    let group = json!({"type": "string", "maxLength": 256, "pattern": "^[^\\u0000]*$"});
    json!({"type": "object", "required": ["id", "level"], "properties": {
        "id": word(),
        "level": {"type": "integer", "minimum": 0, "maximum": 16},
        "groups": {"type": "array", "maxItems": 1024, "items": group},
        "description": {"type": "string"},
    }})
}

fn generic() -> Value {
    let text = |names: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        json!({"type": "object", "properties": properties})
    };
    json!({
        "type": "object",
        "description": "An alert of any pipeline other than Wazuh.",
        "required": ["pipeline", "id", "time", "rule"],
        "properties": {
            "pipeline": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\u0000]*$",
                "not": {"const": "wazuh"}},
            "id": word(),
            "time": time(),
            "rule": rule(),
            "agent": {"type": "object", "properties": {"id": word(), "name": word()}},
            "source": text(&["ip", "user"]),
            "destination": text(&["ip", "user"]),
            "file": text(&["path"]),
            "process": {"type": "object", "properties": {"id": {"type": ["integer", "string"]}}},
        },
    })
}

fn wazuh() -> Value {
    json!({
        "type": "object",
        "description": "An alert of Wazuh 4, as in alerts.json; the time may also have Wazuh's own form of an offset, \
                        +0000.",
        "required": ["timestamp", "rule", "agent", "id"],
        "properties": {
            "timestamp": time(),
            "rule": rule(),
            "id": word(),
            "agent": {"type": "object", "required": ["id"], "properties": {
                "id": {"type": "string", "pattern": "^[0-9]{1,10}$"}, "name": {"type": "string"}}},
            "manager": {"type": "object", "properties": {"name": word()}},
            "cluster": {"type": "object", "properties": {"node": word()}},
            "data": {"type": "object"},
        },
        // An object with `pipeline` has the generic format.
        "not": {"required": ["pipeline"]},
    })
}

fn finding() -> Value {
    let level = ["informational", "low", "medium", "high", "critical"];
    let rule = json!({"type": "object", "required": ["id", "level"], "properties": {
        "id": word(), "level": {"enum": level}, "title": {"type": "string"}}});
    json!({
        "type": "object",
        "description": "A finding of Wazuh 5; dotted keys such as \"wazuh.rule.id\" are accepted as well.",
        "required": ["@timestamp", "id", "wazuh"],
        "properties": {
            "@timestamp": time(),
            "id": word(),
            "wazuh": {"type": "object", "required": ["rule"], "properties": {
                "rule": rule,
                "agent": {"type": "object", "properties": {"id": word(), "name": {"type": "string"}}},
            }},
        },
        "not": {"anyOf": [{"required": ["pipeline"]}, {"required": ["rule"]}]},
    })
}
