//! Decides one alert against all policies. A pure function: no clock, no I/O, independent of the
//! order of arrival. Duplicates and existing blocks are known only to the ledger, and settled at
//! commit.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::action::{Action, Catalogue};
use crate::domain::actor::Actor;
use crate::domain::agent::Agent;
use crate::domain::alert::{Alert, TargetField};
use crate::domain::duration::Span;
use crate::domain::effect::Until;
use crate::domain::expression::Failure;
use crate::domain::fleet::{Fleet, Origin};
use crate::domain::id::new_id;
use crate::domain::index::{Matched, PolicyIndex, VersionedPolicy};
use crate::domain::policy::{MaxAge, Mode, Network, Policy, Respond};
use crate::domain::protected::ProtectedSet;
use crate::domain::response::{NewResponse, Spared, Verdict};
use crate::store::ledger::guard::guards;

/// The input of a decision beside the alert.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Compiled policies.
    pub policies: &'a PolicyIndex,
    /// Known actions.
    pub actions: &'a Catalogue,
    /// Enrolled agents.
    pub fleet: &'a Fleet,
    /// Protected entries.
    pub protected: &'a ProtectedSet,
    /// Current time.
    pub now: Timestamp,
    /// Whether alerts can be too old.
    pub ages: Ages,
    /// W3C `traceparent` of the request.
    pub trace: Option<&'a str>,
}

/// How the age of an alert is judged.
#[derive(Clone, Copy, Debug)]
pub enum Ages {
    /// By the time of receipt, against the policy's limit or `max_age`.
    Judged {
        /// Time of receipt.
        received: Timestamp,
        /// Limit for policies without one.
        max_age: MaxAge,
    },
    /// Not at all: in a backtest all alerts are old.
    NotJudged,
}

/// The decision on one alert.
#[derive(Debug)]
pub struct Decided<'a> {
    /// One response per policy that fires, including spared and observed ones.
    pub responses: Vec<NewResponse>,
    /// Failed conditions, each with its policy.
    pub failed: Vec<(&'a VersionedPolicy, Failure)>,
}

/// Decides `alert`, stored as `id` with the text `raw`.
pub fn decide<'a>(id: Uuid, alert: &Alert, raw: &str, circumstances: Circumstances<'a>) -> Decided<'a> {
    let found = OnceCell::new();
    let origin = || found.get_or_init(|| circumstances.fleet.origin(&alert.agent));
    let from = || origin().agent().map(Arc::as_ref);
    let Matched { fired, failed } = circumstances.policies.matching(alert, raw, &from);
    let responses = fired.into_iter().map(|versioned| respond(id, alert, origin(), versioned, circumstances)).collect();
    Decided { responses, failed }
}

