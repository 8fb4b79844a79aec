//! The simulation as a test: the model breaks no promise, and each built-in mistake is detected.

use riposte_simulation::campaign::{FAULTS, play, run};
use riposte_simulation::defect::Defect;
use riposte_simulation::plan::{draw_up, shape};
use riposte_simulation::shrink::shrink;

/// A mistake must be detected within this many steps.
const MOST_STEPS: u64 = 1_000_000;

#[test]
fn no_promise_is_broken() {
    let outcome = run(1, 1000, 1_000_000, None);
    assert_eq!(outcome.failure, None, "again: make simulate SEED=…");
    assert!(outcome.steps >= 1_000_000 && outcome.commands > 5000, "{outcome:?}");
}

#[test]
fn a_seed_is_played_the_same_way_each_time() {
    let shape = shape(5);
    let trace = || play(&shape, draw_up(&shape, FAULTS), None, true).0.trace.unwrap();
    assert!(trace().len() > 1000);
    assert_eq!(trace(), trace());
}

#[test]
fn a_failure_is_made_shorter_and_stays_the_same_failure() {
    let defect = Some(Defect::LeaseNeverEnds);
    let (seed, violation) = run(1, 100, MOST_STEPS, defect).failure.unwrap();
    let shape = shape(seed);
    let plan = draw_up(&shape, FAULTS);
    let whole = plan.len();
    let shrunk = shrink(&shape, plan, violation.clone(), defect);
    assert_eq!(shrunk.violation.promise, violation.promise);
    assert!(shrunk.plan.len() * 10 < whole, "{} of {whole}", shrunk.plan.len());
    assert!(shrunk.trace.last().unwrap().contains("BROKEN"));
}

/// What several managers can do wrong is tried: otherwise the promises about it would hold for
/// worlds in which nothing happens.
#[test]
fn several_managers_get_into_each_others_way() {
    let lines: Vec<String> = (1..=24)
        .flat_map(|seed| {
            let shape = shape(seed);
            play(&shape, draw_up(&shape, FAULTS), None, true).0.trace.unwrap()
        })
        .collect();
    for what in [
        "takes the duty Undo, fence 9",
        "is refused: its lease has ended",
        "of Undo is old",
        "has a newer connection",
        "closes an older connection",
        "sends nothing to agent",
        "withdraws commands",
        "is spared: it is protected",
        "answers: the freeze is in force",
        "answers: the protection of target",
    ] {
        let count = lines.iter().filter(|line| line.contains(what)).count();
        println!("{count} times: {what}");
        assert!(count > 0, "{what}");
    }
}

macro_rules! seen {
    ($($name:ident: $defect:ident,)+) => {
        /// Every mistake has its test.
        const TESTED: &[Defect] = &[$(Defect::$defect),+];
        $(
            #[test]
            fn $name() {
                let outcome = run(1, 1000, MOST_STEPS, Some(Defect::$defect));
                let (seed, violation) = outcome.failure.expect("the checker detects it");
                println!("{}: {} steps, seed {seed}: {violation}", Defect::$defect, outcome.steps);
                assert!(outcome.steps <= MOST_STEPS, "{} steps", outcome.steps);
            }
        )+
    };
}

seen! {
    an_acknowledgement_before_the_journal_is_seen: AckBeforeJournal,
    a_lease_that_never_ends_is_seen: LeaseNeverEnds,
    an_undo_that_a_restart_loses_is_seen: UndoLostOnRestart,
    a_duplicate_that_is_accepted_is_seen: DuplicateAccepted,
    a_cursor_that_is_a_time_is_seen: CursorFromClock,
    a_revert_that_overtakes_its_apply_is_seen: RevertOvertakesApply,
    holds_that_are_not_counted_are_seen: HoldsNotCounted,
    a_result_that_is_dropped_is_seen: ResultDropped,
    a_result_acknowledged_before_its_commit_is_seen: ResultAckBeforeCommit,
    a_restart_that_lifts_all_is_seen: RestartLiftsAll,
    an_agent_without_a_timer_is_seen: NoTimerOnAgent,
    a_forgery_that_is_believed_is_seen: ForgeryBelieved,
    an_expiry_that_is_ignored_is_seen: ExpiryIgnored,
    a_report_that_is_ignored_is_seen: ReportIgnored,
    a_silence_that_is_waited_for_is_seen: SilenceWaitedForEver,
    an_extension_that_is_ignored_is_seen: ExtensionIgnored,
    a_command_begun_again_after_a_crash_is_seen: BegunAgainAfterCrash,
    a_manager_that_goes_on_without_its_lease_is_seen: NoFence,
    a_decision_by_an_old_epoch_is_seen: OldEpoch,
    a_manager_that_never_looks_is_seen: NoLook,
    an_older_stream_that_is_believed_is_seen: OlderStreamBelieved,
}

#[test]
fn every_defect_has_its_test() {
    assert_eq!(TESTED, Defect::ALL);
}
