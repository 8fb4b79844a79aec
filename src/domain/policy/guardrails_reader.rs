//! Parses the guardrails of a policy, and the two parts of its response that limit it: `escalate` and
//! `waves`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::guardrails::{
    Approval, Breaker, DEFAULT_STOP_AT, Escalation, Guardrails, Limits, OnSilence, OverLimit, Percent, Rate, Threshold,
    Waves,
};
use crate::domain::duration::InvalidSpan;
use crate::domain::field_reader::{FieldReader, suggest};

/// Maximum window of a threshold; sightings are kept for this time.
const MAX_WINDOW: Duration = Duration::from_hours(24);
/// Maximum number of steps of a ladder.
const MAX_STEPS: usize = 16;
/// Fewer outcomes are not significant.
const DEFAULT_AT_LEAST: u32 = 10;
/// Long enough to see a pattern, short enough to ignore last week.
const DEFAULT_BREAKER_WITHIN: &str = "1h";

impl Guardrails {
    /// Parses the guardrails of a policy.
    pub(super) fn read(read: &mut FieldReader, policy: &Map<String, Value>) -> Self {
        Self {
            threshold: policy.get("threshold").and_then(|value| threshold(read, value)),
            limits: policy.get("limits").and_then(|value| limits(read, value)),
            breaker: policy.get("breaker").and_then(|value| breaker(read, value)),
            approval: policy.get("approval").and_then(|value| approval(read, value)),
        }
    }
}

fn threshold(read: &mut FieldReader, value: &Value) -> Option<Threshold> {
    const AT: &str = "/threshold";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["count", "within", "by"]);
    for key in ["count", "within"] {
        if !object.contains_key(key) {
            read.fault(format!("{AT}/{key}"), "is missing");
        }
    }
    let (count, within) = (read.count(object, AT, "count", 2..=10_000), read.span(object, AT, "within"));
    let by = object.get("by").and_then(|value| read.observable(value, "/threshold/by"));
    let within = within?;
    if within.duration() > MAX_WINDOW {
        read.fault(format!("{AT}/within"), "must be at most 24h");
    }
    Some(Threshold { count: count?, within, by })
}

fn limits(read: &mut FieldReader, value: &Value) -> Option<Limits> {
    const AT: &str = "/limits";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["responses", "targets", "agents_per_response", "fleet_share", "cooldown", "over_limit"]);
    let mut rate = |key: &str| {
        let text = read.text(object, AT, key)?;
        let rate = Rate::parse(&text);
        if rate.is_none() {
            read.fault(format!("{AT}/{key}"), "is not a rate such as \"60/1m\"");
        }
        rate
    };
    let (responses, targets) = (rate("responses"), rate("targets"));
    let agents_per_response = read.count(object, AT, "agents_per_response", 1..=1_000_000);
    let fleet_share = percent(read, object, AT, "fleet_share");
    let cooldown = read.span(object, AT, "cooldown");
    let over_limit = match read.text(object, AT, "over_limit").as_deref() {
        None | Some("approve") => OverLimit::Approve,
        Some("drop") => OverLimit::Drop,
        Some("observe") => OverLimit::Observe,
        Some(other) => {
            let words = ["approve", "drop", "observe"];
            read.fault("/limits/over_limit", suggest("must be approve, drop or observe", other, words));
            OverLimit::Approve
        }
    };
    Some(Limits { responses, targets, agents_per_response, fleet_share, cooldown, over_limit })
}

fn percent(read: &mut FieldReader, object: &Map<String, Value>, at: &str, key: &str) -> Option<Percent> {
    let text = read.text(object, at, key)?;
    let percent = Percent::parse(&text);
    if percent.is_none() {
        read.fault(format!("{at}/{key}"), "is not a share such as \"25%\", from 1% to 100%");
    }
    percent
}

fn breaker(read: &mut FieldReader, value: &Value) -> Option<Breaker> {
    const AT: &str = "/breaker";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["failed", "undone", "at_least", "within"]);
    if !object.contains_key("failed") && !object.contains_key("undone") {
        read.fault(AT, "needs failed or undone, a share such as \"50%\"");
    }
    let (failed, undone) = (percent(read, object, AT, "failed"), percent(read, object, AT, "undone"));
    let at_least = read.count(object, AT, "at_least", 1..=100_000).unwrap_or(DEFAULT_AT_LEAST);
    let within = match object.get("within") {
        Some(_) => read.span(object, AT, "within")?,
        None => DEFAULT_BREAKER_WITHIN.parse().ok()?,
    };
    Some(Breaker { failed, undone, at_least, within })
}

/// Parses `respond.waves`.
pub(super) fn waves(read: &mut FieldReader, value: &Value) -> Option<Waves> {
    const AT: &str = "/respond/waves";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["count", "over", "stop_at"]);
    for key in ["count", "over"] {
        if !object.contains_key(key) {
            read.fault(format!("{AT}/{key}"), "is missing");
        }
    }
    let (count, over) = (read.count(object, AT, "count", 2..=100), read.span(object, AT, "over"));
    let stop_at = if object.contains_key("stop_at") { percent(read, object, AT, "stop_at")? } else { DEFAULT_STOP_AT };
    Some(Waves { count: count?, over: over?, stop_at })
}

