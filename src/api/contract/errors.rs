//! Error responses of each operation. Most follow from its description: credentials, path, query,
//! body, `If-Match`. Only conflicts and idempotent operations are listed here.

use serde_json::{Map, Value, json};

use super::operations::{id, operations};

/// Operations with a 409, because they may contradict the current state.
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

/// Operations with an `Idempotency-Key`. A retry gets 404 if the created object was deleted.
pub(super) const ONCE: &[&str] = &[
    "actions_create",
    "agents_create_token",
    "alerts_create",
    "api_keys_create",
    "policies_create",
    "protected_create",
    "responses_create",
];

/// Lists with a filter by one object: 404 if it does not exist, 409 if its name is ambiguous.
pub(super) const OF_ONE: &[&str] = &["responses_list"];

/// The operation with its credential in the body.
pub(super) const ENROLMENT: &str = "agents_enroll";

/// Every error: status, name in the contract, meaning.
const ERRORS: [(u16, &str, &str); 14] = [
    (400, "Malformed", "The request cannot be parsed"),
    (401, "Unauthenticated", "The credentials are missing or invalid"),
    (403, "Forbidden", "The caller lacks the right"),
    (404, "NotFound", "The object does not exist"),
    (408, "TimedOut", "The body did not arrive in time; nothing was done"),
    (409, "Conflict", "The request contradicts the current state"),
    (412, "Changed", "The object has changed since the version in If-Match"),
    (413, "TooLarge", "The body exceeds the operation's limit"),
    (415, "Unsupported", "The media type or the content encoding is not supported"),
    (422, "Invalid", "The input has faults; `errors` points at each"),
    (428, "VersionNeeded", "If-Match is missing"),
    (429, "TooMany", "The caller or its address has exceeded a rate limit"),
    (500, "Internal", "An internal error; the manager's log has the cause"),
    (503, "Unavailable", "The manager is overloaded or unavailable; Retry-After says when to retry"),
];

/// Adds the errors to every operation, and describes them once.
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
            // A response with its own format can still be a problem, such as too many connections.
            if response.get("$ref").is_none() {
                response["content"]["application/problem+json"]["schema"] = problem();
            }
        }
    }
    for (status, name, meaning) in ERRORS {
        let content = json!({"application/problem+json": {"schema": problem()}});
        let mut response = json!({"description": meaning, "content": content});
        match status {
            401 => response["headers"] = header("WWW-Authenticate", "Authentication scheme", &json!("string")),
            429 | 503 => {
                response["headers"] = header("Retry-After", "Seconds until a retry", &json!("integer"));
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
    // An invalid handshake.
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
        "description": "A retry with the same key changes nothing and gets the response of the first request.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    })
}

/// Headers of a success: `ETag`, and `Link` to a list's next page.
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
