//! Wazuh 4.x alerts as `alerts.json` holds them: how their fields become those of [`Alert`]. Only what policies and
//! people need is looked at; the rest is skipped unread and kept in the raw alert.
//!
//! Sources of the shape: `src/analysisd/format/to_json.c` of Wazuh 4.14 as described in its documentation.

use std::borrow::Cow;

use riposte_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::field::{Faults, Field, observable, syntax_fault};
use super::{Level, dedupe, descend, echo};
use crate::domain::alert::{Alert, AlertAgent, Observables, Rule};
use crate::domain::fault::Fault;

/// The name of this pipeline.
pub const PIPELINE: &str = "wazuh";
/// The highest rule level that Wazuh documents.
const MAX_LEVEL: u64 = 16;
/// The most techniques that are kept of one alert.
const MAX_TECHNIQUES: usize = 64;
/// The longest agent name that is kept, in bytes.
const MAX_NAME_BYTES: usize = 256;

#[derive(Deserialize)]
struct RawAlert<'a> {
    #[serde(borrow, default)]
    timestamp: Option<Field<'a>>,
    #[serde(borrow, default)]
    rule: Option<RawRule<'a>>,
    #[serde(borrow, default)]
    agent: Option<RawAgent<'a>>,
    #[serde(borrow, default)]
    manager: Option<RawManager<'a>>,
    #[serde(borrow, default)]
    cluster: Option<RawCluster<'a>>,
    #[serde(borrow, default)]
    id: Option<Field<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    syscheck: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow, default)]
    location: Option<&'a RawValue>,
}

/// A rule, in Wazuh's names; the generic shape uses the same.
#[derive(Deserialize)]
pub(super) struct RawRule<'a> {
    #[serde(borrow, default)]
    id: Option<Field<'a>>,
    #[serde(borrow, default)]
    level: Option<Field<'a>>,
    #[serde(borrow, default)]
    groups: Option<Field<'a>>,
    #[serde(borrow, default)]
    description: Option<Field<'a>>,
    #[serde(borrow, default)]
    mitre: Option<RawMitre<'a>>,
    #[serde(borrow, default)]
    pci_dss: Option<Field<'a>>,
    #[serde(borrow, default)]
    gdpr: Option<Field<'a>>,
    #[serde(borrow, default)]
    hipaa: Option<Field<'a>>,
    #[serde(borrow, default)]
    nist_800_53: Option<Field<'a>>,
    #[serde(borrow, default)]
    tsc: Option<Field<'a>>,
    #[serde(borrow, default)]
    gpg13: Option<Field<'a>>,
    #[serde(borrow, default)]
    cis: Option<Field<'a>>,
}

/// `{"id": [...], ...}` as Wazuh writes it; anything else is passed over.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawMitre<'a> {
    Object {
        #[serde(default)]
        id: Vec<Cow<'a, str>>,
    },
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct RawAgent<'a> {
    #[serde(borrow, default)]
    id: Option<Field<'a>>,
    #[serde(borrow, default)]
    name: Option<Field<'a>>,
}

#[derive(Deserialize)]
struct RawManager<'a> {
    #[serde(borrow, default)]
    name: Option<Field<'a>>,
}

#[derive(Deserialize)]
struct RawCluster<'a> {
    #[serde(borrow, default)]
    name: Option<Field<'a>>,
    #[serde(borrow, default)]
    node: Option<Field<'a>>,
}

