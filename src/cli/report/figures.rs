//! Computes the figures of a report.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::collect::{Access, Collected, OfMonth};
use crate::cli::night::phrases::Actors;
use crate::domain::response::{Decision, EndReason, ResponseState};
use crate::views::columns::Millis;

/// A month for auditors.
#[derive(Debug, Serialize)]
pub struct MonthReport {
    /// The month, in UTC.
    pub month: String,
    /// Its first instant.
    pub since: String,
    /// The first instant after it.
    pub until: String,
    /// When the report was made.
    pub made_at: String,
    /// Who made it.
    pub made_by: String,
    /// What could not be known.
    pub unknown: Vec<String>,
    /// Number of responses that were decided in the month.
    pub decided: usize,
    /// The same by their state now.
    pub by_state: BTreeMap<&'static str, usize>,
    /// Responses that acted, by policy and action.
    pub blocks: Vec<BlockFigures>,
    /// Time from the decision, or the last approval, to the first verified effect.
    pub time_to_contain: ContainFigures,
    /// How the responses that acted have ended.
    pub undone: UndoneFigures,
    /// Decisions of people, by person.
    pub decisions: Vec<DecisionFigures>,
    /// What was spared, by policy and reason.
    pub spared: Vec<SparedFigures>,
    /// Who has access; null if the caller may not see it.
    pub access: Option<AccessReview>,
}

/// Responses that acted, of one policy by one action.
#[derive(Debug, Serialize)]
pub struct BlockFigures {
    /// Name of the policy; null: by hand.
    pub policy: Option<String>,
    /// Name of the action.
    pub action: String,
    /// Number of responses.
    pub responses: usize,
    /// Number of different targets.
    pub targets: usize,
    /// Their time to contain.
    pub time_to_contain: ContainFigures,
}

/// Quantiles of times, by nearest rank.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContainFigures {
    /// Number of responses with a verified effect.
    pub verified: usize,
    /// Number of responses that acted without one.
    pub unverified: usize,
    /// Milliseconds; null without a verified effect.
    pub p50_millis: Option<u64>,
    /// As above.
    pub p95_millis: Option<u64>,
    /// As above.
    pub p99_millis: Option<u64>,
}

/// How the responses that acted have ended.
#[derive(Debug, PartialEq, Serialize)]
pub struct UndoneFigures {
    /// Number of those that people lifted.
    pub by_people: usize,
    /// Number of those whose time was over.
    pub by_time: usize,
    /// Share of `by_people` in both, from 0 to 1; null without any.
    pub share_by_people: Option<f64>,
    /// Number of those that are still active.
    pub active: usize,
    /// The others, by reason.
    pub otherwise: BTreeMap<String, usize>,
}

/// Decisions of one person or program.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct DecisionFigures {
    /// Who.
    pub who: String,
    /// Number of approvals.
    pub approved: usize,
    /// Number of rejections.
    pub rejected: usize,
    /// Number of confirmations of responses that acted first.
    pub confirmed: usize,
    /// Number of responses that it let act without the approvals that they need.
    pub break_glass: usize,
}

/// What one guardrail spared of one policy.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct SparedFigures {
    /// Name of the policy; null: by hand.
    pub policy: Option<String>,
    /// The reason.
    pub reason: String,
    /// Number of responses.
    pub responses: usize,
}

/// Who has access when the report is made.
#[derive(Debug, Serialize)]
pub struct AccessReview {
    /// People who can log in, and those who could.
    pub people: Vec<PersonAccess>,
    /// API keys.
    pub keys: Vec<KeyAccess>,
}

/// A person's access.
#[derive(Debug, Serialize)]
pub struct PersonAccess {
    /// Login name.
    pub name: String,
    /// Role.
    pub role: &'static str,
    /// `enabled`, `temporary password`, `disabled` or `deleted`, with the time.
    pub state: String,
    /// Whether a login needs a one-time code.
    pub one_time_codes: bool,
    /// Last login; null: never.
    pub last_login: Option<Millis>,
}

/// A key's access.
#[derive(Debug, Serialize)]
pub struct KeyAccess {
    /// Public part.
    pub id: String,
    /// Purpose.
    pub name: String,
    /// Role.
    pub role: &'static str,
    /// The person that it belongs to; null: a program's.
    pub person: Option<String>,
    /// Creation time.
    pub created: Millis,
    /// Last use; null: never.
    pub last_used: Option<Millis>,
    /// End of its validity; null: until revoked.
    pub ends: Option<Millis>,
    /// Revocation time.
    pub revoked: Option<Millis>,
}

