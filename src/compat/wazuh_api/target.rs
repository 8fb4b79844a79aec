//! What an active response is aimed at: the field of its `alert` that the action looks at by default, or
//! else its `arguments`, where callers of Wazuh before 4.2 put it.

use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Map, Value};

use crate::domain::action::Action;
use crate::domain::alert::TargetField;
use crate::domain::fault::Fault;
use crate::domain::formats::{AlertMappings, wazuh_observables};

/// Words that stand for nothing: the verb, and what Wazuh writes where there is no value.
const STAND_INS: [&str; 4] = ["add", "-", "null", ""];

/// The target of an active response, and the arguments that are left for the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Kind and value; absent where there is none.
    pub target: Option<(TargetKind, String)>,
    /// The arguments of the action.
    pub arguments: Vec<String>,
}

/// Finds what `action` is aimed at.
///
/// # Errors
/// If it needs a target and none is there, or the one that is there is not valid.
pub fn aim(
    action: &Action,
    alert: Option<&Map<String, Value>>,
    arguments: &[String],
    mappings: &AlertMappings,
) -> Result<Aim, Vec<Fault>> {
    let takes_none = |kind| action.target_kinds.contains(&kind);
    // A program of the site gets its arguments as they are; an action of Riposte's own would refuse words that stand for nothing.
    let is_own = action.script.is_none();
    let left = |taken: Option<usize>| {
        let kept = arguments
            .iter()
            .enumerate()
            .filter(|(index, text)| !is_own || (Some(*index) != taken && !stands_for_nothing(text)));
        kept.map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    let Some(field) = action.default_target.filter(|field| *field != TargetField::Host) else {
        return Ok(Aim { target: None, arguments: left(None) });
    };
    if let Some(alert) = alert {
        let text = serde_json::to_string(alert).map_err(|error| vec![Fault::at("/alert", error.to_string())])?;
        if let Some(found) = wazuh_observables(&text, mappings)?.target(field) {
            let invalid = |error: riposte_protocol::target::TargetError| vec![Fault::at("/alert", error.to_string())];
            let target = found.map_err(invalid)?;
            return Ok(Aim { target: Some((target.kind(), target.value().to_owned())), arguments: left(None) });
        }
    }
    match of_arguments(field.kind(), arguments) {
        Some((index, value)) => Ok(Aim { target: Some((field.kind(), value)), arguments: left(Some(index)) }),
        None if takes_none(TargetKind::None) => Ok(Aim { target: None, arguments: left(None) }),
        None => Err(vec![Fault::at("/alert/data", missing(action, field))]),
    }
}

/// A verb, a stand-in for no value, or one of Wazuh's remarks, such as `(from_the_server)`.
fn stands_for_nothing(text: &str) -> bool {
    STAND_INS.contains(&text) || (text.starts_with('(') && text.ends_with(')'))
}

/// The target in arguments of the form `[add] USER ADDRESS …`. An address and a path are recognised anywhere;
/// any text could be an account, so that counts in its own place only.
fn of_arguments(kind: TargetKind, arguments: &[String]) -> Option<(usize, String)> {
    let first = usize::from(arguments.first().is_some_and(|verb| verb == "add"));
    let mut given = arguments.iter().enumerate().skip(first).filter(|(_, text)| !stands_for_nothing(text));
    let found = match kind {
        TargetKind::Ip => given.find(|(_, text)| Target::parse(TargetKind::Ip, text).is_ok()),
        TargetKind::File => given.find(|(_, text)| text.starts_with('/')),
        TargetKind::User => given.next().filter(|(index, _)| *index == first),
        _ => None,
    };
    found.map(|(index, text)| (index, text.clone()))
}

fn missing(action: &Action, field: TargetField) -> String {
    let of_wazuh = match field {
        TargetField::SourceIp => "data.srcip",
        TargetField::DestinationIp => "data.dstip",
        TargetField::SourceUser => "data.srcuser",
        TargetField::DestinationUser => "data.dstuser",
        TargetField::FilePath => "syscheck.path",
        TargetField::ProcessId => "data.audit.pid",
        TargetField::Host => "agent",
    };
    format!("names no target: {} needs one, in {of_wazuh} of the alert", action.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::action::Catalogue;

    fn aimed(action: &str, alert: &Value, arguments: &[&str]) -> Result<(Option<String>, Vec<String>), Vec<Fault>> {
        let action = Catalogue::built_in().find(action).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let aim = aim(action, alert.as_object(), &arguments, &AlertMappings::default())?;
        Ok((aim.target.map(|(_, value)| value), aim.arguments))
    }

    #[test]
    fn a_target_is_taken_from_the_alert_or_else_from_the_arguments() {
        let ip = |value: &str| Some(value.to_owned());
        for (action, alert, arguments, target, left) in [
            ("firewall-drop", json!({"data": {"srcip": "203.0.113.7"}}), vec![], ip("203.0.113.7"), vec![]),
            (
                "firewall-drop",
                json!({"data": {"srcip": "::ffff:203.0.113.7"}}),
                vec!["output"],
                ip("203.0.113.7"),
                vec!["output"],
            ),
            (
                "netsh",
                json!({"data": {"win": {"eventdata": {"ipAddress": "203.0.113.8"}}}}),
                vec![],
                ip("203.0.113.8"),
                vec![],
            ),
            (
                "firewall-drop",
                json!({"data.srcip": "203.0.113.7"}),
                vec!["-", "null", "(from_the_server)", "(no_rule_id)"],
                ip("203.0.113.7"),
                vec![],
            ),
            (
                "firewall-drop",
                Value::Null,
                vec!["add", "-", "203.0.113.9", "output"],
                ip("203.0.113.9"),
                vec!["output"],
            ),
            ("firewall-drop", json!({"data": {}}), vec!["alice", "2001:db8::1"], ip("2001:db8::1"), vec!["alice"]),
            ("disable-account", json!({"data": {"dstuser": "mallory"}}), vec![], ip("mallory"), vec![]),
            ("disable-account", Value::Null, vec!["add", "mallory", "null"], ip("mallory"), vec![]),
            ("quarantine-file", json!({"syscheck": {"path": "/tmp/x"}}), vec![], ip("/tmp/x"), vec![]),
            ("restart-wazuh", Value::Null, vec!["null", "(from_the_server)", "(no_rule_id)"], None, vec![]),
            ("isolate-host", json!({"data": {"srcip": "203.0.113.7"}}), vec![], None, vec![]),
        ] {
            let left: Vec<String> = left.into_iter().map(str::to_owned).collect();
            assert_eq!(aimed(action, &alert, &arguments), Ok((target, left)), "{action} {alert} {arguments:?}");
        }
    }

    #[test]
    fn a_missing_or_invalid_target_is_named() {
        for (action, alert, arguments, word) in [
            ("firewall-drop", Value::Null, vec![], "data.srcip"),
            ("firewall-drop", json!({"data": {"srcip": "-"}}), vec!["-", "null"], "data.srcip"),
            ("firewall-drop", json!({"data": {"srcip": "1"}}), vec!["203.0.113.7"], "address"),
            ("firewall-drop", json!({"data": {"srcip": ["203.0.113.7"]}}), vec![], "data.srcip"),
            ("disable-account", json!({"data": {"srcip": "203.0.113.7"}}), vec!["-", "203.0.113.7"], "data.dstuser"),
        ] {
            let faults = aimed(action, &alert, &arguments).unwrap_err();
            assert!(faults[0].detail.contains(word), "{action} {alert} {arguments:?}: {faults:?}");
        }
    }
}