fn respond(
    id: Uuid,
    alert: &Alert,
    origin: &Origin,
    versioned: &VersionedPolicy,
    Circumstances { actions, fleet, protected, now, ages, trace, .. }: Circumstances,
) -> NewResponse {
    let VersionedPolicy { policy, version } = versioned;
    let Respond { action: name, target, network, on, waves, duration, arguments, escalate: _ } = &policy.respond;
    let protection = Protection { set: protected, policy: Some(&policy.name), now };
    let action = actions.find(name);
    let (target, not_aimed) = aim(alert, *target, *network, action.map(AsRef::as_ref), protection);
    let mut arguments = Cow::Borrowed(arguments);
    let (agents, unclear) = match fleet.select(on, origin, Some(&alert.agent)) {
        Ok(agents) => (agents, None),
        Err(why) => (Vec::new(), Some(Spared::AgentAmbiguous(why))),
    };
    let stopped = stale(alert, policy, ages).or(not_aimed).or(unclear);
    let kind = target.as_ref().map_or(TargetKind::None, Target::kind);
    let (able, spared) = match (stopped, action) {
        (Some(spared), _) => (agents, Some(spared)),
        (None, Some(action)) => match action.naming_process(&arguments, &alert.observables) {
            Some(named) => {
                arguments = Cow::Owned(named);
                able(agents, action, kind, protection)
            }
            None => (agents, Some(Spared::ProcessUnnamed)),
        },
        (None, None) => (agents, Some(Spared::ActionUnavailable(format!("action {name} was deleted")))),
    };
    let verdict = match (spared, policy.mode) {
        (Some(spared), _) => Verdict::Spare(spared),
        (None, Mode::Observe) => Verdict::Observe(None),
        (None, Mode::Enforce | Mode::Approve) => Verdict::Act,
    };
    NewResponse {
        id: new_id(now),
        alert: Some(id),
        policy: Some((policy.name.clone(), *version)),
        action: name.clone(),
        target,
        one_shot: action.is_some_and(|action| !action.undoable),
        is_urgent: false,
        waves: waves.clone(),
        fleet: fleet.len(),
        arguments: arguments.into_owned(),
        agents: able.iter().map(|agent| agent.id).collect(),
        until: duration.map_or(Until::Never, |span| Until::At(now.plus(span.duration()))),
        verdict,
        requested_by: Actor::Policy(policy.name.clone()),
        trace: trace.map(str::to_owned),
        duration: duration.map(Span::duration),
        counted: counted(alert, policy),
        guarded_by: guards(policy),
        mitre: alert.rule.techniques(),
        ..NewResponse::default()
    }
}

/// The verdict if the alert is too old for the policy.
fn stale(alert: &Alert, policy: &Policy, ages: Ages) -> Option<Spared> {
    let Ages::Judged { received, max_age } = ages else { return None };
    policy.max_age.unwrap_or(max_age).staleness(alert.time, received).map(Spared::Stale)
}

/// The value by which the policy's threshold counts this alert.
fn counted(alert: &Alert, policy: &Policy) -> String {
    let by = policy.guardrails.threshold.as_ref().and_then(|threshold| threshold.by);
    let target = by.and_then(|field| alert.observables.target(field)).and_then(Result::ok);
    target.map_or_else(String::new, |target| target.value().to_owned())
}

/// The protected entries for one policy at one time.
#[derive(Clone, Copy, Debug)]
pub struct Protection<'a> {
    /// Protected entries.
    pub set: &'a ProtectedSet,
    /// The policy that responds; `None` for a manual response.
    pub policy: Option<&'a str>,
    /// Current time.
    pub now: Timestamp,
}

impl Protection<'_> {
    /// Why no response may touch `target`, if so: it is always protected, or an operator has
    /// protected it.
    pub fn of(self, target: &Target) -> Option<Spared> {
        let always = target.always_protected().map(str::to_owned);
        let listed = || self.set.target(target, self.policy, self.now).map(|entry| reason(&entry.reason));
        always.or_else(listed).map(Spared::Protected)
    }
}

fn reason(reason: &str) -> String {
    format!("protected ({reason})")
}

/// The response's target, or the reason why it must not be used.
fn aim(
    alert: &Alert,
    field: Option<TargetField>,
    network: Option<Network>,
    action: Option<&Action>,
    protection: Protection,
) -> (Option<Target>, Option<Spared>) {
    let Some(field) = field else { return (Some(Target::none()), None) };
    let taken = |target: Target| action.map_or(Ok(()), |action| action.takes(&target)).map(|()| target);
    match alert.observables.target(field).map(|target| target.and_then(taken)) {
        None => (None, Some(Spared::TargetMissing)),
        Some(Err(error)) => (None, Some(Spared::TargetInvalid(error.to_string()))),
        Some(Ok(address)) => {
            let target = network.map_or_else(|| address.clone(), |network| widen(&address, network));
            let spared = protection.of(&target);
            (Some(target), spared)
        }
    }
}

/// The target of a response to `network` around `address`.
pub fn widen(address: &Target, network: Network) -> Target {
    let is_v6 = address.ip().is_some_and(|ip| ip.is_ipv6());
    let prefix = if is_v6 { network.v6 } else { network.v4 };
    prefix.map_or_else(|| address.clone(), |prefix| address.widened(prefix))
}

