//! Warnings about a policy: reasons why it, or a part of it, can never have an effect, and secrets in it that stand in clear.

use super::definition::{Mode, On, Policy, Selector};
use super::guardrails::OverLimit;
use crate::domain::action::Catalogue;
use crate::domain::action::hidden::is_in_clear;
use crate::domain::fault::Fault;

impl Policy {
    /// Whether an argument is a secret that stands in clear.
    pub fn has_secret_in_clear(&self) -> bool {
        self.respond.arguments.iter().any(|argument| is_in_clear(&self.respond.action, argument))
    }

    /// Warnings: parts of the policy that can never have an effect, and secrets in clear.
    pub fn warnings(&self) -> Vec<Fault> {
        let mut warnings = Vec::new();
        if self.selectors.is_empty() {
            warnings.push(Fault::at("/match", "has no selector, so the policy never matches"));
        }
        for (index, selector) in self.selectors.iter().enumerate() {
            of_selector(selector, &format!("/match/{index}"), &mut warnings);
        }
        let never = |selector: &Selector| {
            let mut why = Vec::new();
            of_selector(selector, "", &mut why);
            why.iter().any(|warning| warning.detail.contains("never matches"))
        };
        if !self.selectors.is_empty() && self.selectors.iter().all(never) {
            warnings.push(Fault::at("/match", "has no selector that can match, so the policy never matches"));
        }
        of_response(self, &mut warnings);
        warnings
    }
}

fn of_selector(selector: &Selector, at: &str, warnings: &mut Vec<Fault>) {
    if selector.is_empty() {
        warnings.push(Fault::at(at, "has no condition, so it never matches; write min_level: 1 for every alert"));
    }
    if let (Some(min), Some(max)) = (selector.min_level, selector.max_level)
        && min > max
    {
        warnings.push(Fault::at(format!("{at}/max_level"), "is below min_level, so the selector never matches"));
    }
    if selector.max_level == Some(0) {
        let detail = "alerts of level 0 fire nothing, so the selector never matches";
        warnings.push(Fault::at(format!("{at}/max_level"), detail));
    }
    let odd = |id: &String| !is_technique(id);
    if selector.mitre.iter().any(odd) {
        let suffix = if selector.mitre.iter().all(odd) { ", so the selector never matches" } else { "" };
        let detail = format!("names something that is not a technique such as T1110 or T1110.001{suffix}");
        warnings.push(Fault::at(format!("{at}/mitre"), detail));
    }
    let agents = &selector.agents;
    if let Some(not) = agents.not.as_ref().filter(|not| !not.is_empty())
        && agents.is_within(not)
    {
        let detail = "leaves out every agent that agents takes, so the selector never matches";
        warnings.push(Fault::at(format!("{at}/agents/not"), detail));
    }
}

/// `T` and four digits, optionally a dot and three more.
fn is_technique(id: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let (technique, sub) = id.split_once('.').map_or((id, None), |(technique, sub)| (technique, Some(sub)));
    technique.strip_prefix('T').is_some_and(|number| digits(number, 4)) && sub.is_none_or(|sub| digits(sub, 3))
}

