//! Bounds of fields and parameters: length, number, pattern. A field of a body names its own in
//! `#[schema(…)]` (`views/`), and a form that several share by its name ([`forms`]). Here are the
//! others: bounds of several fields together, of a list's items, of policies and of the protocol.
//! So clients can apply the checks of the handlers too.
//!
//! Rules beyond a pattern have a `format` of Riposte's own: an existing action or agent name, valid
//! CEL and group expressions, an Ed25519 key on the curve.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::operations::{id, merge, operations};
use crate::compat::wazuh_api::fields::{AgentField, FIELDS};
use crate::domain::event::EventType;

/// A positive duration such as `1h30m`.
const DURATION: &str = "^[1-9][0-9]{0,11}(d|h|ms|m|s)([0-9]{1,12}(d|h|ms|m|s))*$";
/// One line without control characters.
const ONE_LINE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// Several lines without other control characters.
const NO_CONTROLS: &str = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$";
/// Several lines, not blank.
const SAYS_SOMETHING: &str = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f][^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$";
/// One line, not blank.
const NAMES_SOMETHING: &str =
    "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// Pattern of a policy name.
const POLICY_NAME: &str = "^[a-z0-9-]{1,64}$";
/// Pattern of an action name.
const ACTION_NAME: &str = "^[a-z0-9._-]{1,64}$";
/// Pattern of an agent name.
const AGENT_NAME: &str = "^[A-Za-z0-9._-]{0,252}[A-Za-z0-9_-]$";
/// Pattern of a version in `ETag` and `If-Match`.
const VERSION: &str = "^\"[0-9]{1,18}\"$";

/// A loopback address with a port and a path, as `domain/oidc/loopback.rs` reads it.
const LOOPBACK: &str = "^http://(127\\.0\\.0\\.1|\\[::1\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|\
    655[0-2][0-9]|6553[0-5])/[A-Za-z0-9._~/-]*$";

/// Statuses of agents in Wazuh's API, separated by commas.
const WAZUH_STATUSES: &str =
    "^(active|disconnected|never_connected|pending|all)(,(active|disconnected|never_connected|pending|all))*$";

/// Sets the bounds; returns the table rows that match no field.
pub(super) fn set(contract: &mut Value) -> Vec<String> {
    expand_forms(contract);
    let mut lost = Vec::new();
    for (place, bound) in fields().into_iter().chain(document_fields()) {
        let (schema, property) = place.split_once('.').unwrap_or((place, ""));
        let schema = contract.pointer_mut(&format!("/components/schemas/{schema}"));
        let found = match property {
            "" => schema,
            property => schema.and_then(|schema| schema.pointer_mut(&format!("/properties/{property}"))),
        };
        match found {
            Some(found) => merge(found, &bound),
            None => lost.push(place.to_owned()),
        }
    }
    for operation in operations(contract) {
        let id = id(operation).to_owned();
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            let Some(schema) = parameter.get_mut("schema") else { continue };
            let is_any_text = schema["type"] == "string" && schema.get("format").is_none();
            match of_parameter(&id, &name) {
                Some(bound) => merge(schema, &bound),
                None if is_any_text => merge(schema, &json!({ "pattern": ONE_LINE })),
                None => {}
            }
        }
    }
    lost
}

/// Forms that fields of bodies name as their `format`, such as `#[schema(format = "reason")]`.
fn forms() -> [(&'static str, Value); 5] {
    [
        ("reason", json!({"minLength": 1, "maxLength": 2000, "pattern": SAYS_SOMETHING})),
        ("one-line", json!({"pattern": ONE_LINE})),
        ("lines", json!({"pattern": NO_CONTROLS})),
        ("duration-text", duration()),
        ("action-name", json!({"pattern": ACTION_NAME, "format": "action-name"})),
    ]
}

/// Puts the bounds of a form in the place of its name.
fn expand_forms(contract: &mut Value) {
    let forms = forms();
    let schemas = contract.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    for schema in schemas.into_iter().flat_map(Map::values_mut) {
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        for property in properties.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            let named = property.get("format").and_then(Value::as_str);
            let Some((_, bound)) = forms.iter().find(|(form, _)| named == Some(form)) else { continue };
            property.remove("format");
            property.extend(bound.as_object().cloned().unwrap_or_default());
        }
    }
}

