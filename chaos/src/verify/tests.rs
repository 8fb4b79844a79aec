//! The verifier with a run in which everything is right, and with the same run with one fault at a
//! time.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::alert_files::Written;
use crate::ledger::{Effect, Response};
use crate::load::Seen;
use crate::plan::Plan;
use crate::shield::Turned;
use crate::witness::Witnessed;

const AGENT: &str = "agent";
const LIFTED_AT_MS: i64 = 100_000;

struct Case {
    plan: Plan,
    seen: Seen,
    written: Written,
    wrong_forwarding: Vec<String>,
    ledger: Ledger,
    accounts: Vec<Account>,
    wanted: Vec<Effect>,
}

fn done(command: &str, outcome: &str, reason: &str) -> Deed {
    Deed::Done { command: command.into(), outcome: outcome.into(), reason: reason.into() }
}

fn command(id: &str, seq: i64, op: &str, target: &str) -> Command {
    Command {
        id: id.into(),
        agent: AGENT.into(),
        seq,
        effect: "effect".into(),
        op: op.into(),
        target: target.into(),
        until: (op == "apply").then_some(20_000),
        delivered: Some(10_000),
        state: "succeeded".into(),
        detail: String::new(),
        response: "response".into(),
    }
}

/// One alert with a short block: applied, lifted on time, reported.
fn good() -> Case {
    let plan = Plan { seed: 1, agents: 1, brief: Duration::from_secs(10), lasting: true };
    let number = (1..1000).find(|n| plan.of(*n).kind == AlertKind::Brief).unwrap();
    let target = plan.of(number).target;
    let mut seen = Seen::default();
    seen.acknowledged.insert(number);
    let mut ledger = Ledger::default();
    ledger.alerts.insert(number, vec!["alert".into()]);
    let text = str::to_owned;
    let response = Response {
        id: text("response"),
        policy: text("brief"),
        state: text("ended"),
        reason: text("elapsed"),
        created: 9_000,
        outcome: text("lifted"),
        in_force: 0,
    };
    ledger.responses.insert("alert".into(), vec![response]);
    for command in [command("c1", 1, "apply", &target), command("c2", 2, "revert", &target)] {
        ledger.commands.insert(command.id.clone(), command);
    }
    ledger.effects.push(Effect {
        id: text("effect"),
        agent: text(AGENT),
        target: target.clone(),
        desired: text("absent"),
        actual: text("absent"),
        failed_reverts: 0,
    });
    let deeds = vec![
        (10_000, Deed::Applied(target.clone())),
        (10_001, done("c1", "succeeded", "in force")),
        (20_000, Deed::Reverted(target)),
        (20_100, done("c2", "succeeded", "it was not held any more; nothing of it is left")),
    ];
    let status = json!({"results_unsent": 0, "commands_pending": 0, "effects": []});
    let accounts = vec![Account { id: AGENT.into(), status, deeds }];
    Case { plan, seen, written: Written::default(), wrong_forwarding: Vec::new(), ledger, accounts, wanted: Vec::new() }
}

/// The broken promises, by the number at the start of their names.
fn broken(case: &Case) -> Vec<&'static str> {
    let Case { plan, seen, written, wrong_forwarding, ledger, accounts, wanted } = case;
    let turned = Turned { asked_at_ms: 14_000, granted_at_ms: 15_000 };
    let (verdicts, _) = judge(&Evidence {
        plan,
        seen,
        written,
        wrong_forwarding,
        ledger,
        accounts,
        turned,
        wanted,
        lifted_at_ms: LIFTED_AT_MS,
    });
    let broken = verdicts.iter().filter(|verdict| verdict.broken > 0);
    broken.map(|verdict| verdict.promise.split('.').next().unwrap()).collect()
}

fn broken_by(harm: impl FnOnce(&mut Case)) -> Vec<&'static str> {
    let mut case = good();
    harm(&mut case);
    broken(&case)
}

#[test]
fn a_good_run_breaks_nothing() {
    assert_eq!(broken(&good()), [""; 0]);
}

#[test]
fn the_verifier_detects_lost_and_doubled_responses() {
    assert_eq!(broken_by(|case| case.ledger.alerts.clear()), ["1"]);
    assert_eq!(broken_by(|case| case.ledger.responses.clear()), ["1"]);
    assert_eq!(broken_by(|case| case.ledger.alerts.values_mut().for_each(|ids| ids.push("twin".into()))), ["2"]);
    let twice = |case: &mut Case| {
        let twin = case.ledger.responses["alert"][0].clone();
        case.ledger.responses.get_mut("alert").unwrap().push(twin);
    };
    assert_eq!(broken_by(twice), ["2"]);
}