fn approval(read: &mut FieldReader, value: &Value) -> Option<Approval> {
    const AT: &str = "/approval";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["quorum", "within", "on_silence", "undo_unless_confirmed"]);
    let base = Approval::default();
    let quorum = read.count(object, AT, "quorum", 1..=100).unwrap_or(base.quorum);
    let within = read.span(object, AT, "within").unwrap_or(base.within);
    let on_silence = match read.text(object, AT, "on_silence").as_deref() {
        None | Some("reject") => OnSilence::Reject,
        Some("enforce") => OnSilence::Enforce,
        Some(other) => {
            read.fault("/approval/on_silence", suggest("must be reject or enforce", other, ["reject", "enforce"]));
            OnSilence::Reject
        }
    };
    let undo_unless_confirmed = read.span(object, AT, "undo_unless_confirmed");
    Some(Approval { quorum, within, on_silence, undo_unless_confirmed })
}

/// Parses `respond.escalate`.
pub(super) fn escalation(read: &mut FieldReader, value: &Value, has_duration: bool) -> Option<Escalation> {
    const AT: &str = "/respond/escalate";
    let object = read.object(value, AT)?;
    read.known(object, AT, &["ladder", "forget_after"]);
    if !has_duration {
        read.fault(AT, "needs respond.for, which is the first time");
    }
    let list = object.get("ladder").and_then(Value::as_array).filter(|list| (1..=MAX_STEPS).contains(&list.len()));
    let Some(list) = list else {
        read.fault(format!("{AT}/ladder"), format!("must be a list of 1 to {MAX_STEPS} durations"));
        return None;
    };
    let mut ladder = Vec::with_capacity(list.len());
    for (index, step) in list.iter().enumerate() {
        match step.as_str().and_then(|text| text.parse().ok()) {
            Some(span) => ladder.push(span),
            None => read.fault(format!("{AT}/ladder/{index}"), InvalidSpan.to_string()),
        }
    }
    if !object.contains_key("forget_after") {
        read.fault(format!("{AT}/forget_after"), "is missing");
    }
    let forget_after = read.span(object, AT, "forget_after")?;
    (ladder.len() == list.len()).then_some(Escalation { ladder, forget_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::Catalogue;
    use crate::domain::policy::Policy;
    use serde_json::json;

    fn policy(change: impl FnOnce(&mut Value)) -> Result<Policy, Vec<String>> {
        let mut document = json!({"name": "p", "mode": "approve", "match": [{"min_level": 3}],
            "respond": {"action": "firewall-drop", "target": "source.ip", "network": {"v4": 24, "v6": 64}, "on": "all",
                "waves": {"count": 5, "over": "10m", "stop_at": "20%"}, "for": "10m",
                "escalate": {"ladder": ["30m", "2h"], "forget_after": "7d"}},
            "threshold": {"count": 3, "within": "2m", "by": "source.ip"},
            "limits": {"responses": "60/1m", "targets": "200/1h", "agents_per_response": 50, "fleet_share": "10%", "cooldown": "30s", "over_limit": "drop"},
            "breaker": {"failed": "50%", "undone": "30%", "at_least": 20, "within": "2h"},
            "approval": {"quorum": 2, "within": "15m", "on_silence": "reject", "undo_unless_confirmed": "10m"}});
        change(&mut document);
        let policy = Policy::parse(&document, Catalogue::built_in())
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>())?;
        assert_eq!(serde_json::to_value(&policy).unwrap(), document);
        Ok(policy)
    }

    #[test]
    fn guardrails_survive_a_round_trip() {
        let policy = policy(|_| ()).unwrap();
        assert_eq!(policy.guardrails.limits.unwrap().responses.unwrap().count, 60);
    }

    #[test]
    fn every_fault_of_a_guardrail_has_a_pointer() {
        let faults = policy(|document| {
            document["threshold"] = json!({"count": 1, "by": "source.i"});
            document["limits"] = json!({"responses": "60", "targets": "0/1h", "agents_per_response": 0, "fleet_share": "101%", "over_limit": "dropp"});
            document["breaker"] = json!({"at_least": 0, "with": "1h"});
            document["approval"] = json!({"quorum": 0, "on_silence": "maybe"});
            document["respond"]["escalate"] = json!({"ladder": ["30m", "x"]});
            document["respond"]["network"] = json!({"v4": 15, "v6": 47});
            document["respond"]["waves"] = json!({"count": 1, "stop_at": "0%"});
        });
        let want = [
            "/respond/network/v4",
            "/respond/network/v6",
            "/respond/waves/over",
            "/respond/waves/count",
            "/respond/waves/stop_at",
            "/respond/escalate/ladder/1",
            "/respond/escalate/forget_after",
            "/threshold/within",
            "/threshold/count",
            "/threshold/by",
            "/limits/responses",
            "/limits/targets",
            "/limits/agents_per_response",
            "/limits/fleet_share",
            "/limits/over_limit",
            "/breaker/with",
            "/breaker",
            "/breaker/at_least",
            "/approval/quorum",
            "/approval/on_silence",
        ];
        assert_eq!(faults.unwrap_err(), want);
    }
}
