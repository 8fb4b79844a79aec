//! Error responses of each operation. Most follow from its description: credentials, path, query,
//! body, `If-Match`, `Idempotency-Key`. An operation names the others itself, such as `(status =
//! 409)` for a conflict.

use serde_json::{Map, Value, json};

use super::operations::operations;
use crate::compat::taxii::TAXII;

/// Header of a request that can be repeated.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

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

/// Errors below `/wazuh`, which have Wazuh's form and its statuses.
const WAZUH_ERRORS: [(u16, &str); 9] = [
    (400, "The request has faults, or no agent could take the command"),
    (401, "The credentials are missing or invalid"),
    (403, "The caller lacks the right, or the address has failed to log in too often"),
    (406, "The media type or the content encoding is not supported"),
    (408, "The body did not arrive in time; nothing was done"),
    (413, "The body exceeds the operation's limit"),
    (429, "The caller or its address has exceeded a rate limit"),
    (500, "An internal error; the manager's log has the cause"),
    (503, "The manager is overloaded or unavailable; Retry-After says when to retry"),
];

/// Errors of OpenC2, which are responses of OpenC2.
const OPENC2_ERRORS: [u16; 9] = [400, 401, 403, 408, 413, 415, 429, 500, 503];

/// Errors below `/taxii2`, which have TAXII's form.
const TAXII_ERRORS: [(u16, &str); 8] = [
    (400, "The request has faults"),
    (401, "The credentials are missing or invalid"),
    (403, "The caller lacks the right"),
    (404, "The collection or the object does not exist"),
    (406, "The client takes no answer of TAXII 2.1"),
    (429, "The caller or its address has exceeded a rate limit"),
    (500, "An internal error; the manager's log has the cause"),
    (503, "The list is too long, or the manager is overloaded or unavailable; Retry-After says when to retry"),
];

/// Errors below `/crowdsec`, which have `CrowdSec`'s form and its statuses.
const CROWDSEC_ERRORS: [(u16, &str); 8] = [
    (400, "The request has faults"),
    (403, "The key is missing or invalid, or it is bound to no feed of this form"),
    (408, "The body did not arrive in time; nothing was done"),
    (413, "The body exceeds the operation's limit"),
    (415, "The media type or the content encoding is not supported"),
    (429, "The caller or its address has exceeded a rate limit"),
    (500, "An internal error; the manager's log has the cause"),
    (503, "The list is too long, or the manager is overloaded or unavailable; Retry-After says when to retry"),
];

