//! Alerts that report an active response. Wazuh reads `active-responses.log`, to which Riposte's agent writes in Wazuh's own
//! format, and makes an alert of each line (rules 650 to 657). A policy that answers those would answer itself without end.

use serde_json::value::RawValue;

use super::descend;
use super::field::Field;
use crate::domain::alert::Rule;

/// Wazuh's rules about lines of `active-responses.log`.
const RULES: std::ops::RangeInclusive<u32> = 650..=657;
/// Their group.
const GROUP: &str = "active_response";
/// The decoder of those lines. The one of plain lines, `ar_log`, reads what only Wazuh before 4.2 wrote.
const DECODER: &str = "ar_log_json";
/// What Riposte's agent writes where no alert stands behind a command: the group and the location.
const RIPOSTE: &str = "riposte";

/// Whether an alert reports an active response, by Riposte or by Wazuh: their lines look alike.
pub(super) fn is_own(
    rule: &Rule,
    data: Option<&RawValue>,
    decoder: Option<&RawValue>,
    location: Option<&RawValue>,
) -> bool {
    let is_rule =
        rule.id.parse().is_ok_and(|id: u32| RULES.contains(&id)) && rule.groups.iter().any(|group| group == GROUP);
    let is_text = |raw: Option<&RawValue>, texts: &[&str]| {
        raw.and_then(|raw| Field(raw).text()).is_some_and(|text| texts.contains(&&*text))
    };
    let is_decoder = || decoder.is_some_and(|decoder| is_text(descend(decoder, &["name"]), &[DECODER]));
    is_rule || is_text(location, &[RIPOSTE]) || is_decoder() || data.is_some_and(is_ours)
}

/// `data.parameters.alert` is what the agent wrote because no alert stood behind the command.
fn is_ours(data: &RawValue) -> bool {
    // Most alerts have no such field, and need not be taken apart for it.
    if !data.get().contains("parameters") {
        return false;
    }
    let Some(alert) = descend(data, &["parameters", "alert"]) else { return false };
    let location = descend(alert, &["location"]).and_then(|raw| Field(raw).text());
    let groups = descend(alert, &["rule", "groups"]).and_then(|raw| {
        let list = serde_json::from_str::<Vec<std::borrow::Cow<'_, str>>>(raw.get()).ok();
        // Wazuh joins the entries of a decoded list.
        list.or_else(|| Some(Field(raw).text()?.split(',').map(|group| group.trim().to_owned().into()).collect()))
    });
    location.is_some_and(|location| location == RIPOSTE)
        || groups.is_some_and(|groups| groups.iter().any(|group| group == RIPOSTE))
}

#[cfg(test)]
mod tests {
    use crate::domain::shapes::{Sources, parse};
    use serde_json::{Value, json};

    fn is_own_echo(change: impl FnOnce(&mut Value)) -> bool {
        let mut alert = json!({"timestamp": "2026-11-20T10:11:12Z", "id": "1", "agent": {"id": "001", "name": "h1"},
            "rule": {"id": "5763", "level": 10, "groups": ["sshd"]}, "data": {"srcip": "203.0.113.1"}});
        change(&mut alert);
        parse(&alert.to_string(), &Sources::default()).unwrap().is_own_echo
    }

    #[test]
    fn reports_of_active_responses_are_told_from_detections() {
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
            assert!(is_own_echo(|alert| alert["data"] = parameters(ours.clone())), "{ours}");
        }
        for other in [json!({"rule": {"groups": ["ssh"]}}), json!({"rule": 3}), json!("riposte")] {
            assert!(!is_own_echo(|alert| alert["data"] = parameters(other.clone())), "{other}");
        }
    }
}