/// The same case, whose alert is a line of `alerts.json`.
fn written(harm: impl FnOnce(&mut Case, u64)) -> Vec<&'static str> {
    let mut case = good();
    let number = (FIRST_WRITTEN..FIRST_WRITTEN + 1000).find(|n| case.plan.of(*n).kind == AlertKind::Brief).unwrap();
    case.seen.acknowledged.clear();
    case.ledger.alerts = [(number, vec!["alert".into()])].into();
    case.written.numbers.insert(number);
    harm(&mut case, number);
    broken(&case)
}

#[test]
fn the_verifier_detects_lost_doubled_and_invented_lines() {
    assert_eq!(written(|_, _| {}), [""; 0]);
    assert_eq!(written(|case, _| case.ledger.alerts.clear()), ["2"], "lost");
    let beside = |case: &mut Case, number| case.written.numbers.extend([number + 1]);
    assert_eq!(written(beside), ["2"], "lost beside another");
    assert_eq!(written(|case, _| case.ledger.alerts.values_mut().for_each(|ids| ids.push("twin".into()))), ["2", "2"]);
    assert_eq!(written(|case, _| case.ledger.responses.clear()), ["1", "2"], "without a response");
    assert_eq!(written(|case, _| case.written.numbers.clear()), ["2"], "half a line");
    assert_eq!(written(|case, _| case.wrong_forwarding.push("it is lost".into())), ["2"]);
}

#[test]
fn the_verifier_detects_wrong_deeds_of_agents() {
    let deeds = |harm: fn(&mut Vec<Witnessed>)| broken_by(move |case| harm(&mut case.accounts[0].deeds));
    assert_eq!(deeds(|deeds| deeds.insert(1, deeds[0].clone())), ["3"]);
    assert_eq!(deeds(|deeds| drop(deeds.remove(0))), ["3"], "it said that it had, and had not");
    assert_eq!(deeds(|deeds| deeds.push((20_200, done("c1", "succeeded", "in force")))), ["4"]);
    assert_eq!(deeds(|deeds| deeds[2].0 = 19_000), ["5"], "lifted early");
    assert_eq!(deeds(|deeds| drop(deeds.remove(2))), ["5"], "never lifted");
    assert_eq!(deeds(|deeds| deeds.push((20_200, done("forged", "succeeded", "")))), ["8"]);
    assert_eq!(deeds(|deeds| deeds.push((20_200, done("c2", "failed", "")))), ["9"]);
}

/// With a full disk, neither an apply nor its revert is recorded; after a crash the apply is found
/// begun.
#[test]
fn the_verifier_distinguishes_a_late_report_from_a_late_execution() {
    let ended = "the agent was stopped during the execution, and the effect has ended meanwhile";
    let late = |outcome: &'static str, reason: &'static str, again: bool| {
        broken_by(move |case| {
            case.ledger.commands.get_mut("c1").unwrap().state = outcome.into();
            let deeds = &mut case.accounts[0].deeds;
            if again {
                let (_, applied) = deeds.remove(0);
                deeds.push((20_150, applied));
            }
            deeds.push((20_200, done("c1", outcome, reason)));
        })
    };
    assert_eq!(late("failed", ended, false), [""; 0]);
    assert_eq!(late("failed", "it did not work", false), ["4"]);
    assert_eq!(late("succeeded", "in force; the agent was stopped during the execution", false), ["4"]);
    assert!(late("failed", ended, true).contains(&"4"), "it was executed after the newer one");
}

#[test]
fn the_verifier_detects_unfinished_responses() {
    let state =
        |state: &'static str| move |case: &mut Case| case.ledger.commands.get_mut("c2").unwrap().state = state.into();
    assert!(broken_by(state("acknowledged")).contains(&"11"));
    assert_eq!(broken_by(|case| case.accounts[0].status["results_unsent"] = 1.into()), ["9"]);
    assert_eq!(broken_by(|case| case.accounts[0].status["effects"] = json!([{"effect": "effect"}])), ["5"]);
    assert_eq!(broken_by(|case| case.ledger.effects[0].actual = "in_force".into()), ["5"]);
}

