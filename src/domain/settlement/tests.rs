//! Tests of settlement: what each end of a command says, and what it makes of an effect.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const EARLIER: Timestamp = Timestamp::from_millis(500_000);

fn result(outcome: Outcome, verified: Option<bool>) -> CommandResult {
    CommandResult {
        command_id: Uuid::nil(),
        outcome,
        exit_code: None,
        output: String::new(),
        verified,
        message: String::new(),
        evidence: None,
        observed: false,
        started_at: EARLIER,
        finished_at: NOW,
    }
}

/// An effect that was applied by command 5 and is reported as this.
fn effect(desired: Desired, actual: Actual, last_apply: Option<LastApply>) -> EffectState {
    EffectState {
        desired,
        actual,
        actual_seq: 5,
        last_apply,
        last_reason: "before".into(),
        in_force_at: None,
        failed_reverts: 2,
        next_revert_at: None,
    }
}

fn end(seq: i64, finding: EffectFinding) -> CommandEnd {
    CommandEnd { seq, finding, reason: "because".into() }
}

#[test]
fn each_result_says_one_thing_about_its_effect() {
    use EffectFinding::{Applied, Lifted, Refused, RevertFailed};
    use Outcome::{Failed, Succeeded, TimedOut};
    let (yes, no) = (Some(true), Some(false));
    let table = [
        (Op::Apply, Succeeded, yes, Applied(Actual::InForce, LastApply::Verified)),
        (Op::Apply, Succeeded, no, Applied(Actual::Drifted, LastApply::Failed)),
        (Op::Apply, Succeeded, None, Applied(Actual::Unknown, LastApply::Unverified)),
        (Op::Apply, Failed, yes, Applied(Actual::InForce, LastApply::Verified)),
        (Op::Apply, Failed, no, Applied(Actual::Absent, LastApply::Failed)),
        (Op::Apply, Failed, None, Applied(Actual::Absent, LastApply::Failed)),
        (Op::Apply, TimedOut, yes, Applied(Actual::InForce, LastApply::Verified)),
        (Op::Apply, TimedOut, None, Applied(Actual::Absent, LastApply::TimedOut)),
        (Op::Apply, Outcome::Refused, yes, Refused),
        (Op::Apply, Outcome::Refused, None, Refused),
        (Op::Revert, Succeeded, yes, Lifted),
        (Op::Revert, Succeeded, None, Lifted),
        (Op::Revert, Succeeded, no, RevertFailed),
        (Op::Revert, Failed, yes, RevertFailed),
        (Op::Revert, TimedOut, None, RevertFailed),
        (Op::Revert, Outcome::Refused, None, RevertFailed),
    ];
    for (op, outcome, verified, finding) in table {
        let result = result(outcome, verified);
        assert_eq!(EffectFinding::of_result(op, false, &result), finding, "{op:?} {outcome:?} {verified:?}");
        let of_one_shot = if op == Op::Apply { EffectFinding::Done } else { finding };
        assert_eq!(EffectFinding::of_result(op, true, &result), of_one_shot, "{op:?} {outcome:?} {verified:?}");
    }
}

#[test]
fn an_agent_that_only_observes_has_put_nothing_into_force() {
    let observed = EffectFinding::Applied(Actual::Unknown, LastApply::Observed);
    let new = CommandResult { observed: true, ..result(Outcome::Succeeded, None) };
    let old = CommandResult { message: "observe: would have run x".into(), ..result(Outcome::Succeeded, None) };
    for result in [new, old] {
        assert!(is_observed(&result));
        assert_eq!(EffectFinding::of_result(Op::Apply, false, &result), observed);
    }
    assert!(!is_observed(&result(Outcome::Succeeded, None)) && observed.is_in_vain());
}

