//! What a revert may run, what it must not run, and how often: with real programs through the whole
//! executor.

use std::time::{Duration, Instant};

use riposte_protocol::command::{Command, Op};
use riposte_protocol::message::Outcome;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::json;

use super::script_tests::{Bench, NOW, command};
use crate::local_policy::LocalPolicy;

/// The commands that a program received, in order.
fn verbs(got: &str) -> Vec<String> {
    let verb =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["command"].as_str().unwrap().to_owned();
    got.lines().map(verb).collect()
}

const KEEPS: &str = "#!/bin/bash\nread -r line\necho \"$line\" >> \"got-${0##*/}\"\n";

async fn stopped(mut bench: Bench, policy: LocalPolicy) -> Bench {
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    bench.agent = Bench::start_under(&bench.folder, &[], policy);
    bench
}

#[tokio::test]
async fn a_revert_of_a_never_held_effect_runs_no_program_and_fails_if_it_cannot_be_verified() {
    let bench = Bench::new(&[("dangerous.sh", KEEPS)]);
    let policy = LocalPolicy { denied_actions: vec!["script:dangerous.sh".into()], ..LocalPolicy::default() };
    let bench = stopped(bench, policy).await;
    let mut wipe = command(9, Op::Revert, "dangerous.sh", 7);
    wipe.arguments = vec!["--wipe".into(), "/data".into()];
    bench.receive(vec![wipe]);
    let result = bench.result(9).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Failed, None), "{}", result.message);
    assert!(result.message.contains("no program was run; lift it by hand"), "{}", result.message);
    assert_eq!(bench.read("got-dangerous.sh"), "");
    assert_eq!(bench.read("active-responses.log"), "");

    // A journal that goes back to the first command shows that the effect was never applied.
    let whole = Bench::new(&[("dangerous.sh", KEEPS)]);
    whole.receive(vec![command(1, Op::Apply, "missing", 8), command(2, Op::Revert, "dangerous.sh", 7)]);
    let result = whole.result(2).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, None), "{}", result.message);
    assert!(result.message.contains("never applied"), "{}", result.message);
    assert_eq!(whole.read("got-dangerous.sh"), "");
}