/// Where Wazuh's sources keep what policies aim at; the first path that holds a text wins.
type Paths = &'static [&'static [&'static str]];

const SOURCE_IP: Paths = &[
    &["data", "srcip"],
    &["data", "src_ip"],
    &["data", "win", "eventdata", "ipAddress"],
    &["data", "aws", "sourceIPAddress"],
    &["data", "aws", "source_ip_address"],
    &["data", "office365", "ClientIP"],
    &["data", "gcp", "protoPayload", "requestMetadata", "callerIp"],
];
const DESTINATION_IP: Paths =
    &[&["data", "dstip"], &["data", "dest_ip"], &["data", "win", "eventdata", "destinationIp"]];
const SOURCE_USER: Paths = &[
    &["data", "srcuser"],
    &["data", "win", "eventdata", "subjectUserName"],
    &["data", "aws", "userIdentity", "userName"],
    &["data", "office365", "UserId"],
    &["data", "gcp", "protoPayload", "authenticationInfo", "principalEmail"],
    &["syscheck", "audit", "user", "name"],
];
const DESTINATION_USER: Paths = &[&["data", "dstuser"], &["data", "win", "eventdata", "targetUserName"]];
const PROCESS_ID: Paths =
    &[&["data", "win", "eventdata", "processId"], &["data", "audit", "pid"], &["syscheck", "audit", "process", "id"]];
const PROCESS_NAME: Paths = &[
    &["data", "audit", "command"],
    &["data", "audit", "exe"],
    &["data", "win", "eventdata", "image"],
    &["syscheck", "audit", "process", "name"],
];
const FILE_PATH: Paths = &[&["syscheck", "path"], &["data", "virustotal", "source", "file"], &["data", "file"]];

/// Reads one Wazuh alert.
///
/// # Errors
/// Every fault, with a pointer to its field.
pub(super) fn parse(raw: &str) -> Result<Alert, Vec<Fault>> {
    let shape: RawAlert = serde_json::from_str(raw).map_err(|error| vec![syntax_fault(&error)])?;
    let mut faults = Faults::default();
    let time = faults.time("/timestamp", shape.timestamp.as_ref());
    let rule = rule(shape.rule, &mut faults);
    let pipeline_id = faults.required_word("/id", shape.id.as_ref());
    let mut agent = agent(shape.agent, &mut faults);
    let manager = shape.manager.and_then(|manager| faults.optional_word("/manager/name", manager.name.as_ref()));
    let cluster = shape.cluster.map(|cluster| {
        let name = Faults::name(cluster.name.as_ref(), MAX_NAME_BYTES);
        (name, faults.optional_word("/cluster/node", cluster.node.as_ref()))
    });
    let (cluster, node) = cluster.unwrap_or_default();
    let is_own_echo = echo::is_own(&rule, shape.data, shape.decoder, shape.location);
    let observables = observables(shape.data, shape.syscheck, &mut faults);
    // An id is unique per node only: it is a second and an offset in that node's log.
    let dedupe =
        dedupe(&[PIPELINE, manager.as_deref().unwrap_or_default(), node.as_deref().unwrap_or_default(), &pipeline_id]);
    (agent.manager, agent.cluster) = (manager, cluster);
    faults.into_result(Alert {
        pipeline: PIPELINE.into(),
        pipeline_id,
        dedupe,
        id_recurs: false,
        time,
        is_timed: true,
        received: Timestamp::default(),
        is_own_echo,
        rule,
        agent,
        observables,
    })
}

/// Reads a rule and checks what decisions stand on: its id and its level.
pub(super) fn rule(raw: Option<RawRule>, faults: &mut Faults) -> Rule {
    let Some(raw) = raw else {
        faults.add("/rule", "is missing");
        return Rule::default();
    };
    let id = match raw.id.filter(|id| !id.is_null()) {
        Some(id) => canonical_rule_id(&faults.required_word("/rule/id", Some(&id))),
        None => {
            faults.add("/rule/id", "is missing");
            String::new()
        }
    };
    let level = level(raw.level, faults);
    let mut groups = Vec::new();
    faults.groups("/rule/groups", raw.groups.as_ref(), &mut groups, "");
    // Wazuh moves compliance tags out of the groups into arrays of their own; policies name them as one.
    for (name, field) in [
        ("pci_dss", raw.pci_dss),
        ("gdpr", raw.gdpr),
        ("hipaa", raw.hipaa),
        ("nist_800_53", raw.nist_800_53),
        ("tsc", raw.tsc),
        ("gpg13", raw.gpg13),
        ("cis", raw.cis),
    ] {
        faults.groups(&format!("/rule/{name}"), field.as_ref(), &mut groups, &format!("{name}_"));
    }
    let mitre = match raw.mitre {
        Some(RawMitre::Object { id }) => id.iter().take(MAX_TECHNIQUES).map(|id| id.to_ascii_uppercase()).collect(),
        _ => Vec::new(),
    };
    Rule { id, level, groups, description: Faults::description(raw.description.as_ref()), mitre }
}

/// A whole number from 0 to 16, however JSON spells it (`12`, `12.0`, `1e1`); never a text.
fn level(field: Option<Field>, faults: &mut Faults) -> u8 {
    let Some(field) = field else {
        faults.add("/rule/level", "is missing");
        return 0;
    };
    let number = serde_json::from_str::<serde_json::Number>(field.0.get()).ok();
    let whole = number.and_then(|number| {
        number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            // Exact in f64 and far from its limits: the cast cannot lose anything.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 16, checked")]
            (float.fract() == 0.0 && (0.0..=16.0).contains(&float)).then_some(float as u64)
        })
    });
    match whole.filter(|level| *level <= MAX_LEVEL) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
        Some(level) => level as u8,
        None => {
            faults.add("/rule/level", format!("must be a whole number from 0 to {MAX_LEVEL}"));
            0
        }
    }
}