#[test]
fn a_command_without_a_result_may_have_been_executed_if_it_was_sent() {
    use CommandState::{Acknowledged, Delivered, Queued};
    use GivenUp::{Cancelled, Expired, TimedOut};
    let lost = |actual, last_apply| Some(EffectFinding::Lost(actual, last_apply));
    let table = [
        (Op::Apply, Queued, Cancelled, lost(Actual::Absent, LastApply::Cancelled)),
        (Op::Apply, Queued, Expired, lost(Actual::Absent, LastApply::Expired)),
        (Op::Apply, Delivered, Expired, lost(Actual::Drifted, LastApply::Expired)),
        (Op::Apply, Acknowledged, TimedOut, lost(Actual::Drifted, LastApply::TimedOut)),
        (Op::Revert, Acknowledged, TimedOut, Some(EffectFinding::RevertFailed)),
        (Op::Revert, Delivered, Expired, None),
        (Op::Revert, Queued, Cancelled, None),
    ];
    for (op, from, given_up, finding) in table {
        assert!(from.can_become(given_up.state()), "{from:?} {given_up:?}");
        assert_eq!(EffectFinding::of_silence(op, false, from, given_up), finding, "{op:?} {from:?} {given_up:?}");
        let of_one_shot = finding.filter(|_| op == Op::Revert);
        assert_eq!(EffectFinding::of_silence(op, true, from, given_up), of_one_shot, "{op:?} {from:?} {given_up:?}");
    }
    assert_eq!([Queued, Delivered].map(GivenUp::withdrawn), [Cancelled, Expired]);
}

#[test]
fn the_first_of_equal_results_counts_and_a_withdrawn_refusal_does_not() {
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let (refused, done) = (result(Outcome::Refused, None), result(Outcome::Succeeded, Some(true)));
    let late = CommandResult { message: "again".into(), ..done.clone() };
    let all = vec![(one, refused.clone()), (other, refused.clone()), (one, done.clone()), (one, late)];
    assert_eq!(last_results(all), [(one, done), (other, refused)]);
}

#[test]
fn an_apply_reports_its_state_and_ends_an_incident() {
    let verified = end(6, EffectFinding::Applied(Actual::InForce, LastApply::Verified));
    let mut state = effect(Desired::InForce, Actual::Drifted, Some(LastApply::Failed));
    assert!(state.settle(&verified, false, NOW));
    let expected = EffectState {
        actual_seq: 6,
        last_reason: "because".into(),
        in_force_at: Some(NOW),
        failed_reverts: 0,
        ..effect(Desired::InForce, Actual::InForce, Some(LastApply::Verified))
    };
    assert_eq!(state, expected);
    assert!(state.settle(&CommandEnd { seq: 7, ..verified }, false, Timestamp::from_millis(2_000_000)));
    assert_eq!((state.actual_seq, state.in_force_at), (7, Some(NOW)), "the first time counts");
}

#[test]
fn promise_5_an_apply_that_succeeds_after_its_last_hold_ended_is_lifted() {
    let verified = end(6, EffectFinding::Applied(Actual::InForce, LastApply::Verified));
    let absent = end(6, EffectFinding::Applied(Actual::Absent, LastApply::Failed));
    let table = [
        (Desired::Absent, &verified, false, Some(NOW)),
        (Desired::Absent, &verified, true, None),
        (Desired::Absent, &absent, false, None),
        (Desired::InForce, &verified, false, None),
    ];
    for (desired, end, is_revert_under_way, next) in table {
        let mut state = effect(desired, Actual::Unknown, None);
        state.settle(end, is_revert_under_way, NOW);
        assert_eq!(state.next_revert_at, next, "{desired:?} {end:?} {is_revert_under_way}");
        let mut waiting = EffectState { next_revert_at: Some(EARLIER), ..effect(desired, Actual::Unknown, None) };
        waiting.settle(end, is_revert_under_way, NOW);
        assert_eq!(waiting.next_revert_at, Some(EARLIER), "a revert that waits is not put off");
    }
}

#[test]
fn a_refused_apply_leaves_an_earlier_state() {
    let (unverified, failed) = (Some(LastApply::Unverified), Some(LastApply::Failed));
    let refused = Some(LastApply::Refused);
    let table = [
        (Actual::Unknown, None, Actual::Absent, refused),
        (Actual::Unknown, failed, Actual::Absent, refused),
        (Actual::Unknown, unverified, Actual::Unknown, unverified),
        (Actual::InForce, Some(LastApply::Verified), Actual::InForce, Some(LastApply::Verified)),
        (Actual::InForce, None, Actual::InForce, None),
        (Actual::Drifted, failed, Actual::Drifted, refused),
        (Actual::Absent, failed, Actual::Absent, refused),
    ];
    for (actual, last_apply, then, then_last) in table {
        let mut state = effect(Desired::InForce, actual, last_apply);
        assert!(state.settle(&end(6, EffectFinding::Refused), false, NOW));
        let known = (state.actual, state.last_apply, state.last_reason.as_str(), state.in_force_at);
        assert_eq!(known, (then, then_last, "because", None), "{actual:?} {last_apply:?}");
    }
}

