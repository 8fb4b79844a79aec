//! Tests of the outcome rules: per agent with its reason, and in total.

use proptest::prelude::*;

use super::*;

const HELD: HoldFacts = HoldFacts {
    desired: Desired::InForce,
    actual: Actual::Unknown,
    last_apply: None,
    under_way: Some(CommandState::Queued),
    is_revoked: false,
    released: None,
};

fn let_go(left_as: LeftAs) -> HoldFacts {
    let released = Some(Released { left_as, is_same: true });
    HoldFacts { desired: Desired::Absent, actual: Actual::InForce, under_way: None, released, ..HELD }
}

fn said(facts: HoldFacts, telling: &Telling<'_>) -> (AgentOutcome, String) {
    (of_agent(&facts), words(&facts, telling).unwrap_or_default())
}

#[test]
fn each_agent_has_its_outcome_and_its_reason() {
    let reason = "the target is protected: an address of this host";
    let away = Telling {
        reason,
        presence: Some(Presence::Away),
        away_since: Some("2026-11-24T10:00:00Z".parse().unwrap()),
        ..Telling::default()
    };
    let here = Telling { presence: Some(Presence::Streaming), ..away.clone() };
    let over = |actual, last_apply| HoldFacts { actual, last_apply: Some(last_apply), under_way: None, ..HELD };
    let table = [
        (HELD, &away, AgentOutcome::Pending, "queued: the agent is away since 2026-11-24T10:00:00.000Z"),
        (HELD, &here, AgentOutcome::Pending, "queued: not sent yet"),
        (over(Actual::InForce, LastApply::Verified), &here, AgentOutcome::InForce, ""),
        (
            over(Actual::Unknown, LastApply::Unverified),
            &here,
            AgentOutcome::InForce,
            "unverified: reported by the program, and cannot be verified",
        ),
        (
            over(Actual::Absent, LastApply::Refused),
            &here,
            AgentOutcome::Failed,
            "refused: the target is protected: an address of this host",
        ),
        (
            over(Actual::Unknown, LastApply::Observed),
            &here,
            AgentOutcome::Failed,
            "observed: the target is protected: an address of this host",
        ),
        (
            HoldFacts { is_revoked: true, ..over(Actual::InForce, LastApply::Verified) },
            &here,
            AgentOutcome::Failed,
            "revoked: the state on that agent is unknown",
        ),
        (let_go(LeftAs::InForce), &here, AgentOutcome::InForce, "being lifted: the revert is on its way"),
        (HoldFacts { actual: Actual::Absent, ..let_go(LeftAs::InForce) }, &here, AgentOutcome::Lifted, ""),
        (
            let_go(LeftAs::Never(LastApply::Expired)),
            &here,
            AgentOutcome::Failed,
            "expired: the target is protected: an address of this host",
        ),
    ];
    for (facts, telling, outcome, reason) in table {
        assert_eq!(said(facts, telling), (outcome, reason.to_owned()), "{facts:?}");
    }
    let held = HoldFacts { desired: Desired::InForce, ..let_go(LeftAs::InForce) };
    let holder = Telling { holder: Some("response 7 of policy drop".into()), ..Telling::default() };
    let words = "lifted here; still held by response 7 of policy drop".to_owned();
    assert_eq!(said(held, &holder), (AgentOutcome::Lifted, words));
}

#[test]
fn a_responses_outcome_follows_from_its_agents() {
    let counts = |in_force, pending, failed, lifted| OutcomeCounts { in_force, pending, failed, lifted };
    let active = |counts| of_response(ResponseState::Active, false, counts);
    let table = [
        (counts(2, 0, 0, 0), ResponseOutcome::InForce),
        (counts(1, 1, 0, 0), ResponseOutcome::Partly),
        (counts(1, 0, 1, 0), ResponseOutcome::Partly),
        (counts(0, 1, 1, 0), ResponseOutcome::Pending),
        (counts(0, 0, 2, 0), ResponseOutcome::Failed),
        (counts(0, 0, 1, 1), ResponseOutcome::Lifted),
        (counts(0, 0, 0, 0), ResponseOutcome::Failed),
    ];
    for (counts, outcome) in table {
        assert_eq!(active(counts), Some(outcome), "{counts:?}");
    }
    assert_eq!(of_response(ResponseState::Ended, true, counts(0, 0, 1, 1)), Some(ResponseOutcome::Partly));
    for state in ResponseState::ALL {
        let acts = matches!(state, ResponseState::Active | ResponseState::Ended);
        assert_eq!(of_response(state, false, counts(1, 0, 0, 0)).is_some(), acts, "{state:?}");
    }
}

fn any_facts() -> impl Strategy<Value = HoldFacts> {
    let last = proptest::option::of(proptest::sample::select(LastApply::ALL.to_vec()));
    let left = proptest::sample::select(vec![
        LeftAs::InForce,
        LeftAs::Withdrawn,
        LeftAs::Never(LastApply::Refused),
        LeftAs::Never(LastApply::Expired),
    ]);
    let released = proptest::option::of((left, any::<bool>()));
    let under_way = proptest::option::of(proptest::sample::select(vec![CommandState::Queued]));
    let actual = proptest::sample::select(Actual::ALL.to_vec());
    (any::<bool>(), actual, last, under_way, any::<bool>(), released).prop_map(
        |(wanted, actual, last_apply, under_way, is_revoked, released)| HoldFacts {
            desired: if wanted { Desired::InForce } else { Desired::Absent },
            actual,
            last_apply,
            under_way,
            is_revoked,
            released: released.map(|(left_as, is_same)| Released { left_as, is_same }),
        },
    )
}

proptest! {
    /// Promise 14: only what an agent that is not revoked has reported in force is shown as in
    /// force.
    #[test]
    fn nothing_is_in_force_without_an_agents_report(facts in any_facts()) {
        if of_agent(&facts) == AgentOutcome::InForce {
            prop_assert!(!facts.is_revoked && facts.actual != Actual::Absent);
            if facts.released.is_none() {
                let unverified = facts.actual == Actual::Unknown && facts.last_apply == Some(LastApply::Unverified);
                prop_assert!(facts.actual == Actual::InForce || unverified);
            }
        } else if of_agent(&facts) != AgentOutcome::Lifted {
            prop_assert!(words(&facts, &Telling::default()).is_some(), "what is not in force has a reason");
        }
    }

    /// A response is in force only if it is on every agent, and shows protection only if it is on
    /// one.
    #[test]
    fn a_response_is_in_force_only_on_reporting_agents(
        in_force in 0i64..3, pending in 0i64..3, failed in 0i64..3, lifted in 0i64..3, one_shot: bool,
    ) {
        let counts = OutcomeCounts { in_force, pending, failed, lifted };
        let outcome = of_response(ResponseState::Active, one_shot, counts).unwrap();
        prop_assert_eq!(outcome == ResponseOutcome::InForce, in_force > 0 && pending + failed + lifted == 0);
        if outcome == ResponseOutcome::Partly && !one_shot {
            prop_assert!(in_force > 0);
        }
    }
}