/// Agents that may run `action` on a target of `kind`: not protected, and not known to lack the
/// capability. Otherwise the reason why there are none.
pub fn able(
    agents: Vec<Arc<Agent>>,
    action: &Action,
    kind: TargetKind,
    protection: Protection,
) -> (Vec<Arc<Agent>>, Option<Spared>) {
    let mut why_not = Spared::AgentUnknown;
    let mut able = Vec::with_capacity(agents.len());
    for agent in agents {
        match unable(&agent, action, kind, &protection) {
            Some(why) => why_not = why,
            None => able.push(agent),
        }
    }
    let spared = able.is_empty().then_some(why_not);
    (able, spared)
}

/// Why an agent may not run `action` on a target of `kind`; `None` if it may.
pub fn unable(agent: &Agent, action: &Action, kind: TargetKind, protection: &Protection) -> Option<Spared> {
    let Protection { set, policy, now } = *protection;
    if let Some(entry) = set.agent(agent.id, kind, policy, now) {
        return Some(Spared::Protected(reason(&entry.reason)));
    }
    agent.cannot(action).map(|why| Spared::ActionUnavailable(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::policy::Policy;
    use riposte_protocol::message::Capability;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn agent(name: &str, capabilities: Vec<Capability>) -> Agent {
        Agent {
            id: Uuid::from_u128(u128::from(name.len() as u64)),
            name: name.into(),
            key: crate::domain::agent_key::AgentKey::first(
                riposte_protocol::key::SigningKey::from_seed(&[7; 32]).unwrap().verifying_key(),
                riposte_protocol::time::Timestamp::from_millis(0),
            ),
            labels: std::collections::BTreeMap::new(),
            version: String::new(),
            capabilities,
            revoked_at: None,
        }
    }

    fn decided(policy: Value, data: Value, agents: Vec<Agent>) -> NewResponse {
        decided_at(policy, data, agents, Duration::ZERO)
    }

    #[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
    fn decided_at(policy: Value, data: Value, agents: Vec<Agent>, age: Duration) -> NewResponse {
        let actions = Catalogue::built_in();
        let policy = Policy::parse(&policy, actions).unwrap();
        let policies = PolicyIndex::compile(vec![Arc::new(VersionedPolicy { policy: Arc::new(policy), version: 3 })]);
        let raw = json!({"timestamp": "2026-11-20T10:11:12Z", "id": "1", "agent": {"id": "005", "name": "web-01"},
            "rule": {"id": "5763", "level": 10}, "data": data});
        let alert =
            crate::domain::formats::parse(&raw.to_string(), &crate::domain::formats::AlertMappings::default(), None)
                .unwrap();
        let fleet = Fleet::new(agents);
        let now = Timestamp::from_millis(1_000_000);
        let protected = ProtectedSet::default();
        let circumstances = Circumstances {
            policies: &policies,
            actions,
            fleet: &fleet,
            protected: &protected,
            now,
            ages: Ages::Judged { received: alert.time.plus(age), max_age: "1h".parse().unwrap() },
            trace: None,
        };
        decide(Uuid::from_u128(1), &alert, &raw.to_string(), circumstances).responses.remove(0)
    }

    fn drop_policy(mode: &str) -> Value {
        json!({"name": "p", "mode": mode, "match": [{"rule_ids": ["5763"]}], "respond": {"action": "firewall-drop", "for": "10m"}})
    }

    #[test]
    fn a_matching_alert_gets_a_response_on_its_agent() {
        let response =
            decided(drop_policy("enforce"), json!({"srcip": "::ffff:203.0.113.7"}), vec![agent("web-01", vec![])]);
        assert_eq!(response.verdict, Verdict::Act);
        assert_eq!(response.target.unwrap().value(), "203.0.113.7");
        assert_eq!((response.policy, response.agents.len()), (Some(("p".into(), 3)), 1));
        assert_eq!(response.until, Until::At(Timestamp::from_millis(1_600_000)));
    }

    #[test]
    fn observing_changes_nothing_but_the_verdict() {
        let data = json!({"srcip": "203.0.113.7"});
        let observed = decided(drop_policy("observe"), data.clone(), vec![agent("web-01", vec![])]);
        let enforced = decided(drop_policy("enforce"), data, vec![agent("web-01", vec![])]);
        assert_eq!(observed.verdict, Verdict::Observe(None));
        assert_eq!(
            (observed.target, observed.agents, observed.until),
            (enforced.target, enforced.agents, enforced.until)
        );
    }

    #[test]
    fn a_policys_max_age_overrides_the_configuration() {
        let hours = |hours| Duration::from_hours(hours);
        let verdict = |max_age: Option<&str>, age: Duration| {
            let mut policy = drop_policy("enforce");
            if let Some(max_age) = max_age {
                policy["max_age"] = json!(max_age);
            }
            let response = decided_at(policy, json!({"srcip": "203.0.113.7"}), vec![agent("web-01", vec![])], age);
            // A spared response still shows its target and agents.
            assert_eq!((response.target.unwrap().value(), response.agents.len()), ("203.0.113.7", 1));
            response.verdict
        };
        let stale = |verdict| matches!(verdict, Verdict::Spare(Spared::Stale(_)));
        assert!(stale(verdict(None, hours(2))) && verdict(None, hours(1)) == Verdict::Act);
        assert_eq!(verdict(Some("3h"), hours(2)), Verdict::Act);
        assert_eq!(verdict(Some("none"), hours(9000)), Verdict::Act);
        assert!(stale(verdict(Some("30m"), hours(1))));
    }

    #[test]
    fn a_process_is_killed_by_number_and_name_and_never_by_number_alone() {
        let policy = |arguments: Value| json!({"name": "p", "match": [{"rule_ids": ["5763"]}], "respond": {"action": "kill-process", "arguments": arguments}});
        let decide = |arguments: Value, audit: Value| {
            decided(policy(arguments), json!({"audit": audit}), vec![agent("web-01", vec![])])
        };
        let alone = decide(json!([]), json!({"pid": "4711"}));
        assert_eq!(alone.verdict, Verdict::Spare(Spared::ProcessUnnamed));
        let by_alert = decide(json!([]), json!({"pid": "4711", "exe": "/usr/bin/nc"}));
        assert_eq!((by_alert.verdict, by_alert.arguments), (Verdict::Act, vec!["name=nc".to_owned()]));
        let by_policy = decide(json!(["path=/bin/nc"]), json!({"pid": "4711"}));
        assert_eq!((by_policy.verdict, by_policy.arguments), (Verdict::Act, vec!["path=/bin/nc".to_owned()]));
    }

    #[test]
    fn a_spared_response_has_the_reason_that_stopped_it() {
        let unable =
            Capability { action: "firewall-drop".into(), available: false, reason: Some("nft not found".into()) };
        let reason = |data: Value, agents: Vec<Agent>| match decided(drop_policy("enforce"), data, agents).verdict {
            Verdict::Spare(spared) => spared.reason(),
            other => panic!("{other:?}"),
        };
        let good = json!({"srcip": "203.0.113.7"});
        assert_eq!(reason(good.clone(), vec![agent("other", vec![])]), "agent_unknown");
        let other = || Agent { labels: [("wazuh_id".to_owned(), "005".to_owned())].into(), ..agent("other", vec![]) };
        assert_eq!(reason(good.clone(), vec![other()]), "agent_ambiguous");
        assert_eq!(reason(good, vec![agent("web-01", vec![unable])]), "action_unavailable");
        let here = || vec![agent("web-01", vec![])];
        assert_eq!(reason(json!({}), here()), "target_missing");
        assert_eq!(reason(json!({"srcip": "0177.1"}), here()), "target_invalid");
        assert_eq!(reason(json!({"srcip": "::ffff:127.0.0.1"}), here()), "protected");
    }
}
