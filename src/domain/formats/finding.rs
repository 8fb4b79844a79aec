//! Parses findings of Wazuh 5 from its `wazuh-findings-v5-*` indices: the common schema, nested or
//! with dotted keys. Severity words become Wazuh 4's levels of the same severity.
//!
//! Source of the names: Wazuh's guides for the migration from 4.x to 5.x.

use riposte_protocol::time::Timestamp;

use super::document::Document;
use super::field::{Faults, Field};
use super::observe::observables;
use super::wazuh::{PIPELINE, canonical_agent_id, canonical_rule_id};
use super::{ObservableMappings, dedupe};
use crate::domain::alert::{Alert, AlertAgent, Rule, TargetField};
use crate::domain::fault::Fault;

/// The lowest Wazuh 4 level of each severity.
const LEVELS: [(&str, u8); 5] = [("informational", 1), ("low", 4), ("medium", 7), ("high", 12), ("critical", 15)];
/// Frameworks whose tags Wazuh 4 writes as groups (`pci_dss_11.4`).
const COMPLIANCE: [&str; 7] = ["pci_dss", "gdpr", "hipaa", "nist_800_53", "tsc", "gpg13", "cis"];
/// Maximum number of stored techniques.
const MAX_TECHNIQUES: usize = 64;
/// Maximum length of a stored agent name, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Fields that may hold a finding's id: in the document, or set by an index.
const IDS: [&str; 5] = ["id", "_id", "event.doc_id", "event.id", "wazuh.event.id"];

const fn known(field: TargetField) -> &'static [&'static str] {
    match field {
        TargetField::SourceIp => &["source.ip", "client.ip"],
        TargetField::DestinationIp => &["destination.ip", "server.ip"],
        TargetField::SourceUser => &["source.user.name", "client.user.name", "user.name"],
        TargetField::DestinationUser => &["destination.user.name", "user.target.name", "user.name"],
        TargetField::FilePath => &["file.path"],
        TargetField::ProcessId => &["process.pid"],
        TargetField::Host => &[],
    }
}

/// Fields with the name or program of the process in `process.id`.
const PROCESS_NAMES: &[&str] = &["process.name", "process.executable"];

/// Parses a finding.
///
/// # Errors
/// All faults, each with a pointer to its field.
pub(super) fn read(document: &Document, mappings: &ObservableMappings) -> Result<Alert, Vec<Fault>> {
    let mut faults = Faults::default();
    let time = faults.time("/@timestamp", document.at("@timestamp"));
    let found = IDS.iter().find_map(|path| Some((*path, document.at(path)?)));
    // An event's id instead of a finding's: the same event may be found again.
    let id_recurs = found.is_some_and(|(path, _)| path == "event.id");
    let pipeline_id = faults.required_word("/id", found.map(|(_, id)| id));
    let index = document.at("event.index").or_else(|| document.at("_index"));
    let index = faults.optional_word("/event/index", index).unwrap_or_default();
    let rule = rule(document, &mut faults);
    let agent_id = faults.optional_word("/wazuh/agent/id", document.at("wazuh.agent.id"));
    let agent = AlertAgent {
        id: agent_id.map(|id| canonical_agent_id(&id).unwrap_or(id)),
        name: Faults::name(document.at("wazuh.agent.name"), MAX_NAME_BYTES),
        manager: Faults::name(document.at("wazuh.manager.name"), MAX_NAME_BYTES),
        cluster: Faults::name(document.at("wazuh.cluster.name"), MAX_NAME_BYTES),
    };
    let observables = observables(document, mappings, known, PROCESS_NAMES);
    // An id is unique in its index; "5" separates it from ids of Wazuh 4.
    let dedupe = dedupe(&[PIPELINE, "5", &index, &pipeline_id]);
    faults.into_result(Alert {
        pipeline: PIPELINE.into(),
        pipeline_id,
        dedupe,
        id_recurs,
        time,
        is_timed: true,
        received: Timestamp::default(),
        is_own_echo: false,
        rule,
        agent,
        observables,
    })
}

fn rule(document: &Document, faults: &mut Faults) -> Rule {
    let id = faults.required_word("/wazuh/rule/id", document.at("wazuh.rule.id"));
    let mut groups = Vec::new();
    faults.groups("/wazuh/rule/tags", document.at("wazuh.rule.tags"), &mut groups, "");
    let category = faults.optional_word("/wazuh/rule/category", document.at("wazuh.rule.category"));
    groups.extend(category.map(|category| category.trim_ascii().to_owned()));
    for framework in COMPLIANCE {
        let field = document.at(&format!("wazuh.rule.compliance.{framework}"));
        let pointer = format!("/wazuh/rule/compliance/{framework}");
        faults.groups(&pointer, field, &mut groups, &format!("{framework}_"));
    }
    let techniques = document.at("wazuh.rule.mitre.technique.id").or_else(|| document.at("wazuh.rule.mitre.technique"));
    let title = document.at("wazuh.rule.title").or_else(|| document.at("wazuh.rule.description"));
    Rule {
        id: canonical_rule_id(&id),
        level: level(document.at("wazuh.rule.level"), faults),
        groups,
        description: Faults::description(title),
        mitre: techniques.map(texts).unwrap_or_default(),
    }
}

