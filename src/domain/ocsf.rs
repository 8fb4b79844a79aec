//! Events of the feed as events of OCSF, the schema of security data lakes. What a response does is a remediation activity, a
//! change of what people set up is entity management, a login is an authentication, an incident is a detection finding.
//!
//! Facts from OCSF 1.6.0 (`schema.ocsf.io`); `tests/conformance/ocsf_events.py` asks its schema.

use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

use super::event::{EventType, TYPE_PREFIX};

/// Version of the schema.
const VERSION: &str = "1.6.0";

/// Severity of an event, as OCSF and syslog count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSeverity {
    /// It goes as it should.
    Informational,
    /// Something failed, and people may have to look.
    Medium,
    /// People must look.
    High,
}

impl EventSeverity {
    /// Of a type, without the prefix of `CloudEvents`.
    pub fn of(kind: &str) -> Self {
        let (family, verb) = kind.split_once('.').unwrap_or((kind, ""));
        match (family, verb) {
            ("incident", verb) if is_end(verb) => Self::Informational,
            ("incident", _)
            | ("breaker", "opened")
            | ("effect", "failing")
            | ("response", "break_glass")
            | ("agent", "cloned")
            | ("audit", "user_token_reused") => Self::High,
            ("command", _)
            | ("effect", "drifted" | "lost")
            | ("audit", "request_denied" | "user_failed_login" | "user_locked_out")
            | ("webhook", "failing" | "gave_up" | "missed") => Self::Medium,
            _ => Self::Informational,
        }
    }

    /// Severity of OCSF.
    const fn ocsf(self) -> u8 {
        match self {
            Self::Informational => 1,
            Self::Medium => 3,
            Self::High => 4,
        }
    }

    /// Severity of syslog: notice, warning, error.
    pub const fn syslog(self) -> u8 {
        match self {
            Self::Informational => 5,
            Self::Medium => 4,
            Self::High => 3,
        }
    }
}

/// Whether an event of the family `incident` says that one is over.
fn is_end(verb: &str) -> bool {
    ["orders_accepted", "forwarder_back", "feed_served", "feed_fetched", "ledger_accepted"].contains(&verb)
}

/// A class with its category, the activity, and what the class has beside what every event has.
struct Classed {
    class: i64,
    activity: i64,
    /// Name of an activity that OCSF has no number for.
    named: Option<String>,
    more: Value,
}

/// The event, which is a `CloudEvent` of the feed or what a receiver may see of one, as an event of OCSF.
pub fn event(cloud: &Value) -> Value {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = cloud["type"].as_str().unwrap_or_default();
    let kind = kind.strip_prefix(TYPE_PREFIX).unwrap_or(kind);
    let data = &cloud["data"];
    let Classed { class, activity, named, more } = classed(kind, cloud);
    let time = cloud["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let meaning = EventType::ALL.iter().find(|known| known.as_str() == kind).map(|known| known.meaning());
    let detail = text(&data["detail"]).or_else(|| text(&data["withheld"]));
    let mut event = Map::new();
    event.extend([
        ("category_uid".to_owned(), json!(class / 1000)),
        ("class_uid".to_owned(), json!(class)),
        ("activity_id".to_owned(), json!(activity)),
        ("type_uid".to_owned(), json!(class * 100 + activity)),
        ("severity_id".to_owned(), json!(EventSeverity::of(kind).ocsf())),
        // The time is withheld with all else of an event that is too confidential.
        ("time".to_owned(), json!(time.map_or(0, Timestamp::as_millis))),
        ("message".to_owned(), json!(detail.or_else(|| meaning.map(str::to_owned)).unwrap_or_else(|| kind.to_owned()))),
        ("metadata".to_owned(), metadata(kind, cloud)),
        ("unmapped".to_owned(), unmapped(cloud)),
    ]);
    if let Some(named) = named {
        event.insert("activity_name".to_owned(), json!(named));
    }
    if let Some(actor) = data["actor"].as_str() {
        event.insert("actor".to_owned(), actor_of(actor));
    }
    if let Some(agent) = data["agent_id"].as_str() {
        let mut device = json!({"uid": agent, "type_id": 0});
        if let Some(name) = data["agent"].as_str() {
            device["name"] = json!(name);
        }
        event.insert("device".to_owned(), device);
    }
    let attacks = ids(&data["mitre"]).map(|id| {
        let place = if id.contains('.') { "sub_technique" } else { "technique" };
        json!({place: {"uid": id}})
    });
    let attacks: Vec<Value> = attacks.collect();
    if !attacks.is_empty() {
        event.insert("attacks".to_owned(), json!(attacks));
    }
    if let Some(name) = data["policy"].as_str() {
        event.insert("policy".to_owned(), json!({"name": name}));
    }
    if let Some(observable) = observable(data) {
        event.insert("observables".to_owned(), json!([observable]));
    }
    event.extend(more.as_object().cloned().unwrap_or_default());
    Value::Object(event)
}

fn metadata(kind: &str, cloud: &Value) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": {"name": "Riposte", "version": env!("CARGO_PKG_VERSION")},
        "profiles": ["host", "security_control"],
        "event_code": kind,
    });
    for (field, value) in
        [("uid", &cloud["id"]), ("log_provider", &cloud["source"]), ("correlation_uid", &cloud["data"]["response_id"])]
    {
        if value.is_string() {
            metadata[field] = value.clone();
        }
    }
    metadata
}

