//! Which errors an operation answers. Most follow from what the operation takes, and are read off its description: its
//! credentials, its path, its query, its body, `If-Match`. Only conflicts and repetitions have to be listed.

use serde_json::{Map, Value, json};

use super::{id, operations};

/// Operations that answer 409: what they ask for contradicts how things stand.
pub(super) const CONFLICTS: &[&str] = &[
    "actions_create",
    "actions_replace",
    "actions_delete",
    "agents_change",
    "agents_enroll",
    "agents_revoke",
    "agents_create_token",
    "alerts_find",
    "alerts_explain",
    "api_keys_create",
    "api_keys_revoke",
    "commands_cancel",
    "policies_create",
    "policies_replace",
    "policies_rollback",
    "policies_reset",
    "policies_import",
    "protected_create",
    "responses_lift",
    "responses_lift_many",
    "responses_approve",
    "responses_reject",
    "responses_confirm",
];

/// Operations that take an `Idempotency-Key`. What they made may be gone when they are repeated: 404.
pub(super) const ONCE: &[&str] = &[
    "actions_create",
    "agents_create_token",
    "alerts_create",
    "api_keys_create",
    "policies_create",
    "protected_create",
    "responses_create",
];

/// Lists that can be asked for what belongs to one thing: 404 if it is not there, 409 if several have the name.
pub(super) const OF_ONE: &[&str] = &["responses_list"];

/// The operation whose credential stands in its body.
pub(super) const ENROLMENT: &str = "agents_enroll";

/// Every error: its status, its name in the contract, and what it means.
const ERRORS: [(u16, &str, &str); 14] = [
    (400, "Malformed", "The request cannot be read"),
    (401, "Unauthenticated", "Valid credentials are needed"),
    (403, "Forbidden", "The caller is known, and may not do that"),
    (404, "NotFound", "There is no such thing"),
    (408, "TimedOut", "The body did not come to its end in time; nothing was done"),
    (409, "Conflict", "It cannot be done as things stand"),
    (412, "Changed", "It has changed since the version that If-Match names"),
    (413, "TooLarge", "The body is larger than this operation takes"),
    (415, "Unsupported", "The media type or the content encoding is not taken here"),
    (422, "Invalid", "The input has faults; `errors` points at each"),
    (428, "VersionNeeded", "If-Match is missing"),
    (429, "TooMany", "Too many requests of this caller or from this address"),
    (500, "Internal", "A fault of the manager; its log says more"),
    (503, "Unavailable", "The manager cannot do it now; Retry-After says when to try again"),
];

/// Lists the errors of every operation, and describes them once.
pub(super) fn list(contract: &mut Value) {
    for operation in operations(contract) {
        if ONCE.contains(&id(operation)) {
            parameter(operation, &idempotency_key());
        }
        let statuses = of(operation);
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
            headers_of_success(response);
        }
        for (status, name, _) in ERRORS.iter().filter(|(status, ..)| statuses.contains(status)) {
            let reference = json!({"$ref": format!("#/components/responses/{name}")});
            let response = responses.entry(status.to_string()).or_insert_with(|| reference.clone());
            // What is answered in a form of its own can still be a problem: too many connections, say.
            if response.get("$ref").is_none() {
                response["content"]["application/problem+json"]["schema"] = problem();
            }
        }
    }
    for (status, name, meaning) in ERRORS {
        let content = json!({"application/problem+json": {"schema": problem()}});
        let mut response = json!({"description": meaning, "content": content});
        match status {
            401 => response["headers"] = header("WWW-Authenticate", "How to prove who calls", &json!("string")),
            429 | 503 => {
                response["headers"] = header("Retry-After", "Seconds after which to try again", &json!("integer"));
            }
            _ => {}
        }
        contract["components"]["responses"][name] = response;
    }
}

fn problem() -> Value {
    json!({"$ref": "#/components/schemas/Problem"})
}

fn of(operation: &Map<String, Value>) -> Vec<u16> {
    let parameters = operation.get("parameters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let takes = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let takes_header = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
    let name = id(operation);
    let is_open = operation.get("security") == Some(&json!([{}]));
    let mut statuses = vec![500, 503];
    if !is_open {
        statuses.extend([401, 403, 429]);
    }
    if name == ENROLMENT {
        statuses.extend([401, 429]);
    }
    if takes("query") {
        statuses.extend([400, 422]);
    }
    if takes("path") || ONCE.contains(&name) {
        statuses.push(404);
    }
    if operation.contains_key("requestBody") {
        statuses.extend([400, 408, 413, 415, 422]);
    }
    if takes_header("If-Match") {
        statuses.extend([412, 428]);
    }
    if CONFLICTS.contains(&name) {
        statuses.push(409);
    }
    if OF_ONE.contains(&name) {
        statuses.extend([404, 409]);
    }
    // A handshake that is none.
    if operation.get("responses").is_some_and(|responses| responses.get("101").is_some()) {
        statuses.push(400);
    }
    statuses
}

fn parameter(operation: &mut Map<String, Value>, parameter: &Value) {
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(parameter.clone());
    }
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "A repeated request with the same key changes nothing, and is answered as the first one was.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    })
}

/// The version of what is answered, and the next page of a list.
fn headers_of_success(response: &mut Value) {
    let schema = response.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str).unwrap_or_default();
    let name = schema.rsplit('/').next().unwrap_or_default();
    let headers = match name {
        "PolicyView" | "ActionView" => header("ETag", "Its version, for If-Match", &json!("string")),
        page if page.starts_with("Page_") => header("Link", "The next page, if there is one", &json!("string")),
        _ => return,
    };
    response["headers"] = headers;
}

fn header(name: &str, description: &str, kind: &Value) -> Value {
    json!({name: {"description": description, "schema": {"type": kind}}})
}