/// Adds the errors to every operation, and describes them once.
pub(super) fn list(contract: &mut Value) {
    for operation in operations(contract) {
        describe_key(operation);
        let statuses = of(operation);
        if operation.get("tags") == Some(&json!(["wazuh"])) {
            list_wazuh(operation, &statuses);
            continue;
        }
        let is_openc2 = operation.get("tags") == Some(&json!(["openc2"]));
        if operation.get("tags") == Some(&json!(["crowdsec"])) {
            list_crowdsec(operation, &statuses);
            continue;
        }
        if operation.get("tags") == Some(&json!(["taxii"])) {
            list_taxii(operation, &statuses);
            continue;
        }
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        if is_openc2 {
            list_openc2(responses);
            continue;
        }
        for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
            headers_of_success(response);
        }
        for (status, name, _) in ERRORS.iter().filter(|(status, ..)| statuses.contains(status)) {
            match responses.get_mut(&status.to_string()) {
                // A response with its own format can still be a problem, such as too many connections.
                Some(response) if response.get("content").is_some() => {
                    response["content"]["application/problem+json"]["schema"] = problem();
                }
                _ => {
                    let reference = json!({"$ref": format!("#/components/responses/{name}")});
                    responses.insert(status.to_string(), reference);
                }
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

/// Adds the errors of an operation below `/wazuh`, which would otherwise have these statuses.
fn list_wazuh(operation: &mut Map<String, Value>, statuses: &[u16]) {
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, meaning) in WAZUH_ERRORS {
        let is_there = match status {
            400 => statuses.iter().any(|other| [400, 422].contains(other)),
            406 => statuses.contains(&415),
            status => statuses.contains(&status),
        };
        if is_there {
            let schema = json!({"$ref": "#/components/schemas/WazuhProblem"});
            let content = json!({"application/problem+json": {"schema": schema}});
            responses.insert(status.to_string(), json!({"description": meaning, "content": content}));
        }
    }
}

/// Adds the errors of OpenC2.
fn list_openc2(responses: &mut Map<String, Value>) {
    for (status, _, meaning) in ERRORS.iter().filter(|(status, ..)| OPENC2_ERRORS.contains(status)) {
        let content = json!({"application/openc2+json": {"schema": {"type": "object"}}});
        responses.insert(status.to_string(), json!({"description": meaning, "content": content}));
    }
}

/// Adds the errors of an operation below `/crowdsec`.
fn list_crowdsec(operation: &mut Map<String, Value>, statuses: &[u16]) {
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, meaning) in CROWDSEC_ERRORS {
        let is_there = match status {
            400 => statuses.iter().any(|other| [400, 422].contains(other)),
            403 | 429 => true,
            status => statuses.contains(&status),
        };
        if is_there {
            let schema = json!({"$ref": "#/components/schemas/CrowdsecError"});
            let content = json!({"application/json": {"schema": schema}});
            responses.insert(status.to_string(), json!({"description": meaning, "content": content}));
        }
    }
}

/// Adds the errors of an operation below `/taxii2`.
fn list_taxii(operation: &mut Map<String, Value>, statuses: &[u16]) {
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, meaning) in TAXII_ERRORS.iter().filter(|(status, _)| *status == 406 || statuses.contains(status)) {
        let content = json!({TAXII: {"schema": {"$ref": "#/components/schemas/TaxiiError"}}});
        responses.insert(status.to_string(), json!({"description": meaning, "content": content}));
    }
}

fn problem() -> Value {
    json!({"$ref": "#/components/schemas/Problem"})
}

fn of(operation: &Map<String, Value>) -> Vec<u16> {
    let parameters = operation.get("parameters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let takes = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let takes_header = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
    let is_open = operation.get("security") == Some(&json!([{}]));
    let mut statuses = vec![500, 503];
    if !is_open {
        statuses.extend([401, 403, 429]);
    }
    if takes("query") {
        statuses.extend([400, 422]);
    }
    // A retry gets 404 if the created object was deleted.
    if takes("path") || takes_header(IDEMPOTENCY_KEY) {
        statuses.push(404);
    }
    if operation.contains_key("requestBody") {
        statuses.extend([400, 408, 413, 415, 422]);
    }
    if takes_header("If-Match") {
        statuses.extend([412, 428]);
    }
    let named = operation.get("responses").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    statuses.extend(named.filter_map(|status| status.parse::<u16>().ok()).filter(|status| *status >= 400));
    statuses
}

/// Describes the header of an operation that takes one.
fn describe_key(operation: &mut Map<String, Value>) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten().filter(|parameter| parameter["name"] == IDEMPOTENCY_KEY) {
        *parameter = json!({
            "name": IDEMPOTENCY_KEY, "in": "header", "required": false,
            "description": "A retry with the same key changes nothing and gets the response of the first request.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
        });
    }
}

/// Headers of a success: `ETag`, and `Link` to a list's next page.
fn headers_of_success(response: &mut Value) {
    let schema = response.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str).unwrap_or_default();
    let name = schema.rsplit('/').next().unwrap_or_default();
    let headers = match name {
        "PolicyView" | "ActionView" | "UserRow" | "FeedView" => {
            header("ETag", "Its version, for If-Match", &json!("string"))
        }
        page if page.starts_with("Page_") => header("Link", "The next page, if there is one", &json!("string")),
        _ => return,
    };
    response["headers"] = headers;
}

fn header(name: &str, description: &str, kind: &Value) -> Value {
    json!({name: {"description": description, "schema": {"type": kind}}})
}