fn of_parameter(operation: &str, name: &str) -> Option<Value> {
    Some(match (operation, name) {
        ("wazuh_list", "limit") => json!({"minimum": 1, "maximum": 100_000, "default": 500}),
        (_, "limit") => json!({"minimum": 1, "maximum": 500, "default": 50}),
        ("wazuh_run" | "wazuh_list", "agents_list") => json!({"pattern": "^[0-9]{1,10}(,[0-9]{1,10})*$"}),
        ("wazuh_list", "status") => json!({"pattern": WAZUH_STATUSES}),
        ("wazuh_list", "group_config_status") => json!({"enum": ["synced", "not synced"]}),
        ("wazuh_list", "q") => json!({"pattern": wazuh_query(), "format": "wazuh-query"}),
        ("wazuh_list", "sort") => json!({"pattern": format!("^[+-]?{0}(,{0})*$", wazuh_fields(|_| true))}),
        ("wazuh_list", "select") => json!({"pattern": format!("^{0}(,{0})*$", wazuh_fields(|_| true))}),
        ("policies_versions" | "audit_list" | "events_list", "cursor") | ("events_list", "Last-Event-ID") => {
            json!({"pattern": "^[0-9]{1,18}$"})
        }
        ("events_list", "type") => json!({"pattern": event_types()}),
        ("policies_list" | "api_keys_list" | "users_list" | "secrets_list" | "feeds_list", "cursor") => return None,
        (_, "cursor") => json!({"format": "uuid"}),
        // The flag may have no value.
        ("health_ready", "verbose") => json!({"type": "string", "pattern": ONE_LINE}),
        (_, "since" | "until") => json!({"format": "date-time"}),
        (_, "within") | ("statistics_find", "step") => json!({"pattern": DURATION, "format": "duration-text"}),
        (_, "If-Match") => json!({"pattern": VERSION}),
        ("responses_list", "state") => {
            json!({"enum": ["awaiting_approval", "active", "ended", "rejected", "lapsed", "observed", "spared"]})
        }
        ("auth_start", "redirect_uri") => json!({"pattern": LOOPBACK}),
        ("auth_start", "code_challenge") => json!({"pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"}),
        ("responses_list", "outcome") => json!({"enum": ["pending", "in_force", "partly", "failed", "lifted"]}),
        ("commands_list", "state") => json!({"enum": ["queued", "delivered", "acknowledged", "succeeded", "failed",
            "timed_out", "expired", "cancelled", "refused"]}),
        ("targets_list", "kind") => json!({"enum": ["ip", "user", "file", "process", "host", "none"]}),
        ("targets_list", "state") => {
            json!({"enum": ["in_force", "unverified", "pending", "failed", "drifted", "reverting", "failing"]})
        }
        ("effects_list", "desired") => json!({"enum": ["in_force", "absent"]}),
        ("effects_list", "actual") => json!({"enum": ["unknown", "in_force", "absent", "drifted"]}),
        _ => return None,
    })
}

/// The fields of an agent in Wazuh's API.
fn wazuh_fields(which: impl Fn(AgentField) -> bool) -> String {
    let names = FIELDS.into_iter().filter(|field| which(*field)).map(|field| field.name.replace('.', "\\."));
    format!("({})", names.collect::<Vec<_>>().join("|"))
}

/// Conditions over such fields. A pattern cannot count parentheses: it allows them between conditions.
fn wazuh_query() -> String {
    let value = "[^;,()\\s\\u0000-\\u001f\\u007f-\\u009f]";
    let text = format!(
        "{}(=|!=|<|>|~){value}([^;,()\\u0000-\\u001f\\u007f-\\u009f]*)",
        wazuh_fields(|field| !field.is_time())
    );
    let time = format!(
        "{}(=|!=|<|>)[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([ T][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z?)?",
        wazuh_fields(AgentField::is_time)
    );
    let like = format!("{}~{value}([^;,()\\u0000-\\u001f\\u007f-\\u009f]*)", wazuh_fields(AgentField::is_time));
    let one = format!("\\(*({text}|{time}|{like})\\)*");
    format!("^{one}([;,]{one})*$")
}

/// Types of events and their families, separated by commas.
fn event_types() -> String {
    let types = EventType::ALL.iter().map(|kind| kind.as_str());
    let families: BTreeSet<&str> =
        types.clone().filter_map(|kind| kind.split_once('.')).map(|(family, _)| family).collect();
    let words =
        types.map(|kind| kind.replace('.', "\\.")).chain(families.into_iter().map(|family| format!("{family}\\.\\*")));
    let word = format!("({})", words.collect::<Vec<_>>().join("|"));
    format!("^(riposte\\.)?{word}(,(riposte\\.)?{word})*$")
}

fn text(most: usize) -> Value {
    json!({"maxLength": most, "pattern": NO_CONTROLS})
}

fn duration() -> Value {
    json!({"pattern": DURATION, "format": "duration-text"})
}