/// A string or a list of strings; other values are ignored.
fn texts(field: Field) -> Vec<String> {
    let items = field.items().map(|items| items.into_iter().map(|(_, item)| item).collect());
    let items: Vec<Field> = items.unwrap_or_else(|| vec![field]);
    let texts = items.into_iter().filter_map(Field::text).take(MAX_TECHNIQUES);
    texts.map(|text| text.trim_ascii().to_ascii_uppercase()).collect()
}

fn level(field: Option<Field>, faults: &mut Faults) -> u8 {
    let word = field.and_then(Field::word);
    let named = word.as_deref().and_then(|word| {
        let by_name = LEVELS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, level)| *level);
        by_name.or_else(|| word.parse().ok().filter(|level| *level <= 16))
    });
    named.unwrap_or_else(|| {
        let words: Vec<&str> = LEVELS.iter().map(|(name, _)| *name).collect();
        faults.add("/wazuh/rule/level", format!("must be one of {}, or a number from 0 to 16", words.join(", ")));
        0
    })
}

#[cfg(test)]
mod tests {
    use super::super::{AlertMappings, parse};
    use crate::domain::alert::TargetField;
    use serde_json::{Value, json};

    fn finding() -> Value {
        json!({"@timestamp": "2026-11-20T10:11:12.345Z", "event": {"doc_id": "4f1c", "index": "wazuh-findings-v5-security"},
            "wazuh": {"agent": {"id": "7", "name": "web-01"}, "rule": {"id": "0a1b2c3d-0000-4000-8000-000000000001", "level": "high",
                "title": "Failed logins from one address", "tags": ["attack.credential-access", "linux"], "category": "system-activity",
                "mitre": {"technique": {"id": ["t1110"]}}, "compliance": {"pci_dss": ["10.2.4"]}}},
            "source": {"ip": "203.0.113.7"}, "user": {"name": "alice"}, "process": {"pid": 4711}})
    }

    #[test]
    fn a_finding_is_normalised() {
        let alert = parse(&finding().to_string(), &AlertMappings::default(), None).unwrap();
        assert_eq!((alert.pipeline.as_str(), alert.pipeline_id.as_str(), alert.rule.level), ("wazuh", "4f1c", 12));
        assert_eq!(alert.rule.groups, ["attack.credential-access", "linux", "system-activity", "pci_dss_10.2.4"]);
        assert_eq!((alert.rule.mitre.as_slice(), alert.agent.id.as_deref()), (&["T1110".to_owned()][..], Some("007")));
        let target = |field| alert.observables.target(field).unwrap().unwrap().value().to_owned();
        assert_eq!(target(TargetField::SourceIp), "203.0.113.7");
        assert_eq!(target(TargetField::DestinationUser), "alice");
        assert_eq!(target(TargetField::ProcessId), "4711");
    }

    #[test]
    fn dotted_keys_mean_the_same() {
        let mut flat = json!({"@timestamp": "2026-11-20T10:11:12.345Z", "wazuh.rule.id": "r", "wazuh.rule.level": "Critical",
            "wazuh.agent.name": "web-01", "event.id": "e1", "source.ip": "203.0.113.7"});
        let alert = parse(&flat.to_string(), &AlertMappings::default(), None).unwrap();
        assert_eq!((alert.rule.level, alert.pipeline_id.as_str()), (15, "e1"));
        assert_eq!(alert.observables.source_ip.unwrap().value, "203.0.113.7");
        flat["wazuh.rule.level"] = json!("severe");
        assert_eq!(
            parse(&flat.to_string(), &AlertMappings::default(), None).unwrap_err()[0].pointer,
            "/wazuh/rule/level"
        );
    }

    #[test]
    fn missing_fields_of_a_finding_are_named() {
        let pointers: Vec<String> = parse(r#"{"wazuh":{"rule":{}}}"#, &AlertMappings::default(), None)
            .unwrap_err()
            .into_iter()
            .map(|fault| fault.pointer)
            .collect();
        assert_eq!(pointers, ["/@timestamp", "/id", "/wazuh/rule/id", "/wazuh/rule/level"]);
    }
}