/// The figures of what was collected.
pub fn of(collected: Collected) -> MonthReport {
    let Collected { month, now, who, responses, access, actors, unknown } = collected;
    let acted: Vec<&OfMonth> = responses.iter().filter(|response| response.acted).collect();
    let mut by_state: BTreeMap<&'static str, usize> = ResponseState::ALL.map(|state| (state.as_str(), 0)).into();
    for response in &responses {
        *by_state.entry(response.row.state.as_str()).or_default() += 1;
    }
    MonthReport {
        month: month.to_string(),
        since: month.since().to_string(),
        until: month.until().to_string(),
        made_at: now.to_string(),
        made_by: who.principal,
        unknown,
        decided: responses.len(),
        by_state,
        blocks: blocks(&acted),
        time_to_contain: containment(acted.iter().map(|response| response.contained)),
        undone: undone(&acted),
        decisions: decisions(&responses, &actors),
        spared: spared(&responses),
        access: access.map(review),
    }
}

fn blocks(acted: &[&OfMonth]) -> Vec<BlockFigures> {
    let mut groups: BTreeMap<(Option<&String>, &str), Vec<&OfMonth>> = BTreeMap::new();
    for response in acted {
        groups.entry((response.row.policy.as_ref(), &response.row.action)).or_default().push(response);
    }
    let figures = groups.into_iter().map(|((policy, action), responses)| {
        let mut targets: Vec<_> =
            responses.iter().map(|response| (&response.row.target_kind, &response.row.target_value)).collect();
        targets.sort_unstable();
        targets.dedup();
        BlockFigures {
            policy: policy.cloned(),
            action: action.to_owned(),
            responses: responses.len(),
            targets: targets.len(),
            time_to_contain: containment(responses.iter().map(|response| response.contained)),
        }
    });
    let mut blocks: Vec<BlockFigures> = figures.collect();
    blocks.sort_by_key(|block| std::cmp::Reverse(block.responses));
    blocks
}