fn share() -> Value {
    json!({"pattern": "^(0{0,2}[1-9]|0?[1-9][0-9]|100)%$"})
}

fn rate() -> Value {
    json!({"pattern": "^[1-9][0-9]{0,9}/[1-9][0-9]{0,11}(d|h|ms|m|s)([0-9]{1,12}(d|h|ms|m|s))*$", "format": "rate-text"})
}

fn count(least: u32, most: u32) -> Value {
    json!({"minimum": least, "maximum": most})
}

/// A list of strings, in which a number stands for its text.
fn words() -> Value {
    json!({"maxItems": 4096, "items": {"type": ["string", "integer"], "minLength": 1, "maxLength": 256,
        "pattern": NAMES_SOMETHING, "minimum": 0, "maximum": u64::MAX}})
}

/// Labels. YAML parses unquoted values as numbers or booleans, so these stand for their text.
fn labels(may_be_null: bool) -> Value {
    let kinds = |kinds: &[&str]| {
        let null = may_be_null.then_some("null");
        json!(kinds.iter().copied().chain(null).collect::<Vec<_>>())
    };
    let any = kinds(&["string", "number", "boolean"]);
    json!({
        "maxProperties": 64,
        "propertyNames": {"type": "string", "pattern": "^[a-z0-9._-]{1,64}$"},
        "properties": {
            "wazuh_id": {"type": kinds(&["string", "integer"]), "pattern": "^[0-9]{1,10}$", "minimum": 0,
                "maximum": 9_999_999_999_u64},
            "wazuh_manager": {"type": any, "maxLength": 256, "pattern": NAMES_SOMETHING},
            "wazuh_name": {"type": any, "maxLength": 256, "pattern": NAMES_SOMETHING},
        },
        "additionalProperties": {"type": any, "maxLength": 256, "pattern": ONE_LINE},
    })
}

/// Labels of a selector: each has one value, or a list of accepted ones.
fn label_values() -> Value {
    let one_or_several =
        |value: &Value| json!({"anyOf": [value, {"type": "array", "minItems": 1, "maxItems": 64, "items": value}]});
    let mut bounds = labels(false);
    if let Some(own) = bounds.get_mut("properties").and_then(Value::as_object_mut) {
        own.values_mut().for_each(|value| *value = one_or_several(value));
    }
    bounds["additionalProperties"] = one_or_several(&bounds["additionalProperties"]);
    bounds
}

/// A target of each kind; a submitted target must match one.
fn target() -> Value {
    let kinds = ["ip", "user", "file", "process", "host", "none"];
    let one_of: Vec<Value> = kinds
        .iter()
        .map(|kind| match *kind {
            "host" | "none" => json!({"properties": {"kind": {"const": kind}, "value": {"const": ""}}}),
            _ => json!({"properties": {"kind": {"const": kind}, "value": {"format": format!("{kind}-target")}}}),
        })
        .collect();
    json!({ "oneOf": one_of })
}

fn covered() -> Value {
    let kinds = ["ip", "user", "file", "process", "host", "agent"];
    let one_of: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let format = match *kind {
                "ip" => "network-text".to_owned(),
                "host" | "agent" => "agent-word".to_owned(),
                kind => format!("{kind}-target"),
            };
            json!({"properties": {"kind": {"const": kind}, "value": {"format": format}}})
        })
        .collect();
    json!({ "oneOf": one_of })
}

/// A field that is absent, or null. Not by its type: for a field of no other type, generators of clients look for a
/// class `Null`.
fn absent() -> Value {
    json!({"enum": [null]})
}

/// A legal hold names what it covers, or a range of times.
fn held() -> Value {
    let (is, no) = (json!({"type": "string"}), absent());
    json!({"oneOf": [
        {"required": ["value"], "properties": {"kind": {"enum": ["response", "policy", "agent", "target"]},
            "value": {"type": "string", "minLength": 1}, "since": no, "until": no}},
        {"properties": {"kind": {"const": "time"}, "value": no},
            "anyOf": [{"required": ["since"], "properties": {"since": is}},
                {"required": ["until"], "properties": {"until": is}}]},
    ]})
}

/// A lift request must contain at least one filter.
fn says_what_to_lift() -> Value {
    let kinds = ["policy", "alert_id", "rule_id", "target", "since", "until"];
    let mut any_of: Vec<Value> =
        kinds.iter().map(|key| json!({"required": [key], "properties": {*key: {"type": "string"}}})).collect();
    any_of.push(json!({"required": ["everything"], "properties": {"everything": {"const": true}}}));
    any_of.push(json!({"required": ["responses"], "properties": {"responses": {"minItems": 1}}}));
    json!({ "anyOf": any_of })
}

