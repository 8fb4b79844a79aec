//! Parses Wazuh 4.x alerts from `alerts.json`. Only fields for policies and people are read; the
//! rest stays in the raw alert.
//!
//! Source of the format: `src/analysisd/format/to_json.c` of Wazuh 4.14 as described in its
//! documentation.

use riposte_protocol::time::Timestamp;

use super::document::Document;
use super::field::{Faults, Field};
use super::observe::observables;
use super::{ObservableMappings, dedupe, echo};
use crate::domain::alert::{Alert, AlertAgent, Observables, Rule, TargetField};
use crate::domain::fault::Fault;

/// Name of the pipeline.
pub const PIPELINE: &str = "wazuh";
/// Highest rule level that Wazuh documents.
const MAX_LEVEL: u64 = 16;
/// Maximum number of stored techniques.
const MAX_TECHNIQUES: usize = 64;
/// Maximum length of a stored agent name, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Compliance tags that Wazuh moves out of the groups into arrays of their own; policies name them as one.
/// Path, pointer and prefix.
const COMPLIANCE: [(&str, &str, &str); 7] = [
    ("rule.pci_dss", "/rule/pci_dss", "pci_dss_"),
    ("rule.gdpr", "/rule/gdpr", "gdpr_"),
    ("rule.hipaa", "/rule/hipaa", "hipaa_"),
    ("rule.nist_800_53", "/rule/nist_800_53", "nist_800_53_"),
    ("rule.tsc", "/rule/tsc", "tsc_"),
    ("rule.gpg13", "/rule/gpg13", "gpg13_"),
    ("rule.cis", "/rule/cis", "cis_"),
];

/// Fields of Wazuh's sources for each observable, in order of preference.
const fn known(field: TargetField) -> &'static [&'static str] {
    match field {
        TargetField::SourceIp => &[
            "data.srcip",
            "data.src_ip",
            "data.win.eventdata.ipAddress",
            "data.win.eventdata.sourceIp",
            "data.aws.sourceIPAddress",
            "data.aws.source_ip_address",
            "data.aws.srcaddr",
            "data.aws.httpRequest.clientIp",
            "data.aws.service.action.portProbeAction.portProbeDetails.0.remoteIpDetails.ipAddressV4",
            "data.aws.service.action.networkConnectionAction.remoteIpDetails.ipAddressV4",
            "data.aws.service.action.awsApiCallAction.remoteIpDetails.ipAddressV4",
            "data.aws.service.action.kubernetesApiCallAction.remoteIpDetails.ipAddressV4",
            "data.aws.service.action.rdsLoginAttemptAction.remoteIpDetails.ipAddressV4",
            "data.office365.ClientIP",
            "data.gcp.protoPayload.requestMetadata.callerIp",
        ],
        TargetField::DestinationIp => {
            &["data.dstip", "data.dest_ip", "data.win.eventdata.destinationIp", "data.aws.dstaddr"]
        }
        TargetField::SourceUser => &[
            "data.srcuser",
            "data.win.eventdata.subjectUserName",
            "data.aws.userIdentity.userName",
            "data.office365.UserId",
            "data.gcp.protoPayload.authenticationInfo.principalEmail",
            "syscheck.audit.user.name",
        ],
        TargetField::DestinationUser => &["data.dstuser", "data.win.eventdata.targetUserName"],
        TargetField::FilePath => &["syscheck.path", "data.virustotal.source.file", "data.file"],
        TargetField::ProcessId => &["data.win.eventdata.processId", "data.audit.pid", "syscheck.audit.process.id"],
        TargetField::Host => &[],
    }
}

/// Fields of Wazuh's sources with the name of the process in `process.id`.
const PROCESS_NAMES: &[&str] =
    &["data.audit.command", "data.audit.exe", "data.win.eventdata.image", "syscheck.audit.process.name"];

