//! Reads an alert by a mapping. What a policy needs must be there; what only describes the alert is taken if it fits.

use std::borrow::Cow;

use riposte_protocol::time::Timestamp;

use super::dedupe;
use super::document::Document;
use super::field::{Faults, Field, MAX_GROUPS, MAX_WORD_BYTES};
use super::mapping::PipelineMapping;
use super::observe::observables;
use super::wazuh::canonical_rule_id;
use crate::domain::alert::{Alert, AlertAgent, Rule};
use crate::domain::fault::Fault;

/// Maximum number of stored techniques.
const MAX_TECHNIQUES: usize = 64;

/// Parses an alert of the pipeline `name`.
///
/// # Errors
/// All faults, each with a pointer to its field.
pub(super) fn read(document: &Document, name: &str, mapping: &PipelineMapping) -> Result<Alert, Vec<Fault>> {
    let (spec, mut faults) = (mapping.spec(), Faults::default());
    let pipeline_id = mapping.id(document).unwrap_or_default();
    if pipeline_id.is_empty() || pipeline_id.len() > MAX_WORD_BYTES || pipeline_id.contains('\0') {
        let why = format!(
            "makes an alert of the pipeline {name} unique, and is missing, longer than {MAX_WORD_BYTES} bytes or no text"
        );
        faults.add(&pointer(&spec.id), why);
    }
    let timed = first(document, &spec.time);
    let time = timed.map_or_else(Timestamp::default, |(path, time)| faults.any_time(&pointer_to(path), time));
    let rule_id = first(document, &spec.rule_id);
    let at = rule_id.map_or_else(|| pointer(&spec.rule_id), |(path, _)| pointer_to(path));
    let rule = Rule {
        id: canonical_rule_id(&faults.required_word(&at, rule_id.map(|(_, id)| id))),
        level: mapping.level(document),
        groups: texts(document, &spec.groups, MAX_GROUPS),
        description: Faults::description(first(document, &spec.description).map(|(_, text)| text)),
        mitre: texts(document, &spec.techniques, MAX_TECHNIQUES).iter().map(|id| id.to_ascii_uppercase()).collect(),
    };
    let agent_id = first(document, &spec.agent_id);
    let agent = AlertAgent {
        id: agent_id.and_then(|(path, id)| faults.optional_word(&pointer_to(path), Some(id))),
        name: Faults::name(first(document, &spec.agent_name).map(|(_, name)| name), MAX_WORD_BYTES).map(without_port),
        ..AlertAgent::default()
    };
    let observables = observables(document, mapping.observables(), |_| &[], &spec.process_name);
    faults.into_result(Alert {
        dedupe: dedupe(&[name, &pipeline_id]),
        pipeline: name.to_owned(),
        pipeline_id,
        id_recurs: spec.ids_recur.unwrap_or_default(),
        time,
        is_timed: timed.is_some(),
        rule,
        agent,
        observables,
        ..Alert::default()
    })
}

fn first<'a, 'p>(document: &Document<'a>, paths: &'p [String]) -> Option<(&'p str, Field<'a>)> {
    paths.iter().find_map(|path| Some((path.as_str(), document.at(path)?)))
}

/// The texts of all fields that fit.
fn texts(document: &Document, paths: &[String], most: usize) -> Vec<String> {
    let mut found = Vec::new();
    for field in paths.iter().filter_map(|path| document.at(path)) {
        let items =
            field.items().map_or_else(|| vec![field], |items| items.into_iter().map(|(_, item)| item).collect());
        let words = items.into_iter().filter_map(Field::word).map(Cow::into_owned);
        found.extend(
            words
                .map(|word| word.trim_ascii().to_owned())
                .filter(|word| !word.is_empty() && word.len() <= MAX_WORD_BYTES && !word.contains('\0')),
        );
    }
    found.truncate(most);
    found
}

/// A host's name without the port that Prometheus puts behind it.
fn without_port(name: String) -> String {
    match name.rsplit_once(':') {
        Some((host, port))
            if !host.contains(':') && !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            host.to_owned()
        }
        _ => name,
    }
}

/// Pointer to the first field that was looked for.
fn pointer(paths: &[String]) -> String {
    let path = paths.first().map_or("", String::as_str);
    pointer_to(path.split(" + ").next().unwrap_or_default())
}

