//! Detects alerts about active responses. Riposte's agent writes to `active-responses.log` in
//! Wazuh's format, and Wazuh makes an alert of each line (rules 650 to 657). A policy that responds
//! to them would loop.

use super::document::Document;
use super::field::Field;
use crate::domain::alert::Rule;

/// Wazuh's rules for lines of `active-responses.log`.
const RULES: std::ops::RangeInclusive<u32> = 650..=657;
/// Group of these rules.
const GROUP: &str = "active_response";
/// The file that they are read from.
const LOG: &str = "active-responses.log";
/// The decoder of those lines. The one of plain lines, `ar_log`, reads what only Wazuh before 4.2 wrote.
const DECODER: &str = "ar_log_json";
/// Group and location that Riposte's agent writes for a command without an alert.
const RIPOSTE: &str = "riposte";

/// Whether an alert reports an active response of Riposte or Wazuh; their lines look alike.
pub(super) fn is_own(document: &Document, rule: &Rule) -> bool {
    let is_rule =
        rule.id.parse().is_ok_and(|id: u32| RULES.contains(&id)) && rule.groups.iter().any(|group| group == GROUP);
    let is_text = |path: &str, text: &str| document.at(path).and_then(Field::text).is_some_and(|own| own == text);
    // The sender of a log can write every field below `data`, but not which file Wazuh read it from.
    let is_of_log = || {
        let location = document.at("location").and_then(Field::text);
        location.is_some_and(|location| location.ends_with(LOG)) || rule.groups.iter().any(|group| group == GROUP)
    };
    is_rule || is_text("location", RIPOSTE) || is_text("decoder.name", DECODER) || is_of_log() && is_ours(document)
}

/// Whether `data.parameters.alert` is the placeholder for a command without an alert.
fn is_ours(document: &Document) -> bool {
    let location = document.at("data.parameters.alert.location").and_then(Field::text);
    let is_group = |groups: Field| match groups.items() {
        Some(items) => items.into_iter().filter_map(|(_, item)| item.text()).any(|group| group.trim() == RIPOSTE),
        // Wazuh joins the entries of a decoded list.
        None => groups.text().is_some_and(|groups| groups.split(',').any(|group| group.trim() == RIPOSTE)),
    };
    location.is_some_and(|location| location == RIPOSTE)
        || document.at("data.parameters.alert.rule.groups").is_some_and(is_group)
}

#[cfg(test)]
mod tests {
    use crate::domain::formats::{AlertMappings, parse};
    use serde_json::{Value, json};

    fn is_own_echo(change: impl FnOnce(&mut Value)) -> bool {
        let mut alert = json!({"timestamp": "2026-11-20T10:11:12Z", "id": "1", "agent": {"id": "001", "name": "h1"},
            "rule": {"id": "5763", "level": 10, "groups": ["sshd"]}, "data": {"srcip": "203.0.113.1"}});
        change(&mut alert);
        parse(&alert.to_string(), &AlertMappings::default(), None).unwrap().is_own_echo
    }

    #[test]
    fn reports_of_active_responses_are_distinguished_from_detections() {
        assert!(!is_own_echo(|_| ()));
        for id in 650..=657 {
            let rule = json!({"id": id.to_string(), "level": 3, "groups": ["ossec", "active_response"]});
            assert!(is_own_echo(|alert| alert["rule"] = rule), "{id}");
        }
        assert!(!is_own_echo(|alert| alert["rule"]["id"] = json!("651")), "the number alone may be a rule of the site");
        let group = json!({"id": "100651", "level": 3, "groups": ["active_response"]});
        assert!(!is_own_echo(|alert| alert["rule"] = group));
        assert!(is_own_echo(|alert| alert["decoder"] = json!({"name": "ar_log_json"})));
        for decoder in ["sshd", "ar_log"] {
            assert!(!is_own_echo(|alert| alert["decoder"] = json!({"name": decoder})), "{decoder}");
        }
        assert!(is_own_echo(|alert| alert["location"] = json!("riposte")));
        assert!(!is_own_echo(|alert| alert["location"] = json!("/var/log/riposte")));
        let parameters = |alert: Value| json!({"srcip": "203.0.113.1", "parameters": {"alert": alert}});
        for ours in [
            json!({"rule": {"groups": ["riposte"]}}),
            json!({"rule": {"groups": "ssh, riposte"}}),
            json!({"location": "riposte"}),
        ] {
            let change = |alert: &mut Value, location: &str| {
                alert["data"] = parameters(ours.clone());
                alert["location"] = json!(location);
            };
            assert!(is_own_echo(|alert| change(alert, "/var/ossec/logs/active-responses.log")), "{ours}");
            let group = json!(["sshd", "active_response"]);
            assert!(is_own_echo(|alert| {
                change(alert, "x");
                alert["rule"]["groups"] = group.clone();
            }));
            // A web server's log with `?parameters[alert][location]=riposte`.
            assert!(!is_own_echo(|alert| change(alert, "/var/log/nginx/access.json")), "{ours}");
            assert!(!is_own_echo(|alert| alert["data"] = parameters(ours.clone())), "{ours}");
        }
        for other in [json!({"rule": {"groups": ["ssh"]}}), json!({"rule": 3}), json!("riposte")] {
            assert!(!is_own_echo(|alert| alert["data"] = parameters(other.clone())), "{other}");
        }
    }
}
