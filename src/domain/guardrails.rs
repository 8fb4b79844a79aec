//! The rules of guardrails, as pure functions: which limit a response exceeds, and what becomes of it
//! then. The store counts in the ledger (`src/store/ledger/guard.rs`), a backtest counts along the alerts'
//! own times; both judge by these.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::policy::{Escalation, Limits, Mode, OverLimit, Policy, Threshold};
use super::response::Spared;

/// What limits are judged by. A count whose limit is not set is not read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitCounts {
    /// Agents of the response.
    pub agents: usize,
    /// All enrolled agents.
    pub fleet: usize,
    /// Responses of the policy on the same target within the cooldown.
    pub on_target: u64,
    /// Responses of the policy within the window of `responses`.
    pub responses: u64,
    /// Other targets of the policy within the window of `targets`.
    pub other_targets: u64,
}

/// What becomes of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is carried out, or recorded as observed where the policy observes.
    Act,
    /// It is recorded only; the text says why.
    Observe(&'static str),
    /// It waits for approval.
    Ask,
    /// It is spared.
    Spare(Spared),
}

impl Threshold {
    /// Whether `seen` alerts within the window are enough.
    pub fn is_reached(&self, seen: u64) -> bool {
        seen >= u64::from(self.count)
    }
}

impl Limits {
    /// The first limit that the response exceeds, the cooldown first.
    pub fn exceeded(&self, counts: &LimitCounts) -> Option<Spared> {
        let is_full =
            |limit: Option<super::policy::Rate>, count: u64| limit.is_some_and(|rate| count >= u64::from(rate.count));
        if self.cooldown.is_some() && counts.on_target > 0 {
            Some(Spared::Cooldown)
        } else if self.agents_per_response.is_some_and(|most| counts.agents > most as usize) {
            Some(Spared::OverLimit("agents_per_response"))
        } else if self.is_over_share(counts.agents, counts.fleet) {
            Some(Spared::OverLimit("fleet_share"))
        } else if is_full(self.responses, counts.responses) {
            Some(Spared::OverLimit("responses"))
        } else if is_full(self.targets, counts.other_targets) {
            Some(Spared::OverLimit("targets"))
        } else {
            None
        }
    }
}

/// What becomes of a response of `policy` that exceeds the limit `over`, or none. `observes`: it would only be recorded anyway.
pub fn rule(policy: &Policy, over: Option<Spared>, observes: bool) -> Ruling {
    let over_limit = policy.guardrails.limits.as_ref().map(|limits| limits.over_limit).unwrap_or_default();
    match (over, over_limit) {
        (Some(Spared::Cooldown), _) => Ruling::Spare(Spared::Cooldown),
        (Some(spared), OverLimit::Drop) => Ruling::Spare(spared),
        (Some(_), OverLimit::Observe) => Ruling::Observe("over a limit of the policy, which is set to observe"),
        (Some(_), OverLimit::Approve) if observes => {
            Ruling::Observe("over a limit of the policy: it would have waited for approval")
        }
        (Some(_), OverLimit::Approve) => Ruling::Ask,
        (None, _) if policy.mode == Mode::Approve && !observes => Ruling::Ask,
        (None, _) => Ruling::Act,
    }
}

/// How long a response to a repeated target lasts, and the number of its offences. `known` is the number so far and the time of
/// the last one. While a response of the policy is in force there (`stands`), a further alert is the same offence.
pub fn escalate(
    escalation: &Escalation,
    first: Duration,
    known: Option<(i64, Timestamp)>,
    stands: bool,
    now: Timestamp,
) -> (Duration, i64) {
    let is_remembered = |last: Timestamp| last.plus(escalation.forget_after.duration()) > now;
    let total = known.filter(|(_, last)| is_remembered(*last)).map_or(0, |(count, _)| count);
    let before = if stands { (total - 1).max(0) } else { total };
    (escalation.duration(first, u32::try_from(before).unwrap_or(u32::MAX)), before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::Catalogue;
    use serde_json::{Value, json};

    fn policy(part: &Value) -> Policy {
        let mut document = json!({"name": "p", "match": [{"min_level": 12}],
            "respond": {"action": "firewall-drop", "for": "10m"}});
        for (key, value) in part.as_object().unwrap() {
            document[key] = value.clone();
        }
        Policy::parse(&document, Catalogue::built_in()).unwrap()
    }

    #[test]
    fn the_first_exceeded_limit_counts_and_each_is_judged_at_its_bound() {
        let policy = policy(&json!({"limits": {"cooldown": "1m", "agents_per_response": 2, "responses": "3/1h",
            "targets": "4/1h", "over_limit": "drop"}}));
        let limits = policy.guardrails.limits.as_ref().unwrap();
        let within = LimitCounts { agents: 2, fleet: 100, on_target: 0, responses: 2, other_targets: 3 };
        assert_eq!(limits.exceeded(&within), None);
        for (counts, over) in [
            (LimitCounts { on_target: 1, agents: 9, ..within }, Spared::Cooldown),
            (LimitCounts { agents: 3, responses: 9, ..within }, Spared::OverLimit("agents_per_response")),
            (LimitCounts { responses: 3, other_targets: 9, ..within }, Spared::OverLimit("responses")),
            (LimitCounts { other_targets: 4, ..within }, Spared::OverLimit("targets")),
        ] {
            assert_eq!(limits.exceeded(&counts), Some(over));
        }
    }

    #[test]
    fn over_a_limit_the_policy_says_what_becomes_of_it() {
        let over = || Some(Spared::OverLimit("responses"));
        for (over_limit, enforced, observed) in [
            ("drop", Ruling::Spare(Spared::OverLimit("responses")), Ruling::Spare(Spared::OverLimit("responses"))),
            (
                "observe",
                Ruling::Observe("over a limit of the policy, which is set to observe"),
                Ruling::Observe("over a limit of the policy, which is set to observe"),
            ),
            ("approve", Ruling::Ask, Ruling::Observe("over a limit of the policy: it would have waited for approval")),
        ] {
            let policy = policy(&json!({"limits": {"responses": "1/1h", "over_limit": over_limit}}));
            assert_eq!(rule(&policy, over(), false), enforced, "{over_limit}");
            assert_eq!(rule(&policy, over(), true), observed, "{over_limit}");
            assert_eq!(rule(&policy, Some(Spared::Cooldown), false), Ruling::Spare(Spared::Cooldown));
            assert_eq!(rule(&policy, None, false), Ruling::Act);
        }
        let asks = policy(&json!({"mode": "approve"}));
        assert_eq!((rule(&asks, None, false), rule(&asks, None, true)), (Ruling::Ask, Ruling::Act));
    }
}