/// What OCSF has no place for.
fn unmapped(cloud: &Value) -> Value {
    let placed = ["actor", "detail", "agent_id", "agent", "policy", "mitre", "d3fend", "withheld"];
    let mut rest = cloud["data"].as_object().cloned().unwrap_or_default();
    let is_observable = observable(&cloud["data"]).is_some();
    rest.retain(|key, _| !(placed.contains(&key.as_str()) || is_observable && key.starts_with("target_")));
    if cloud["subject"].is_string() {
        rest.insert("subject".to_owned(), cloud["subject"].clone());
    }
    Value::Object(rest)
}

fn actor_of(actor: &str) -> Value {
    match actor.split_once(':') {
        Some(("user", name)) => json!({"user": {"name": name}}),
        Some(_) => json!({"app_name": "Riposte", "app_uid": actor}),
        None => json!({"app_name": actor}),
    }
}

/// Ids in an array of texts.
fn ids(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn observable(data: &Value) -> Option<Value> {
    let (kind, value) = (data["target_kind"].as_str()?, data["target_value"].as_str()?);
    // The types of OCSF: an address, a subnet, a user name, a path of a file, the id of a process.
    let type_id = match kind {
        "ip" if value.contains('/') => 12,
        "ip" => 2,
        "user" => 4,
        "file" => 45,
        "process" => 15,
        _ => return None,
    };
    Some(json!({"name": "target", "type_id": type_id, "value": value}))
}

fn classed(kind: &str, cloud: &Value) -> Classed {
    let (family, verb) = kind.split_once('.').unwrap_or((kind, ""));
    let data = &cloud["data"];
    let other = |class: i64, more: Value| Classed { class, activity: 99, named: Some(kind.to_owned()), more };
    let subject = cloud["subject"].as_str().unwrap_or_default();
    let (noun, id) = subject.split_once('/').unwrap_or((subject, subject));
    match (family, verb) {
        ("response" | "effect" | "command" | "approval", _) if is_told(data) => remediation(family, verb, data),
        ("audit", "user_logged_in" | "user_logged_out" | "user_failed_login") => Classed {
            class: 3002,
            activity: if verb == "user_logged_out" { 2 } else { 1 },
            named: None,
            more: json!({
                "user": {"name": id},
                "service": {"name": "Riposte"},
                "status_id": if verb == "user_failed_login" { 2 } else { 1 },
            }),
        },
        ("incident", verb) => finding(if is_end(verb) { 3 } else { 1 }, kind, &format!("{subject} {}", incident(verb))),
        ("breaker", "opened") => finding(1, kind, &format!("{subject} breaker")),
        ("breaker", "reset") => finding(3, kind, &format!("{subject} breaker")),
        ("agent", "cloned") => finding(1, kind, &format!("{subject} cloned")),
        ("node", "started" | "stopped") => Classed {
            class: 6002,
            activity: if verb == "started" { 3 } else { 4 },
            named: None,
            more: json!({"app": {"name": "Riposte", "uid": id}, "status_id": 1}),
        },
        // What a receiver may not see has no subject.
        _ if subject.is_empty() => other(0, json!({})),
        (_, verb) => {
            let has_failed = EventSeverity::of(kind) != EventSeverity::Informational;
            let more = json!({"entity": {"type": noun, "uid": id}, "status_id": if has_failed { 2 } else { 1 }});
            let verb = verb.strip_prefix(noun).and_then(|verb| verb.strip_prefix('_')).unwrap_or(verb);
            let activity = match verb {
                "created" | "placed" => 1,
                "updated" | "changed" | "set" | "labelled" => 3,
                "deleted" | "removed" | "released" => 4,
                "enrolled" => 6,
                "revoked" => 7,
                "enabled" => 8,
                "disabled" => 9,
                _ => return other(3004, more),
            };
            Classed { class: 3004, activity, named: None, more }
        }
    }
}

/// Whether an event says which response, effect or command it is about.
fn is_told(data: &Value) -> bool {
    ["command_id", "effect_id", "response_id"].iter().any(|field| data[*field].is_string())
}

/// The incident that an event begins or ends.
fn incident(verb: &str) -> &str {
    match verb {
        "orders_rejected" | "orders_accepted" => "orders",
        "forwarder_silent" | "forwarder_back" => "forwarder",
        "feed_too_long" | "feed_served" => "feed_length",
        "feed_not_fetched" | "feed_fetched" => "feed_fetch",
        "ledger_breached" | "ledger_accepted" => "ledger",
        other => other,
    }
}

fn finding(activity: i64, kind: &str, uid: &str) -> Classed {
    let more = json!({"finding_info": {"uid": uid, "title": kind}, "status_id": if activity == 3 { 4 } else { 1 }});
    Classed { class: 2004, activity, named: None, more }
}

/// What becomes of a response. Its class follows from what it aims at, and its activity from the tactic of D3FEND.
fn remediation(family: &str, verb: &str, data: &Value) -> Classed {
    let value = data["target_value"].as_str().unwrap_or_default();
    let (class, aim) = match data["target_kind"].as_str() {
        // From the address to the host; a block may hold for both directions.
        Some("ip") => (7004, json!({"connection_info": {"direction_id": 1}})),
        Some("file") => {
            let name = value.rsplit(['/', '\\']).next().unwrap_or(value);
            (7002, json!({"file": {"name": name, "path": value, "type_id": 1}}))
        }
        Some("process") => (
            7003,
            json!({"process": match value.parse::<i64>() {
                Ok(pid) => json!({"pid": pid}),
                Err(_) => json!({"uid": value}),
            }}),
        ),
        _ => (7001, json!({})),
    };
    let activity = match (family, verb, ids(&data["d3fend"]).next()) {
        ("effect", "lifted" | "failing", _) | ("response", "ended", _) => 3,
        ("response", "rejected" | "lapsed" | "observed" | "spared", _) => 99,
        (_, _, Some("D3-NTF" | "D3-NI" | "D3-CQ")) => 1,
        (_, _, Some("D3-PT" | "D3-AL")) => 2,
        _ => 99,
    };
    let status = match (family, verb) {
        ("effect", "active" | "lifted" | "repaired") => 1,
        ("command", "refused") => 5,
        ("command", _) | ("effect", "failing" | "lost" | "drifted") => 2,
        // It was decided: what it does on an agent is an event of its effect.
        _ => 99,
    };
    let mut more = json!({"status_id": status});
    if status == 99 {
        more["status"] = json!(format!("{family}.{verb}"));
    }
    if let Some(id) = ["command_id", "effect_id", "response_id"].iter().find_map(|field| data[*field].as_str()) {
        more["command_uid"] = json!(id);
    }
    let countermeasures: Vec<Value> = ids(&data["d3fend"]).map(|id| json!({"d3f_technique": {"uid": id}})).collect();
    if !countermeasures.is_empty() {
        more["countermeasures"] = json!(countermeasures);
    }
    if let (Some(more), Some(aim)) = (more.as_object_mut(), aim.as_object()) {
        more.extend(aim.clone());
    }
    let named = (activity == 99).then(|| data["action"].as_str().unwrap_or("other").to_owned());
    Classed { class, activity, named, more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::AuditEvent;

    fn cloud(kind: &str, subject: &str, data: &Value) -> Value {
        json!({
            "specversion": "1.0", "id": "7", "source": "/riposte", "type": format!("riposte.{kind}"), "subject": subject,
            "time": "2026-11-24T10:00:00.000Z", "datacontenttype": "application/json", "data": data,
        })
    }

    #[test]
    fn a_block_is_a_network_remediation_with_its_techniques() {
        let data = json!({
            "actor": "agent:a", "detail": "", "effect_id": "e", "response_id": "r", "agent_id": "a", "agent": "web-01",
            "policy": "ssh", "action": "firewall-drop", "target_kind": "ip", "target_value": "203.0.113.7",
            "mitre": ["T1110.001", "T1110"], "d3fend": ["D3-NTF"],
        });
        insta::assert_json_snapshot!(event(&cloud("effect.active", "effect/e", &data)));
    }

    #[test]
    fn every_type_has_a_class_and_what_is_withheld_has_none() {
        let lines = EventType::ALL.iter().map(|kind| {
            let data = json!({"actor": "riposte", "response_id": "r", "target_kind": "user", "target_value": "a"});
            let entry = AuditEvent::ALL.iter().find(|entry| EventType::of(**entry).contains(kind));
            let noun = entry.map_or("effect", |entry| entry.noun());
            let event = event(&cloud(kind.as_str(), &format!("{noun}/x"), &data));
            let number = |field: &str| event[field].as_i64().unwrap();
            assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
            format!("{}: {} severity {}", kind.as_str(), event["type_uid"], event["severity_id"])
        });
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
        let withheld = json!({
            "specversion": "1.0", "id": "7", "source": "/riposte", "type": "riposte.withheld",
            "data": {"withheld": "tlp:red is above the ceiling tlp:amber of this webhook"},
        });
        let told = event(&withheld);
        assert_eq!((&told["class_uid"], &told["unmapped"], &told["time"]), (&json!(0), &json!({}), &json!(0)));
    }

    #[test]
    fn an_incident_is_closed_by_its_own_end_only_and_a_failure_is_no_success() {
        let of = |kind: &str, subject: &str| event(&cloud(kind, subject, &json!({"actor": "riposte"})));
        let uid = |event: Value| event["finding_info"]["uid"].as_str().unwrap().to_owned();
        assert_eq!(uid(of("incident.orders_rejected", "agent/a")), uid(of("incident.orders_accepted", "agent/a")));
        assert_ne!(uid(of("incident.orders_accepted", "agent/a")), uid(of("agent.cloned", "agent/a")));
        assert_ne!(uid(of("incident.feed_fetched", "feed/f")), uid(of("incident.feed_too_long", "feed/f")));
        for (kind, status) in [("audit.request_denied", 2), ("webhook.gave_up", 2), ("policy.created", 1)] {
            assert_eq!(of(kind, "x/y")["status_id"], status, "{kind}");
        }
        let failing = event(&cloud("effect.failing", "effect/e", &json!({"effect_id": "e", "d3fend": ["D3-NTF"]})));
        assert_eq!((&failing["activity_id"], &failing["status_id"]), (&json!(3), &json!(2)));
    }

    #[test]
    fn a_target_is_what_its_class_wants() {
        let of = |kind: &str, value: &str| {
            let data = json!({"response_id": "r", "action": "x", "target_kind": kind, "target_value": value});
            event(&cloud("response.created", "response/r", &data))
        };
        assert_eq!(of("file", "/tmp/a b")["file"]["name"], "a b");
        assert_eq!(of("process", "42")["process"]["pid"], 42);
        assert_eq!(of("ip", "198.51.100.0/24")["observables"][0]["type_id"], 12);
        assert_eq!(of("host", "")["class_uid"], 7001);
        assert_eq!(of("host", "")["activity_name"], "x");
    }
}