#[tokio::test]
async fn a_held_effect_is_lifted_as_recorded_even_if_the_policy_forbids_it_since() {
    let bench = Bench::new(&[("block", KEEPS), ("evil", KEEPS)]);
    let mut apply = command(1, Op::Apply, "block", 7);
    apply.arguments = vec!["--zone".into()];
    bench.receive(vec![apply]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    let denied = vec!["my-block".into(), "script:block".into()];
    let bench = stopped(bench, LocalPolicy { denied_actions: denied, ..LocalPolicy::default() }).await;
    // The revert names another program, other arguments, another target and another action.
    let mut revert = command(2, Op::Revert, "evil", 7);
    (revert.arguments, revert.action) = (vec!["--wipe".into()], "your-block".into());
    revert.target = Target::parse(TargetKind::Ip, "198.51.100.1").unwrap();
    bench.receive(vec![revert]);
    let result = bench.result(2).await;
    assert_eq!((result.outcome, result.message.as_str()), (Outcome::Succeeded, "lifted, by the word of what was run"));
    assert_eq!(bench.read("got-evil"), "");
    let got = bench.read("got-block");
    assert_eq!(verbs(&got), ["add", "delete"]);
    let delete: serde_json::Value = serde_json::from_str(got.lines().last().unwrap()).unwrap();
    assert_eq!(delete["parameters"]["extra_args"], json!(["--zone"]));
    assert_eq!(delete["parameters"]["alert"]["data"]["srcip"], "203.0.113.7");
}

#[tokio::test]
async fn another_program_for_a_held_effect_moves_its_end_and_nothing_else() {
    let bench = Bench::new(&[("block", KEEPS), ("evil", KEEPS)]);
    let until = |command: Command, secs| Command { until: Some(NOW.plus(Duration::from_secs(secs))), ..command };
    bench.receive(vec![until(command(1, Op::Apply, "block", 7), 600)]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    // At once: the revert must not overtake the apply, whatever program either names.
    let other = Command { action: "firewall-drop".into(), script: None, ..command(3, Op::Apply, "block", 7) };
    bench.receive(vec![until(command(2, Op::Apply, "evil", 7), 1200), other, command(4, Op::Revert, "evil", 7)]);
    assert_eq!(bench.result(2).await.outcome, Outcome::Succeeded);
    let refused = bench.result(3).await;
    assert_eq!(refused.outcome, Outcome::Refused);
    assert!(refused.message.contains("the effect is held here by my-block"), "{}", refused.message);
    assert_eq!(bench.result(4).await.message, "lifted, by the word of what was run");
    assert_eq!(
        (verbs(&bench.read("got-block")), bench.read("got-evil")),
        (vec!["add".into(), "delete".into()], String::new())
    );
}

/// Field case 01 inside the agent: what it has lifted itself is not lifted again, and the log has
/// one line each.
#[tokio::test]
async fn an_effect_lifted_by_the_clock_is_not_lifted_again_by_a_program() {
    let bench = Bench::new(&[("block", KEEPS)]);
    // The first command is lost with an older journal: what is stored about this one has to
    // suffice.
    let apply = Command { until: Some(NOW.plus(Duration::from_mins(1))), ..command(5, Op::Apply, "block", 7) };
    let again = Command { until: Some(NOW.plus(Duration::from_secs(90))), ..command(6, Op::Apply, "block", 7) };
    bench.receive(vec![apply, again]);
    assert_eq!(bench.result(6).await.outcome, Outcome::Succeeded);
    bench.agent.clock.jump(91_000);
    bench.agent.wake_lanes();
    while bench.agent.read(|state| state.held().next().is_some()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let bench = stopped(bench, LocalPolicy::default()).await;
    bench.receive(vec![command(7, Op::Revert, "block", 7)]);
    let result = bench.result(7).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, None), "{}", result.message);
    assert!(result.message.contains("lifted it before"), "{}", result.message);
    assert_eq!(verbs(&bench.read("got-block")), ["add", "delete"]);
    assert_eq!(bench.read("active-responses.log").lines().count(), 2, "one line for a block, one for its end");
}

#[tokio::test]
async fn a_failed_apply_that_was_cleaned_up_is_neither_deleted_again_nor_in_the_log() {
    let fails = format!("{KEEPS}[[ $line == *delete* ]]\n");
    let bench = Bench::new(&[("fails", &fails)]);
    bench.receive(vec![command(5, Op::Apply, "fails", 7)]);
    assert_eq!(bench.result(5).await.outcome, Outcome::Failed);
    bench.receive(vec![command(6, Op::Revert, "fails", 7)]);
    assert_eq!(bench.result(6).await.outcome, Outcome::Succeeded);
    assert_eq!(verbs(&bench.read("got-fails")), ["add", "delete"]);
    assert_eq!(bench.read("active-responses.log"), "");
}

#[tokio::test]
async fn a_clean_up_that_failed_waits_before_it_is_tried_again() {
    let fails = format!("{KEEPS}exit 1\n");
    let bench = Bench::new(&[("fails", &fails)]);
    bench.receive(vec![command(1, Op::Apply, "fails", 7)]);
    let begun = Instant::now();
    let result = bench.result(1).await;
    assert!(result.message.contains("cleaning up failed too and is retried"), "{}", result.message);
    while bench.read("got-fails").lines().count() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is never tried again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Wazuh's own programs removed an administrator's identical rule with the second `delete`.
#[tokio::test]
async fn a_line_that_an_administrator_writes_after_the_lift_is_not_taken_away_by_the_managers_revert() {
    let bench = Bench::new(&[]);
    let etc = bench.folder.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("hosts.deny"), "# mine\n").unwrap();
    let until = Some(NOW.plus(Duration::from_mins(1)));
    let order = |seq, op| Command { action: "host-deny".into(), script: None, ..command(seq, op, "", 7) };
    bench.receive(vec![Command { until, ..order(1, Op::Apply) }]);
    let result = bench.result(1).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{}", result.message);
    bench.agent.clock.jump(61_000);
    bench.agent.wake_lanes();
    while bench.agent.read(|state| state.held().next().is_some()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.read("etc/hosts.deny"), "# mine\n");
    std::fs::write(etc.join("hosts.deny"), "ALL:203.0.113.7\n").unwrap();
    bench.receive(vec![order(2, Op::Revert)]);
    assert_eq!(bench.result(2).await.outcome, Outcome::Succeeded);
    assert_eq!(bench.read("etc/hosts.deny"), "ALL:203.0.113.7\n");
    assert_eq!(bench.read("active-responses.log").lines().count(), 2);
}

/// Without a journal that goes back far enough, the owner of a line is unknown: the line stays, and
/// the step fails.
#[tokio::test]
async fn a_line_of_an_unknown_owner_stays_and_the_revert_fails() {
    let bench = Bench::new(&[]);
    std::fs::create_dir(bench.folder.path().join("etc")).unwrap();
    std::fs::write(bench.folder.path().join("etc/hosts.deny"), "ALL:203.0.113.7\n").unwrap();
    let order =
        |seq, effect| Command { action: "host-deny".into(), script: None, ..command(seq, Op::Revert, "", effect) };
    bench.receive(vec![order(5, 7), order(6, 8)]);
    let result = bench.result(5).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Failed, Some(false)), "{}", result.message);
    assert_eq!(bench.result(6).await.outcome, Outcome::Succeeded, "nothing of it is there");
    assert_eq!(bench.read("etc/hosts.deny"), "ALL:203.0.113.7\n");
}