/// Parses a Wazuh alert.
///
/// # Errors
/// All faults, each with a pointer to its field.
pub(super) fn read(document: &Document, mappings: &ObservableMappings) -> Result<Alert, Vec<Fault>> {
    let mut faults = Faults::default();
    let time = faults.time("/timestamp", document.at("timestamp"));
    let rule = rule(document, &mut faults);
    let pipeline_id = faults.required_word("/id", document.at("id"));
    let mut agent = agent(document, &mut faults);
    let manager = faults.optional_word("/manager/name", document.at("manager.name"));
    let cluster = Faults::name(document.at("cluster.name"), MAX_NAME_BYTES);
    let node = faults.optional_word("/cluster/node", document.at("cluster.node")).unwrap_or_default();
    for name in ["data", "syscheck"] {
        if document.top(name).is_some_and(|text| text != "null" && !text.starts_with('{')) {
            faults.add(&format!("/{name}"), "must be an object");
        }
    }
    let observables = observables_of(document, mappings);
    // An id is unique only per node: it is a second and an offset in that node's log.
    let dedupe = dedupe(&[PIPELINE, manager.as_deref().unwrap_or_default(), &node, &pipeline_id]);
    (agent.manager, agent.cluster) = (manager, cluster);
    let is_own_echo = echo::is_own(document, &rule);
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

/// The observables of a document that has fields of a Wazuh alert, whatever else it lacks.
pub(super) fn observables_of(document: &Document, mappings: &ObservableMappings) -> Observables {
    observables(document, mappings, known, PROCESS_NAMES)
}

/// Parses a rule, and validates the fields that decisions need: id and level.
pub(super) fn rule(document: &Document, faults: &mut Faults) -> Rule {
    if document.top("rule").is_none_or(|text| text == "null") && !document.has_dotted("rule") {
        faults.add("/rule", "is missing");
        return Rule::default();
    }
    let id = canonical_rule_id(&faults.required_word("/rule/id", document.at("rule.id")));
    let level = level(document.at("rule.level"), faults);
    let mut groups = Vec::new();
    faults.groups("/rule/groups", document.at("rule.groups"), &mut groups, "");
    for (path, pointer, prefix) in COMPLIANCE {
        faults.groups(pointer, document.at(path), &mut groups, prefix);
    }
    // Values other than a list of strings are ignored.
    let techniques = document.at("rule.mitre.id").and_then(Field::items).unwrap_or_default();
    let techniques = techniques.into_iter().filter_map(|(_, item)| item.text()).take(MAX_TECHNIQUES);
    let mitre = techniques.map(|id| id.trim_ascii().to_ascii_uppercase()).collect();
    Rule { id, level, groups, description: Faults::description(document.at("rule.description")), mitre }
}

/// A whole number from 0 to 16 in any JSON notation (`12`, `12.0`, `1e1`); never a string.
fn level(field: Option<Field>, faults: &mut Faults) -> u8 {
    let Some(field) = field else {
        faults.add("/rule/level", "is missing or empty");
        return 0;
    };
    let number = serde_json::from_str::<serde_json::Number>(field.0.get()).ok();
    let whole = number.and_then(|number| {
        number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            // Exact in f64 and far from its limits, so the cast is lossless.
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

/// Normalises a rule id: `05763`, ` 5763` and `5763` are equal; other words stay.
pub fn canonical_rule_id(id: &str) -> String {
    let id = id.trim_ascii();
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) {
        let trimmed = id.trim_start_matches('0');
        if trimmed.is_empty() { "0".into() } else { trimmed.into() }
    } else {
        id.into()
    }
}

/// Normalises an agent id to three digits: `5`, `05` and `005` are equal. `None` unless it is one
/// to ten digits.
pub fn canonical_agent_id(id: &str) -> Option<String> {
    let id = id.trim_ascii();
    let digits = !id.is_empty() && id.len() <= 10 && id.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| format!("{:0>3}", id.trim_start_matches('0')))
}

fn agent(document: &Document, faults: &mut Faults) -> AlertAgent {
    let name = Faults::name(document.at("agent.name"), MAX_NAME_BYTES);
    let Some(field) = document.at("agent.id") else {
        faults.add("/agent/id", "is missing or empty");
        return AlertAgent { name, ..AlertAgent::default() };
    };
    let id = field.word().and_then(|word| canonical_agent_id(&word));
    if id.is_none() {
        faults.add("/agent/id", "must be one to ten digits");
    }
    AlertAgent { id, name, ..AlertAgent::default() }
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
        crate::domain::formats::parse(&alert.to_string(), &crate::domain::formats::AlertMappings::default(), None)
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
            crate::domain::formats::parse(&raw, &crate::domain::formats::AlertMappings::default(), None)
                .map(|alert| alert.rule.level)
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