#[test]
fn the_judge_sees_manager_and_agent_disagree() {
    let mut case = good();
    let effect = |actual: &str| Effect {
        id: "effect".into(),
        agent: AGENT.into(),
        target: "10.0.0.1".into(),
        desired: "in_force".into(),
        actual: actual.into(),
        failed_reverts: 0,
    };
    assert_eq!(convergence(&[effect("in_force")], &case.accounts).broken, 1, "wanted and not held");
    assert_eq!(convergence(&[effect("absent")], &case.accounts).broken, 0, "wanted, and known not to be");
    case.accounts[0].status["effects"] = json!([{"effect": "effect"}]);
    assert_eq!(convergence(&[effect("in_force")], &case.accounts).broken, 0);
    assert_eq!(convergence(&[], &case.accounts).broken, 1, "held and not wanted");
}

/// The same case, with the target of an alert of this kind, changed by `harm`.
fn of_kind(kind: AlertKind, harm: impl FnOnce(&mut Case)) -> Vec<&'static str> {
    let mut case = good();
    let (_, id) = case.ledger.alerts.drain().next().unwrap();
    let number = (1..1000).find(|n| case.plan.of(*n).kind == kind).unwrap();
    let target = case.plan.of(number).target;
    case.seen.acknowledged = [number].into();
    case.ledger.alerts.insert(number, id);
    case.ledger.commands.values_mut().for_each(|command| command.target.clone_from(&target));
    case.ledger.effects[0].target.clone_from(&target);
    for (_, deed) in &mut case.accounts[0].deeds {
        if let Deed::Applied(of) | Deed::Reverted(of) = deed {
            of.clone_from(&target);
        }
    }
    harm(&mut case);
    broken(&case)
}

/// The response is spared.
fn spare(case: &mut Case) {
    case.ledger.commands.clear();
    case.accounts[0].deeds.clear();
    let responses = case.ledger.responses.get_mut("alert").unwrap();
    responses[0].state = "spared".into();
    responses[0].reason = "protected".into();
    responses[0].outcome.clear();
}

#[test]
fn the_verifier_detects_wrong_outcomes_in_the_api() {
    let shown = |harm: fn(&mut crate::ledger::Response)| {
        broken_by(move |case| case.ledger.responses.get_mut("alert").unwrap().iter_mut().for_each(harm))
    };
    assert_eq!(shown(|response| response.in_force = 1), ["14"]);
    assert_eq!(shown(|response| response.outcome.clear()), ["14"]);
}

#[test]
fn the_verifier_detects_touched_protected_targets() {
    assert_eq!(of_kind(AlertKind::Shielded, spare), [""; 0]);
    assert_eq!(of_kind(AlertKind::Shielded, |_| {}), ["7"]);
    assert_eq!(of_kind(AlertKind::Turning, |_| {}), [""; 0], "it was decided and sent before");
    assert_eq!(of_kind(AlertKind::Turning, spare), [""; 0]);
    let early = |case: &mut Case| case.accounts[0].deeds[2].0 = 14_500;
    assert_eq!(of_kind(AlertKind::Turning, early), [""; 0], "lifted when it became protected");
    let response = |case: &mut Case| case.ledger.responses.get_mut("alert").unwrap()[0].created = 16_000;
    assert_eq!(of_kind(AlertKind::Turning, response), ["7"], "decided after");
    let sent = |case: &mut Case| case.ledger.commands.get_mut("c1").unwrap().delivered = Some(18_000);
    assert_eq!(of_kind(AlertKind::Turning, sent), ["7"], "sent after");
    let wanted = |case: &mut Case| case.wanted.clone_from(&case.ledger.effects);
    assert_eq!(of_kind(AlertKind::Turning, wanted), ["7"], "still wanted");
    let applied = |case: &mut Case| {
        let deeds = &mut case.accounts[0].deeds;
        [80_000, 80_001, 80_100, 80_200].iter().zip(deeds).for_each(|(at, deed)| deed.0 = *at);
    };
    assert_eq!(of_kind(AlertKind::Turning, applied), ["7"], "applied long after");
    assert_eq!(of_kind(AlertKind::Refused, |_| {}), ["7"]);
    let refused = |case: &mut Case| {
        case.ledger.commands.get_mut("c1").unwrap().state = "refused".into();
        case.accounts[0].deeds = vec![(10_000, done("c1", "refused", "the target is protected"))];
    };
    assert_eq!(of_kind(AlertKind::Refused, refused), [""; 0]);
}