/// `05763` and `5763` are one rule; a word that is no number stays as it is.
pub fn canonical_rule_id(id: &str) -> String {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) {
        let trimmed = id.trim_start_matches('0');
        if trimmed.is_empty() { "0".into() } else { trimmed.into() }
    } else {
        id.into()
    }
}

/// `5`, `05` and `005` are one agent: Wazuh pads to three digits. `None` for anything but up to ten digits.
pub fn canonical_agent_id(id: &str) -> Option<String> {
    let digits = !id.is_empty() && id.len() <= 10 && id.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| format!("{:0>3}", id.trim_start_matches('0')))
}

fn agent(raw: Option<RawAgent>, faults: &mut Faults) -> AlertAgent {
    let Some(raw) = raw else {
        faults.add("/agent", "is missing");
        return AlertAgent::default();
    };
    let id = match raw.id {
        None => {
            faults.add("/agent/id", "is missing");
            None
        }
        Some(id) => {
            let canonical = id.word().and_then(|word| canonical_agent_id(&word));
            if canonical.is_none() {
                faults.add("/agent/id", "must be one to ten digits");
            }
            canonical
        }
    };
    AlertAgent { id, name: Faults::name(raw.name.as_ref(), MAX_NAME_BYTES), ..AlertAgent::default() }
}

fn observables(data: Option<&RawValue>, syscheck: Option<&RawValue>, faults: &mut Faults) -> Observables {
    let (data, syscheck) = (fields("/data", data, faults), fields("/syscheck", syscheck, faults));
    let first = |paths: Paths| {
        paths.iter().find_map(|path| {
            let top = if path[0] == "data" { &data } else { &syscheck };
            let raw = descend(top.get(path[1]).copied()?, &path[2..])?;
            observable(&path.join("."), Some(&Field(raw)))
        })
    };
    Observables {
        source_ip: first(SOURCE_IP),
        destination_ip: first(DESTINATION_IP),
        source_user: first(SOURCE_USER),
        destination_user: first(DESTINATION_USER),
        file_path: first(FILE_PATH),
        process_id: first(PROCESS_ID),
        process_name: first(PROCESS_NAME),
    }
}