fn of_response(policy: &Policy, warnings: &mut Vec<Fault>) {
    let guardrails = &policy.guardrails;
    let action = Catalogue::built_in().find(&policy.respond.action);
    if action.is_some_and(|action| !action.is_process_named(&policy.respond.arguments)) {
        let detail = "have neither name= nor path=, so the response to an alert that does not name its process is spared: a \
                      number alone may be another process's by then";
        warnings.push(Fault::at("/respond/arguments", detail));
    }
    for (index, argument) in policy.respond.arguments.iter().enumerate() {
        if is_in_clear(&policy.respond.action, argument) {
            let detail = "is the address of a webhook in clear: store it as a secret, and write secret:NAME";
            warnings.push(Fault::at(format!("/respond/arguments/{index}"), detail));
        }
    }
    if let (Some(waves), Some(duration)) = (&policy.respond.waves, policy.respond.duration)
        && waves.over.duration() >= duration.duration()
    {
        let detail = "is not shorter than respond.for, so the last waves never go out";
        warnings.push(Fault::at("/respond/waves/over", detail));
    }
    let named = if let On::Agents(agents) = &policy.respond.on { agents.len() } else { 0 };
    let most = guardrails.limits.as_ref().and_then(|limits| limits.agents_per_response);
    if most.is_some_and(|most| named > most as usize) {
        let detail = "is less than the agents that respond.on names, so every response is over the limit";
        warnings.push(Fault::at("/limits/agents_per_response", detail));
    }
    if let Some(approval) = &guardrails.approval {
        let asks = policy.mode == Mode::Approve
            || approval.undo_unless_confirmed.is_some()
            || guardrails.limits.as_ref().is_some_and(|limits| limits.over_limit == OverLimit::Approve);
        if !asks {
            let detail = "is never asked for: the mode is not approve, and no limit leads to it";
            warnings.push(Fault::at("/approval", detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::action::Catalogue;
    use crate::domain::policy::Policy;
    use serde_json::{Value, json};

    fn warnings(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut document = json!({"name": "a", "match": [{"min_level": 3}], "respond": {"action": "log-only"}});
        change(&mut document);
        let policy = Policy::parse(&document, Catalogue::built_in()).unwrap();
        policy.warnings().into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
    }

    #[test]
    fn a_policy_that_can_never_match_has_a_warning() {
        let of = |selectors: Value| warnings(|document| document["match"] = selectors);
        assert_eq!(of(json!([{"min_level": 3}])), Vec::<String>::new());
        assert_eq!(of(json!([])), ["/match has no selector, so the policy never matches"]);
        let never = "/match has no selector that can match, so the policy never matches";
        let empty = "has no condition, so it never matches; write min_level: 1 for every alert";
        assert_eq!(of(json!([{"min_level": 3}, {}])), [format!("/match/1 {empty}")]);
        assert_eq!(of(json!([{}])), [format!("/match/0 {empty}"), never.to_owned()]);
        let below = "/match/0/max_level is below min_level, so the selector never matches";
        assert_eq!(of(json!([{"min_level": 3, "max_level": 2}])), [below, never]);
        let technique = "/match/0/mitre names something that is not a technique such as T1110 or T1110.001";
        assert_eq!(of(json!([{"mitre": ["T1110.001", "TA0001"]}])), [technique]);
        assert_eq!(of(json!([{"mitre": ["brute"]}]))[0], format!("{technique}, so the selector never matches"));
        let out = "/match/0/agents/not leaves out every agent that agents takes, so the selector never matches";
        assert_eq!(
            of(json!([{"min_level": 1, "agents": {"ids": ["5"], "not": {"ids": ["005", "006"]}}}])),
            [out, never]
        );
        let labels =
            json!([{"min_level": 1, "agents": {"labels": {"env": "prod"}, "not": {"labels": {"env": "prod"}}}}]);
        assert_eq!(of(labels), [out, never]);
    }

    #[test]
    fn a_part_without_effect_has_a_warning() {
        let late = warnings(|document| {
            document["respond"] =
                json!({"action": "firewall-drop", "on": "all", "for": "5m", "waves": {"count": 2, "over": "5m"}});
        });
        assert_eq!(late, ["/respond/waves/over is not shorter than respond.for, so the last waves never go out"]);
        let unnamed = warnings(|document| document["respond"] = json!({"action": "kill-process"}));
        assert!(unnamed[0].starts_with("/respond/arguments have neither name= nor path="), "{unnamed:?}");
        let named = json!({"action": "kill-process", "arguments": ["name=nc"]});
        assert!(warnings(|document| document["respond"] = named).is_empty());
        let narrow = warnings(|document| {
            document["respond"] = json!({"action": "firewall-drop", "on": {"agents": ["a", "b"]}});
            document["limits"] = json!({"agents_per_response": 1});
        });
        assert!(narrow[0].starts_with("/limits/agents_per_response is less than the agents"));
        assert!(
            warnings(|document| document["approval"] = json!({"quorum": 2}))[0]
                .starts_with("/approval is never asked for")
        );
        assert!(warnings(|document| document["mode"] = json!("approve")).is_empty());
    }
}
