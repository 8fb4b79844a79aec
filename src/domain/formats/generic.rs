//! Parses alerts of the generic format, for pipelines other than Wazuh: nested objects with the
//! field names of policies.

use riposte_protocol::time::Timestamp;

use super::document::Document;
use super::field::Faults;
use super::observe::observables;
use super::{ObservableMappings, dedupe, wazuh};
use crate::domain::alert::{Alert, AlertAgent, TargetField};
use crate::domain::fault::Fault;

const fn known(field: TargetField) -> &'static [&'static str] {
    match field {
        TargetField::SourceIp => &["source.ip"],
        TargetField::DestinationIp => &["destination.ip"],
        TargetField::SourceUser => &["source.user"],
        TargetField::DestinationUser => &["destination.user"],
        TargetField::FilePath => &["file.path"],
        TargetField::ProcessId => &["process.id"],
        TargetField::Host => &[],
    }
}

/// Fields with the name or program of the process in `process.id`.
const PROCESS_NAMES: &[&str] = &["process.name", "process.executable"];

/// Parses a generic alert.
///
/// # Errors
/// All faults, each with a pointer to its field.
pub(super) fn read(document: &Document, mappings: &ObservableMappings) -> Result<Alert, Vec<Fault>> {
    let mut faults = Faults::default();
    let pipeline = faults.required_word("/pipeline", document.at("pipeline"));
    let pipeline_id = faults.required_word("/id", document.at("id"));
    if pipeline == wazuh::PIPELINE {
        // Otherwise a generic alert could take the id of a future Wazuh alert, and suppress it.
        faults.add("/pipeline", "`wazuh` is reserved for Wazuh's own alerts");
    }
    // A pipeline without event times: the time of receipt counts.
    let timed = document.at("time");
    let time = timed.map_or_else(Timestamp::default, |time| faults.time("/time", Some(time)));
    let rule = wazuh::rule(document, &mut faults);
    let agent = AlertAgent {
        id: faults.optional_word("/agent/id", document.at("agent.id")),
        name: faults.optional_word("/agent/name", document.at("agent.name")),
        ..AlertAgent::default()
    };
    let observables = observables(document, mappings, known, PROCESS_NAMES);
    faults.into_result(Alert {
        dedupe: dedupe(&[&pipeline, &pipeline_id]),
        pipeline,
        pipeline_id,
        time,
        is_timed: timed.is_some(),
        rule,
        agent,
        observables,
        ..Alert::default()
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::alert::Alert;
    use crate::domain::alert::{AlertAgent, TargetField};
    use crate::domain::fault::Fault;

    fn parse(raw: &str) -> Result<Alert, Vec<Fault>> {
        super::super::parse(raw, &super::super::AlertMappings::default(), None)
    }

    #[test]
    fn a_generic_alert_is_normalised() {
        let alert = parse(
            r#"{"pipeline":"suricata","id":"a1","time":"2026-11-20T10:11:12.345Z","rule":{"id":2001219,"level":9,"groups":["scan"],
               "description":"ET SCAN"},"agent":{"name":"web-01"},"source":{"ip":"203.0.113.7"},"destination":{"user":"alice"},"process":{"id":4711},"extra":1}"#,
        )
        .unwrap();
        assert_eq!(
            (alert.pipeline.as_str(), alert.pipeline_id.as_str(), alert.rule.id.as_str()),
            ("suricata", "a1", "2001219")
        );
        assert_eq!(alert.agent, AlertAgent { name: Some("web-01".into()), ..AlertAgent::default() });
        assert_eq!(alert.observables.target(TargetField::SourceIp).unwrap().unwrap().value(), "203.0.113.7");
        assert_eq!(alert.observables.target(TargetField::DestinationUser).unwrap().unwrap().value(), "alice");
        assert_eq!(alert.observables.target(TargetField::ProcessId).unwrap().unwrap().value(), "4711");
        assert_eq!(alert.observables.target(TargetField::SourceUser), None);
    }

    #[test]
    fn every_fault_of_an_alert_is_named_at_once() {
        let faults = parse(r#"{"pipeline":"x","id":"","time":"yesterday","rule":{"id":[],"level":17}}"#).unwrap_err();
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/id", "/time", "/rule/id", "/rule/level"]);
    }

    #[test]
    fn an_alert_without_a_time_happened_when_it_was_received() {
        let received = riposte_protocol::time::Timestamp::from_millis(7);
        for time in ["", r#""time":null,"#] {
            let raw = format!(r#"{{"pipeline":"x",{time}"id":"1","rule":{{"id":"1","level":1}}}}"#);
            assert_eq!(parse(&raw).unwrap().received(received).time, received);
        }
        let raw = r#"{"pipeline":"x","time":"2026-11-20T10:11:12Z","id":"1","rule":{"id":"1","level":1}}"#;
        assert_eq!(parse(raw).unwrap().received(received).time.as_millis(), 1_795_169_472_000);
    }

    #[test]
    fn a_generic_alert_cannot_pose_as_wazuh() {
        let faults =
            parse(r#"{"pipeline":"wazuh","id":"1","time":"2026-11-20T10:11:12Z","rule":{"id":"1","level":1}}"#);
        assert_eq!(faults.unwrap_err()[0].pointer, "/pipeline");
    }
}