fn pointer_to(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::MappingSpec;
    use crate::domain::alert::TargetField;
    use crate::domain::formats::{AlertMappings, parse};

    fn site(text: &str) -> Result<AlertMappings, Vec<Fault>> {
        let pipelines: BTreeMap<String, MappingSpec> = toml::from_str(text).unwrap();
        AlertMappings::read(&BTreeMap::new(), &pipelines)
    }

    const MINE: &str = r#"
        [mine]
        id = ["event.uid", "event.seq + host"]
        time = ["ts"]
        rule_id = ["sig.id"]
        level = ["sev"]
        levels = { Bad = 12, "3" = 3 }
        highest = 100
        default_level = 7
        ignore = { state = ["resolved"], test = ["true"] }
        groups = ["tags", "sig.family"]
        description = ["sig.text"]
        techniques = ["attack"]
        agent_name = ["host"]
        process_name = ["proc.name"]
        [mine.observables]
        "source.ip" = ["net.0.src"]
        "process.id" = ["proc.pid"]
    "#;

    fn mine(raw: &str) -> Result<Alert, Vec<Fault>> {
        parse(raw, &site(MINE).unwrap(), Some("mine"))
    }

    #[test]
    fn a_foreign_alert_is_read_as_its_mapping_says() {
        let raw = r#"{"event":{"seq":7},"host":"web-01:9100","ts":1795169472.345,"sig":{"id":"007","text":"Bad thing","family":"x"},
            "sev":"bad","tags":["a"," b ",3,null,{"c":1}],"attack":"t1110","net":[{"src":"203.0.113.7:5123"}],"proc.pid":4711,"proc.name":"sh"}"#;
        let alert = mine(raw).unwrap();
        assert_eq!((alert.pipeline.as_str(), alert.pipeline_id.as_str()), ("mine", "7|web-01:9100"));
        assert_eq!((alert.rule.id.as_str(), alert.rule.level, alert.rule.description.as_str()), ("7", 12, "Bad thing"));
        assert_eq!((alert.rule.groups.join(","), alert.rule.mitre.join(",")), ("a,b,3,x".into(), "T1110".into()));
        assert_eq!((alert.agent.name.as_deref(), alert.time.as_millis()), (Some("web-01"), 1_795_169_472_345));
        let target = |field| alert.observables.target(field).unwrap().unwrap().value().to_owned();
        assert_eq!(
            (target(TargetField::SourceIp), target(TargetField::ProcessId)),
            ("203.0.113.7".into(), "4711".into())
        );
    }

    #[test]
    fn a_severity_is_a_word_a_number_or_unknown() {
        let level = |fields: &str| {
            mine(&format!(r#"{{"event":{{"uid":"1"}},"sig":{{"id":"1"}}{fields}}}"#)).unwrap().rule.level
        };
        for (fields, want) in [
            ("", 7),
            (r#","sev":"BAD""#, 12),
            (r#","sev":3"#, 3),
            (r#","sev":100"#, 15),
            (r#","sev":"50""#, 8),
            (r#","sev":0.1"#, 1),
            (r#","sev":1e9"#, 15),
            (r#","sev":"strange""#, 7),
            (r#","sev":"bad","state":"Resolved""#, 0),
            (r#","sev":"bad","test":true"#, 0),
        ] {
            assert_eq!(level(fields), want, "{fields}");
        }
    }

    #[test]
    fn what_is_missing_is_named_by_the_fields_of_the_pipeline() {
        let faults = mine(r#"{"sig":{"id":[]},"ts":"yesterday","event":{"seq":1}}"#).unwrap_err();
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/event/uid", "/ts", "/sig/id"]);
        assert!(faults[0].detail.contains("makes an alert of the pipeline mine unique"));
    }

    #[test]
    fn a_mapping_that_names_nothing_is_refused_with_its_key() {
        for (text, key, why) in [
            ("[x]\nlevel = [\"a\"]", "/pipelines/x/id", "what makes an alert unique"),
            ("[x]\nid = [\"a..b\"]\nrule_id = [\"a\"]", "/pipelines/x/id", "no a dotted path"),
            ("[x]\nformat = \"suricat\"", "/pipelines/x/format", "there are alertmanager"),
            ("[x]\nformat = \"falco\"\ndefault_level = 17", "/pipelines/x/default_level", "from 0 to 16"),
            ("[x]\nformat = \"falco\"\nhighest = 0", "/pipelines/x/highest", "above 0"),
            (
                "[x]\nformat = \"falco\"\nobservables = { ip = [\"a\"] }",
                "/pipelines/x/observables/ip",
                "must be one of",
            ),
            ("[wazuh]\nformat = \"falco\"", "/pipelines/wazuh", "reserved"),
        ] {
            let faults = site(text).unwrap_err();
            let why = why.replace("no a", "is not a");
            assert!(
                faults.iter().any(|fault| fault.pointer == key && fault.detail.contains(&why)),
                "{text}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_pipeline_of_the_site_changes_a_ready_mapping() {
        let mappings =
            site("[falco]\ndefault_level = 9\nlevels = { notice = 2 }\n[other]\nformat = \"falco\"").unwrap();
        let raw = r#"{"uuid":"1","rule":"Shell","priority":"Notice","time":"2026-11-20T10:11:12Z","output":"x","hostname":"web-01"}"#;
        let of = |pipeline| parse(raw, &mappings, Some(pipeline)).unwrap();
        assert_eq!((of("falco").rule.level, of("other").rule.level), (2, 6));
        assert_eq!((of("other").pipeline.as_str(), of("other").rule.id.as_str()), ("other", "Shell"));
        assert_eq!(parse(raw, &mappings, None).unwrap().pipeline, "falco", "recognised");
    }

    proptest::proptest! {
        #[test]
        fn no_document_causes_a_panic(text in r#"\{("(event|sig|ts|sev|net|tags)":(\[\{"src":[0-9]{0,3}\}\]|\{"(uid|id)":("x"|[0-9e.]{1,5}|null)\}|-?[0-9]{1,20}|"[^"\\]{0,6}")){0,1}\}"#) {
            let _ = mine(&text);
        }
    }
}