/// A login has a name and a password, a refresh has its token alone.
fn login_or_refresh() -> Value {
    let (is, no) = (json!({"type": "string"}), absent());
    json!({"oneOf": [
        {"required": ["username", "password"], "properties": {"username": is, "password": is, "refresh_token": no,
            "login_code": no, "code_verifier": no}},
        {"required": ["login_code", "code_verifier"], "properties": {"login_code": is, "code_verifier": is,
            "username": no, "password": no, "totp": no, "refresh_token": no}},
        {"required": ["refresh_token"], "properties": {"refresh_token": is, "username": no, "password": no,
            "totp": no, "login_code": no, "code_verifier": no}},
    ]})
}

fn fields() -> Vec<(&'static str, Value)> {
    vec![
        ("LiftMany", says_what_to_lift()),
        ("SetSecret.actions", json!({"items": {"format": "action-name"}})),
        ("CreateLegalHold", held()),
        ("FeedDocument.min_left", json!({"pattern": DURATION, "format": "duration-text-24h"})),
        ("FeedDocument.policies", json!({"items": {"pattern": "^[a-z0-9*-]{1,64}$"}})),
        ("FeedDocument.actions", json!({"items": {"format": "action-name"}})),
        (
            "FeedDocument.labels",
            json!({"maxProperties": 64,
            "propertyNames": {"minLength": 1, "maxLength": 64, "pattern": ONE_LINE},
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": ONE_LINE}}),
        ),
        ("CreateProtected", covered()),
        ("CreateProtected.kind", json!({"enum": ["ip", "user", "file", "process", "host", "agent"]})),
        ("CreateProtected.policies", json!({"maxItems": 256, "items": {"pattern": POLICY_NAME}})),
        (
            "CreateKey",
            json!({"if": {"required": ["pipeline"], "properties": {"pipeline": {"type": "string"}}},
            "then": {"properties": {"role": {"enum": ["ingest", "engineer", "admin"]}}}}),
        ),
        ("AskToken", login_or_refresh()),
        ("CreateUser.role", json!({"enum": ["viewer", "analyst", "engineer", "admin"]})),
        ("CreateToken.labels", labels(false)),
        ("ChangeAgent.labels", labels(true)),
        ("NewManualResponse.agents", json!({"minItems": 1, "items": {"format": "agent-word"}})),
        ("NewManualResponse.arguments", json!({"maxItems": 32, "items": text(1024)})),
        ("NewBacktest.since", json!({"format": "date-time"})),
        ("NewBacktest.until", json!({"format": "date-time"})),
        ("Target", target()),
        ("EnrollRequest.token", json!({"pattern": ONE_LINE})),
        ("EnrollRequest.name", json!({"pattern": AGENT_NAME})),
        ("EnrollRequest.public_key", json!({"format": "ed25519-public-key"})),
        ("EnrollRequest.version", json!({"maxLength": 256, "pattern": ONE_LINE})),
        ("EnrollRequest.capabilities", json!({"maxItems": 256})),
        ("Platform.os", json!({"maxLength": 256, "pattern": ONE_LINE})),
        ("Platform.arch", json!({"maxLength": 256, "pattern": ONE_LINE})),
        ("Platform.version", json!({"maxLength": 256, "pattern": ONE_LINE})),
        ("Capability.action", json!({"minLength": 1, "maxLength": 64, "pattern": NO_CONTROLS})),
        ("Capability.reason", text(512)),
        ("PollRequest.cursor", json!({"format": "uint64", "maximum": u64::MAX})),
        ("PollRequest.acks", json!({"maxItems": 256})),
        ("PollRequest.results", json!({"maxItems": 256})),
        ("PollRequest.rejected", json!({"maxItems": 16})),
        ("RejectedOrders.count", json!({"format": "int64", "maximum": u32::MAX})),
        ("PollRequest.capabilities", json!({"maxItems": 256})),
        ("PollRequest.wait_seconds", json!({"format": "int64", "maximum": u32::MAX})),
        ("PollRequest.max", json!({"format": "uint64", "maximum": u64::MAX, "default": 64})),
        ("HeldEffect.drifts", json!({"format": "int64", "maximum": u32::MAX})),
        ("CommandResult.exit_code", json!({"minimum": i32::MIN, "maximum": i32::MAX})),
        (
            "CustomAction",
            json!({"if": {"required": ["user"]}, "then": {
            "required": ["target_kinds"], "properties": {"target_kinds": {"contains": {"const": "user"}}}}}),
        ),
        ("CustomAction.name", json!({"pattern": ACTION_NAME})),
        ("CustomAction.summary", text(4096)),
        ("CustomAction.executable", json!({"pattern": "^[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}$"})),
        ("CustomAction.target_kinds", json!({"minItems": 1, "maxItems": 16})),
        (
            "CustomAction.platforms",
            json!({"maxItems": 16, "items": {"enum": ["linux", "macos", "freebsd", "openbsd", "netbsd", "windows"]}}),
        ),
        ("CustomAction.parameters", json!({"format": "json-schema"})),
    ]
}

/// Those of the documents that people write: policies and scopes.
fn document_fields() -> Vec<(&'static str, Value)> {
    vec![
        ("PolicyDocument.name", json!({"pattern": POLICY_NAME})),
        ("PolicyDocument.match", json!({"maxItems": 4096})),
        ("PolicyDocument.tests", json!({"maxItems": 64})),
        ("PolicyDocument.note", text(4096)),
        ("PolicyDocument.max_age", json!({"format": "max-age-text"})),
        ("SelectorDocument.rule_ids", words()),
        ("SelectorDocument.rule_groups", words()),
        ("SelectorDocument.mitre", words()),
        ("SelectorDocument.pipelines", words()),
        ("SelectorDocument.min_level", count(0, 16)),
        ("SelectorDocument.max_level", count(0, 16)),
        ("SelectorDocument.when", merged(text(2048), &json!({"format": "cel"}))),
        ("SelectorDocument.wazuh_rules_group", merged(text(1024), &json!({"format": "group-expression"}))),
        ("OnAgentsDocument.agents", merged(words(), &json!({"minItems": 1}))),
        ("AgentSelectorDocument.ids", words()),
        ("AgentSelectorDocument.labels", label_values()),
        ("AgentSelectorDocument.any", json!({"minItems": 1, "maxItems": 64})),
        ("AgentSelectorDocument.all", json!({"minItems": 1, "maxItems": 64})),
        ("ScopeDocument.rights", json!({"minItems": 1})),
        ("ScopeDocument.actions", merged(words(), &json!({"minItems": 1, "items": {"format": "action-name"}}))),
        ("ScopeDocument.policies", merged(words(), &json!({"minItems": 1, "items": {"pattern": "^[a-z0-9*-]+$"}}))),
        ("ScopeDocument.pipelines", merged(words(), &json!({"minItems": 1}))),
        ("ScopeDocument.wazuh_managers", merged(words(), &json!({"minItems": 1}))),
        ("ScopeDocument.feeds", merged(words(), &json!({"minItems": 1}))),
        ("ScopeDocument.agents_per_response", count(1, 1_000_000)),
        ("ScopeDocument.responses_per_hour", count(1, 1_000_000)),
        ("RespondDocument", json!({"dependentRequired": {"escalate": ["for"], "network": ["target"]}})),
        ("RespondDocument.action", json!({"pattern": ACTION_NAME, "format": "action-name"})),
        ("RespondDocument.for", duration()),
        ("RespondDocument.arguments", merged(words(), &json!({"maxItems": 32}))),
        ("NetworkDocument.v4", count(16, 32)),
        ("NetworkDocument.v6", count(48, 128)),
        ("WavesDocument.count", count(2, 100)),
        ("WavesDocument.over", duration()),
        ("WavesDocument.stop_at", share()),
        ("EscalationDocument.ladder", json!({"minItems": 1, "maxItems": 16, "items": duration()})),
        ("EscalationDocument.forget_after", duration()),
        ("ThresholdDocument.count", count(2, 10_000)),
        ("ThresholdDocument.within", json!({"pattern": DURATION, "format": "duration-text-24h"})),
        ("LimitsDocument.responses", rate()),
        ("LimitsDocument.targets", rate()),
        ("LimitsDocument.agents_per_response", count(1, 1_000_000)),
        ("LimitsDocument.fleet_share", share()),
        ("LimitsDocument.cooldown", duration()),
        ("BreakerDocument", json!({"anyOf": [{"required": ["failed"]}, {"required": ["undone"]}]})),
        ("BreakerDocument.failed", share()),
        ("BreakerDocument.undone", share()),
        ("BreakerDocument.at_least", count(1, 100_000)),
        ("BreakerDocument.within", duration()),
        ("ApprovalDocument.quorum", count(1, 100)),
        ("ApprovalDocument.within", duration()),
        ("ApprovalDocument.undo_unless_confirmed", duration()),
        ("PolicyTestDocument.name", text(4096)),
        ("PolicyTestDocument.target", text(4096)),
    ]
}

fn merged(mut value: Value, more: &Value) -> Value {
    merge(&mut value, more);
    value
}