#[test]
fn a_lost_apply_is_no_report() {
    let mut state = effect(Desired::InForce, Actual::Unknown, None);
    assert!(state.settle(&end(6, EffectFinding::Lost(Actual::Drifted, LastApply::Expired)), false, NOW));
    let expected = EffectState {
        last_reason: "because".into(),
        ..effect(Desired::InForce, Actual::Drifted, Some(LastApply::Expired))
    };
    assert_eq!(state, expected);
}

#[test]
fn a_failed_revert_is_tried_again_ever_later_while_nothing_wants_the_effect() {
    let mut state = EffectState { failed_reverts: 0, ..effect(Desired::Absent, Actual::InForce, None) };
    let mut waits = Vec::new();
    for seq in 6..16 {
        assert!(state.settle(&end(seq, EffectFinding::RevertFailed), false, NOW));
        waits.push((state.next_revert_at.unwrap().as_millis() - NOW.as_millis()) / 1000);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!((state.actual, state.actual_seq, state.failed_reverts), (Actual::Drifted, 15, 10));
    assert_eq!(retry_delay(i64::MAX), RETRY_MAX);
    state.settle(&end(16, EffectFinding::Lifted), false, NOW);
    assert_eq!((state.actual, state.failed_reverts, state.next_revert_at), (Actual::Absent, 0, None));
    let mut wanted = effect(Desired::InForce, Actual::InForce, None);
    wanted.settle(&end(6, EffectFinding::RevertFailed), false, NOW);
    assert_eq!((wanted.failed_reverts, wanted.next_revert_at), (3, None), "no revert of what is wanted");
}

fn any_finding() -> impl Strategy<Value = EffectFinding> {
    let actual = || prop::sample::select(Actual::ALL.to_vec());
    let last_apply = || prop::sample::select(LastApply::ALL.to_vec());
    prop_oneof![
        (actual(), last_apply()).prop_map(|(actual, last)| EffectFinding::Applied(actual, last)),
        (actual(), last_apply()).prop_map(|(actual, last)| EffectFinding::Lost(actual, last)),
        Just(EffectFinding::Done),
        Just(EffectFinding::Refused),
        Just(EffectFinding::Lifted),
        Just(EffectFinding::RevertFailed),
    ]
}

fn any_state() -> impl Strategy<Value = EffectState> {
    let desired = prop::sample::select(vec![Desired::InForce, Desired::Absent]);
    let actual = prop::sample::select(Actual::ALL.to_vec());
    let last_apply = prop::option::of(prop::sample::select(LastApply::ALL.to_vec()));
    (desired, actual, last_apply, 0i64..12).prop_map(|(desired, actual, last_apply, failed_reverts)| EffectState {
        failed_reverts,
        ..effect(desired, actual, last_apply)
    })
}

proptest! {
    /// Promise 10: a late result of an older command changes nothing, whatever it says.
    #[test]
    fn the_newest_command_counts(mut state in any_state(), findings in prop::collection::vec((0i64..20, any_finding()), 1..20)) {
        let mut newest = state.actual_seq;
        for (seq, finding) in findings {
            let before = state.clone();
            let changed = state.settle(&end(seq, finding), false, NOW);
            prop_assert_eq!(changed, seq >= newest);
            if !changed {
                prop_assert_eq!(&state, &before);
            } else if !matches!(finding, EffectFinding::Lost(..)) {
                newest = seq;
            }
            prop_assert_eq!(state.actual_seq, newest);
        }
    }

    /// Promise 5: what nothing wants and may be in force has a revert to come.
    #[test]
    fn an_unwanted_effect_always_has_a_revert_to_come(mut state in any_state(), findings in prop::collection::vec(any_finding(), 1..20)) {
        let is_owed = |state: &EffectState| {
            state.desired == Desired::InForce || state.actual == Actual::Absent || state.next_revert_at.is_some()
        };
        if !is_owed(&state) {
            state.next_revert_at = Some(EARLIER);
        }
        for (seq, finding) in (6..).zip(findings) {
            // The revert of an effect whose apply is given up is queued when its last hold ends.
            if matches!(finding, EffectFinding::Lost(..)) {
                continue;
            }
            state.settle(&end(seq, finding), false, NOW);
            prop_assert!(is_owed(&state), "{finding:?}: {state:?}");
            prop_assert!(state.desired == Desired::Absent || state.next_revert_at.is_none());
        }
    }
}