#[tokio::test]
async fn a_new_effect_on_a_default_protected_file_is_refused_and_an_existing_one_stays() {
    let bench = Bench::new(&[("block", KEEPS)]);
    let file = |command: Command| Command {
        target: Target::parse(TargetKind::File, "/etc/ssh/sshd_config").unwrap(),
        ..command
    };
    bench.receive(vec![file(command(1, Op::Apply, "block", 7))]);
    let refused = bench.result(1).await;
    assert_eq!(refused.outcome, Outcome::Refused);
    assert!(refused.message.contains("/etc/ssh is protected by default"), "{}", refused.message);
    let mut exempting = LocalPolicy::default();
    exempting.protected.exempt = vec!["/etc/ssh".into()];
    let bench = stopped(bench, exempting).await;
    bench.receive(vec![file(command(2, Op::Apply, "block", 7))]);
    assert_eq!(bench.result(2).await.outcome, Outcome::Succeeded);
    let often = LocalPolicy { verify_every: Duration::from_millis(10), ..LocalPolicy::default() };
    let bench = stopped(bench, often).await;
    let longer = Command { until: Some(NOW.plus(Duration::from_mins(9))), ..file(command(3, Op::Apply, "block", 7)) };
    bench.receive(vec![longer]);
    assert_eq!(bench.result(3).await.outcome, Outcome::Succeeded, "another end is nothing new");
    assert_eq!(bench.agent.read(|state| state.held().count()), 1, "and nothing is lifted for it");
    assert_eq!(verbs(&bench.read("got-block")), ["add"]);
}

/// Field case 08: an extended effect gets no line, and neither does one that another response holds
/// too.
#[tokio::test]
async fn a_block_that_is_extended_or_shared_is_one_line_and_its_end_another() {
    let bench = Bench::new(&[]);
    let order = |seq, op, effect| {
        let target = Target::parse(TargetKind::Ip, "203.0.113.7").unwrap();
        Command { action: "log-only".into(), script: None, target, ..command(seq, op, "", effect) }
    };
    bench.receive(vec![order(1, Op::Apply, 7), order(2, Op::Apply, 7), order(3, Op::Apply, 8)]);
    assert_eq!(bench.result(3).await.outcome, Outcome::Succeeded);
    bench.receive(vec![order(4, Op::Revert, 7)]);
    let shared = bench.result(4).await;
    assert_eq!((shared.outcome, shared.verified), (Outcome::Succeeded, None));
    assert_eq!(shared.message, "lifted; another effect holds the same");
    assert_eq!(bench.read("active-responses.log").lines().count(), 1, "another effect holds the same");
    bench.receive(vec![order(5, Op::Revert, 8), order(6, Op::Revert, 8)]);
    assert_eq!(bench.result(6).await.outcome, Outcome::Succeeded);
    let log = bench.read("active-responses.log");
    assert!(log.lines().count() == 2 && log.lines().last().unwrap().contains("\"delete\""), "{log}");
}

/// A lift by a program is not shown as verified: its exit status is all that there is, and this one lifts nothing.
#[tokio::test]
async fn a_lift_that_nothing_shows_is_unverified_and_one_that_shows_is_verified() {
    let bench = Bench::new(&[("block", "#!/bin/sh\nread -r line\n")]);
    let target = Target::parse(TargetKind::Ip, "203.0.113.9").unwrap();
    let seen = |seq, op| Command {
        action: "log-only".into(),
        script: None,
        target: target.clone(),
        ..command(seq, op, "", 9)
    };
    bench.receive(vec![command(1, Op::Apply, "block", 7), seen(2, Op::Apply)]);
    for seq in [1, 2] {
        assert_eq!(bench.result(seq).await.outcome, Outcome::Succeeded);
    }
    bench.receive(vec![command(3, Op::Revert, "block", 7), seen(4, Op::Revert)]);
    let (by_word, shown) = (bench.result(3).await, bench.result(4).await);
    assert_eq!((by_word.outcome, by_word.verified), (Outcome::Succeeded, None), "{}", by_word.message);
    assert_eq!(by_word.message, "lifted, by the word of what was run");
    assert_eq!((shown.outcome, shown.verified), (Outcome::Succeeded, Some(true)), "{}", shown.message);
}

/// Two effects on one target are one block only where one program holds both.
#[tokio::test]
async fn a_passed_end_and_a_twin_are_lifted_by_the_program_that_holds_them() {
    let bench = Bench::new(&[("block", KEEPS), ("other", KEEPS)]);
    let target = Target::parse(TargetKind::Ip, "203.0.113.7").unwrap();
    let twin = Command { target, ..command(2, Op::Apply, "other", 8) };
    bench.receive(vec![command(1, Op::Apply, "block", 7), twin.clone()]);
    assert_eq!(bench.result(2).await.outcome, Outcome::Succeeded);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    bench.receive(vec![Command { jti: uuid::Uuid::from_u128(3), seq: 3, op: Op::Revert, ..twin }]);
    assert_eq!(bench.result(3).await.message, "lifted, by the word of what was run");
    assert_eq!(verbs(&bench.read("got-other")), ["add", "delete"]);
    // An apply whose end has passed lifts what is held, and names another program.
    bench.receive(vec![Command { until: Some(NOW), ..command(4, Op::Apply, "other", 7) }]);
    assert!(bench.result(4).await.message.contains("its end had passed, it is lifted"));
    assert_eq!(verbs(&bench.read("got-block")), ["add", "delete"]);
    assert_eq!(verbs(&bench.read("got-other")), ["add", "delete"]);
}