fn containment(times: impl Iterator<Item = Option<Duration>>) -> ContainFigures {
    let (mut known, mut unverified) = (Vec::new(), 0);
    for time in times {
        match time {
            Some(time) => known.push(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            None => unverified += 1,
        }
    }
    known.sort_unstable();
    // Nearest rank: the smallest time that at least so many percent do not exceed.
    let rank = |percent: usize| known.get((known.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    ContainFigures {
        verified: known.len(),
        unverified,
        p50_millis: rank(50),
        p95_millis: rank(95),
        p99_millis: rank(99),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share; no month has 2^52 responses")]
fn undone(acted: &[&OfMonth]) -> UndoneFigures {
    let (mut by_people, mut by_time, mut active) = (0_usize, 0_usize, 0);
    let mut otherwise: BTreeMap<String, usize> = BTreeMap::new();
    for OfMonth { row, .. } in acted {
        match row.reason.as_deref() {
            _ if row.state == ResponseState::Active => active += 1,
            Some(word) if word == EndReason::Lifted.as_str() => by_people += 1,
            Some(word) if word == EndReason::Elapsed.as_str() => by_time += 1,
            word => *otherwise.entry(word.unwrap_or(row.state.as_str()).to_owned()).or_default() += 1,
        }
    }
    let both = by_people + by_time;
    let share_by_people = (both > 0).then(|| by_people as f64 / both as f64);
    UndoneFigures { by_people, by_time, share_by_people, active, otherwise }
}

fn decisions(responses: &[OfMonth], actors: &Actors) -> Vec<DecisionFigures> {
    let mut by_whom: BTreeMap<String, DecisionFigures> = BTreeMap::new();
    let mut of = |principal: &str, count: &dyn Fn(&mut DecisionFigures)| {
        let who = actors.name(principal);
        let none = DecisionFigures { who: who.clone(), approved: 0, rejected: 0, confirmed: 0, break_glass: 0 };
        count(by_whom.entry(who).or_insert(none));
    };
    for OfMonth { row, decisions, .. } in responses {
        for decision in decisions {
            of(&decision.principal, &|figures| match decision.answer {
                Decision::Approve => figures.approved += 1,
                Decision::Reject => figures.rejected += 1,
                Decision::Confirm => figures.confirmed += 1,
            });
        }
        if let Some(principal) = &row.break_glass {
            of(principal, &|figures| figures.break_glass += 1);
        }
    }
    by_whom.into_values().collect()
}

fn spared(responses: &[OfMonth]) -> Vec<SparedFigures> {
    let mut counts: BTreeMap<(Option<&String>, &str), usize> = BTreeMap::new();
    for OfMonth { row, .. } in responses.iter().filter(|response| response.row.state == ResponseState::Spared) {
        *counts.entry((row.policy.as_ref(), row.reason.as_deref().unwrap_or("unknown"))).or_default() += 1;
    }
    let rows = counts.into_iter().map(|((policy, reason), responses)| SparedFigures {
        policy: policy.cloned(),
        reason: reason.to_owned(),
        responses,
    });
    let mut rows: Vec<SparedFigures> = rows.collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.responses));
    rows
}

fn review(access: Access) -> AccessReview {
    let people = access.people.into_iter().map(|user| {
        let state = match (user.deleted_at, user.disabled_at) {
            (Some(at), _) => format!("deleted {at}"),
            (None, Some(at)) => format!("disabled {at}"),
            (None, None) if user.must_change_password => "temporary password".to_owned(),
            (None, None) => "enabled".to_owned(),
        };
        PersonAccess {
            name: user.name,
            role: user.role.as_str(),
            state,
            one_time_codes: user.has_totp,
            last_login: user.last_login_at,
        }
    });
    let keys = access.keys.into_iter().map(|view| KeyAccess {
        id: view.key.id,
        name: view.key.name,
        role: view.key.role.as_str(),
        person: view.key.user,
        created: view.key.created_at,
        last_used: view.key.last_used_at,
        ends: view.key.expires_at,
        revoked: view.key.revoked_at,
    });
    AccessReview { people: people.collect(), keys: keys.collect() }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// The report of a month with one response of each kind, and names that an attacker chose.
    pub(in crate::cli::report) fn report() -> MonthReport {
        let who = json!({"principal": "user:alice", "kind": "user", "name": "alice", "role": "admin", "rights": [], "via": "key",
            "address": "127.0.0.1"});
        let of = |number: u64, policy: Option<&str>, state: &str, reason: Option<&str>, more: serde_json::Value| {
            let mut row = json!({"id": format!("r{number}"), "policy": policy, "action": "firewall-drop", "target_kind": "ip",
                "target_value": format!("203.0.113.{}", number % 3), "arguments": [], "agents": [], "state": state,
                "reason": reason, "detail": "", "requested_by": "policy:ssh", "note": "",
                "created_at": "2026-11-24T10:00:00.000Z", "one_shot": false});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            OfMonth {
                row: serde_json::from_value(row).unwrap(),
                acted: ["active", "ended"].contains(&state),
                contained: (number < 100).then(|| Duration::from_millis(number * 10)),
                decisions: Vec::new(),
            }
        };
        let none = json!({});
        let mut responses: Vec<OfMonth> =
            (1..=20).map(|number| of(number, Some("ssh"), "ended", Some("elapsed"), none.clone())).collect();
        responses.push(of(101, Some("ssh"), "ended", Some("lifted"), json!({"break_glass": "user:bob"})));
        responses.push(of(102, None, "active", None, none.clone()));
        responses.push(of(103, None, "ended", Some("<b>odd\u{202e}</b>"), none.clone()));
        responses.push(of(104, Some("<script>alert(1)</script>"), "spared", Some("protected"), none));
        let answer = |word: &str| {
            serde_json::from_value(
                json!({"principal": "user:bob", "answer": word, "reason": "", "at": "2026-11-24T10:00:00.000Z"}),
            )
            .unwrap()
        };
        responses[0].decisions = vec![answer("approve"), answer("confirm")];
        let user = json!({"name": "a\"><img src=x onerror=alert(1)>", "role": "viewer", "version": 1, "must_change_password": false,
            "has_totp": true, "created_at": "2026-11-24T10:00:00.000Z", "created_by": "riposte",
            "changed_at": "2026-11-24T10:00:00.000Z", "last_login_at": "2026-11-25T10:00:00.000Z"});
        let key = json!({"id": "k1", "name": "ci & co", "role": "ingest", "created_at": "2026-11-24T10:00:00.000Z",
            "created_by": "user:alice", "kind": "service", "expires_soon": false,
            "revoked_at": "2026-11-26T10:00:00.000Z"});
        of_parts(responses, serde_json::from_value(who).unwrap(), &user, &key)
    }

    fn of_parts(
        responses: Vec<OfMonth>,
        who: crate::views::auth::WhoAmI,
        user: &serde_json::Value,
        key: &serde_json::Value,
    ) -> MonthReport {
        let access = Access {
            people: vec![serde_json::from_value(user.clone()).unwrap()],
            keys: vec![serde_json::from_value(key.clone()).unwrap()],
        };
        super::of(Collected {
            month: "2026-11".parse().unwrap(),
            now: "2026-12-01T10:00:00.000Z".parse().unwrap(),
            who,
            responses,
            access: Some(access),
            actors: Actors::default(),
            unknown: vec!["No older response is stored.".to_owned()],
        })
    }

    #[test]
    fn a_month_is_counted() {
        insta::assert_snapshot!(crate::cli::terminal::escaped(&serde_json::to_string_pretty(&report()).unwrap()));
    }

    #[test]
    fn quantiles_are_nearest_ranks_and_absent_where_there_is_no_time() {
        let times = |range: std::ops::RangeInclusive<u64>| {
            let figures = containment(range.map(|millis| Some(Duration::from_millis(millis))));
            (figures.p50_millis, figures.p95_millis, figures.p99_millis)
        };
        assert_eq!(times(1..=100), (Some(50), Some(95), Some(99)));
        assert_eq!(times(7..=7), (Some(7), Some(7), Some(7)));
        assert_eq!(times(1..=20), (Some(10), Some(19), Some(20)));
        assert_eq!(
            containment([None, None].into_iter()),
            ContainFigures { unverified: 2, ..ContainFigures::default() }
        );
        assert_eq!(undone(&[]).share_by_people, None);
    }
}