/// The fields of an object; none where there is none.
fn fields<'a>(pointer: &str, raw: Option<&'a RawValue>, faults: &mut Faults) -> Level<'a> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Level::new() };
    serde_json::from_str(raw.get()).unwrap_or_else(|_| {
        faults.add(pointer, "must be an object");
        Level::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::TargetField;

    fn with(change: impl FnOnce(&mut serde_json::Value)) -> Result<Alert, Vec<Fault>> {
        let mut alert = serde_json::json!({
            "timestamp": "2026-11-20T10:11:12.345+0000",
            "rule": {"level": 10, "description": "sshd: brute force", "id": "5763", "groups": ["syslog", "sshd"], "pci_dss": ["11.4"]},
            "agent": {"id": "005", "name": "bastion-01", "ip": "10.20.1.15"},
            "manager": {"name": "m1"}, "cluster": {"name": "wazuh", "node": "n1"},
            "id": "1795169472.12345", "data": {"srcip": "203.0.113.45", "dstuser": "admin"}, "location": "/var/log/auth.log"
        });
        change(&mut alert);
        crate::domain::shapes::parse(&alert.to_string(), &crate::domain::shapes::Sources::default())
    }

    #[test]
    fn a_wazuh_alert_is_normalised() {
        let alert = with(|_| ()).unwrap();
        assert_eq!((alert.rule.id.as_str(), alert.rule.level), ("5763", 10));
        assert_eq!(alert.rule.groups, ["syslog", "sshd", "pci_dss_11.4"]);
        let agent = AlertAgent {
            id: Some("005".into()),
            name: Some("bastion-01".into()),
            manager: Some("m1".into()),
            cluster: Some("wazuh".into()),
        };
        assert_eq!(alert.agent, agent);
        assert_eq!(alert.time.as_millis(), 1_795_169_472_345);
        assert_eq!(alert.observables.field(TargetField::SourceIp).unwrap().field, "data.srcip");
    }

    #[test]
    fn an_alert_is_the_same_per_manager_node_and_id() {
        let key = |change: fn(&mut serde_json::Value)| with(change).unwrap().dedupe;
        let same = key(|_| ());
        assert_eq!(same, key(|alert| alert["rule"]["level"] = 3.into()));
        assert_ne!(same, key(|alert| alert["manager"]["name"] = "m2".into()));
        assert_ne!(same, key(|alert| alert["cluster"]["node"] = "n2".into()));
        assert_ne!(same, key(|alert| alert["id"] = "1795169472.12346".into()));
    }

    #[test]
    fn windows_addresses_are_found_and_a_dash_is_none() {
        let event = |ip: &str| {
            let ip = ip.to_owned();
            with(move |alert| alert["data"] = serde_json::json!({"win": {"eventdata": {"ipAddress": ip}}}))
                .unwrap()
                .observables
                .source_ip
        };
        assert_eq!(event("198.51.100.23").unwrap().field, "data.win.eventdata.ipAddress");
        assert_eq!(event("-"), None);
    }

    #[test]
    fn levels_are_whole_numbers_from_0_to_16() {
        let level = |text: &str| {
            let raw = format!(
                r#"{{"timestamp":"2026-11-20T10:11:12Z","id":"1","agent":{{"id":"5"}},"rule":{{"id":"1","level":{text}}}}}"#
            );
            crate::domain::shapes::parse(&raw, &crate::domain::shapes::Sources::default()).map(|alert| alert.rule.level)
        };
        for (text, want) in [("0", 0), ("16", 16), ("12.0", 12), ("1e1", 10), ("-0", 0)] {
            assert_eq!(level(text), Ok(want), "{text}");
        }
        for text in ["17", "-1", "12.5", "\"12\"", "null", "true", "[1]", "{}", "1e400", "99999999999999999999"] {
            assert!(level(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agent_ids_are_digits_and_padded_as_wazuh_does() {
        for (id, canonical) in [("5", Some("005")), ("005", Some("005")), ("0", Some("000")), ("12345", Some("12345"))]
        {
            assert_eq!(canonical_agent_id(id).as_deref(), canonical, "{id}");
        }
        for id in ["", "../005", "all", "*", "-1", "001,002", "1e3", "٠٠٥", "123456789012345678901234567890"] {
            assert_eq!(canonical_agent_id(id), None, "{id}");
        }
    }
}
