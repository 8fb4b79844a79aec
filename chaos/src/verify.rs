//! The verifier: compares the ledger, the agents' journals and what the agents really did with each
//! promise of the design. It trusts no single source.

mod evidence;
mod forwarded;
mod protected;

use std::collections::{BTreeSet, HashMap, HashSet};

pub(crate) use self::evidence::{Account, Counts, Evidence, Verdict};
use crate::ledger::{Command, Effect, Ledger};
use crate::plan::{AlertKind, FIRST_WRITTEN, Network};
use crate::witness::Deed;

/// Allowed difference of wall clock and timers, in milliseconds.
const TOLERANCE_MS: i64 = 5;
/// Reason of an agent that was killed during an execution: it then looks, and does not execute
/// again.
const CUT_SHORT: &str = "stopped during the execution";

/// Verifies all promises.
pub(crate) fn judge(evidence: &Evidence<'_>) -> (Vec<Verdict>, Counts) {
    let mut counts = Counts::default();
    let mut verdicts = intake(evidence, &mut counts);
    verdicts.push(forwarded::judge(evidence, &mut counts));
    verdicts.extend(commands(evidence, &mut counts));
    verdicts.extend(effects(evidence, &mut counts));
    verdicts.push(protected::judge(evidence, &mut counts));
    verdicts.push(shown(evidence, &mut counts));
    counts.late_ms.sort_unstable();
    (verdicts, counts)
}

fn intake(evidence: &Evidence<'_>, counts: &mut Counts) -> Vec<Verdict> {
    let Evidence { plan, seen, ledger, .. } = evidence;
    let mut durable = Verdict::of("1. durable before 2xx: every acknowledged alert is stored, with its responses");
    let mut once = Verdict::of("2. no alert is stored or answered twice");
    let of_response: HashSet<&str> = ledger.commands.values().map(|command| command.response.as_str()).collect();
    for number in &seen.acknowledged {
        durable.check(ledger.alerts.contains_key(number), || format!("alert {number} was acknowledged and is lost"));
    }
    for (number, ids) in &ledger.alerts {
        once.check(ids.len() == 1, || format!("alert {number} is stored {} times", ids.len()));
        let planned = plan.of(*number);
        let responses = ids.iter().filter_map(|id| ledger.responses.get(id)).flatten().collect::<Vec<_>>();
        let policies: BTreeSet<&str> = responses.iter().map(|response| response.policy.as_str()).collect();
        once.check(policies.len() == responses.len(), || format!("alert {number} was answered twice: {responses:?}"));
        let wanted = planned.kind.responses();
        durable.check(policies.len() == wanted, || format!("alert {number} has {policies:?}, not {wanted} responses"));
        for response in responses {
            *counts.counts.entry(format!("responses {}", response.state)).or_default() += 1;
            // An agent with a full disk reports that it can do nothing: then a response is spared
            // with that reason.
            let may_be_protected = matches!(planned.kind, AlertKind::Shielded | AlertKind::Turning);
            let is_spared = response.state == "spared"
                && (response.reason == "action_unavailable" || may_be_protected && response.reason == "protected");
            let acted = matches!(response.state.as_str(), "active" | "ended")
                && (planned.kind.is_shared() || of_response.contains(response.id.as_str()));
            durable.check(is_spared || acted, || format!("alert {number}: {response:?} without a command"));
        }
    }
    let posted = ledger.alerts.keys().filter(|number| **number < FIRST_WRITTEN);
    let unknown = posted.filter(|number| !seen.acknowledged.contains(number)).count();
    counts.counts.insert("alerts acknowledged".into(), seen.acknowledged.len());
    counts.counts.insert("alerts in the ledger that were not acknowledged".into(), unknown);
    vec![durable, once]
}

fn commands(evidence: &Evidence<'_>, counts: &mut Counts) -> Vec<Verdict> {
    let Evidence { ledger, accounts, .. } = evidence;
    let mut twice = Verdict::of("3. no command is executed twice, and each that succeeded was executed");
    let mut order = Verdict::of("4. commands of one effect are executed in order");
    let mut known = Verdict::of("8. every execution was ordered by the manager");
    let mut results = Verdict::of("9. every result is committed as the agent sent it");
    let mut last = Verdict::of("11. every command is final");
    for command in ledger.commands.values() {
        let Command { state, op, .. } = command;
        last.check(!matches!(state.as_str(), "queued" | "delivered" | "acknowledged"), || format!("{command:?}"));
        *counts.counts.entry(format!("commands: {op}, {state}")).or_default() += 1;
        if matches!(state.as_str(), "failed" | "refused" | "timed_out" | "expired") && !command.detail.is_empty() {
            *counts.counts.entry(format!("abandoned: {}", command.detail)).or_default() += 1;
        }
    }
    for account in *accounts {
        results.check(account.status["results_unsent"] == 0 && account.status["commands_pending"] == 0, || {
            format!(
                "{} has {} results unsent, {} commands pending",
                account.id, account.status["results_unsent"], account.status["commands_pending"]
            )
        });
        let mut newest: HashMap<&str, (i64, &str, usize)> = HashMap::new();
        let mut said: HashMap<&str, (&str, &str)> = HashMap::new();
        let mut applied: HashMap<&str, usize> = HashMap::new();
        let mut last_applied: HashMap<&str, usize> = HashMap::new();
        for (line, (_, deed)) in account.deeds.iter().enumerate() {
            match deed {
                Deed::Applied(target) => {
                    *applied.entry(target).or_default() += 1;
                    last_applied.insert(target, line);
                }
                Deed::Ran(target) => *applied.entry(target).or_default() += 1,
                Deed::Reverted(_) => {}
                Deed::Done { command, outcome, reason } => {
                    let ordered = ledger.commands.get(command).filter(|ordered| ordered.agent == account.id);
                    known.check(ordered.is_some(), || format!("{} did {command} without an order", account.id));
                    let Some(ordered) = ordered else { continue };
                    said.insert(command, (outcome, reason));
                    if outcome == "refused" {
                        *counts.counts.entry(format!("refused: {}", in_general(reason))).or_default() += 1;
                        continue;
                    }
                    let (seq, id, done) = *newest.entry(&ordered.effect).or_insert((ordered.seq, command, line));
                    // A crash lost its result and that of the newer command, which is then executed
                    // again. Its end is reported after the newer one's first end, but nothing was
                    // brought into force after that.
                    let is_late_word = outcome == "failed"
                        && reason.contains(CUT_SHORT)
                        && last_applied.get(ordered.target.as_str()).is_none_or(|applied| *applied < done);
                    if seq > ordered.seq && is_late_word {
                        *counts.counts.entry(format!("late report: {}", in_general(reason))).or_default() += 1;
                        continue;
                    }
                    order.check(seq <= ordered.seq, || {
                        format!("{command} {outcome} ({reason}) after the newer {id}: {ordered:?}")
                    });
                    if ordered.seq > seq {
                        newest.insert(&ordered.effect, (ordered.seq, command, line));
                    }
                }
            }
        }
        executions(&mut twice, ledger, &said, &applied, account, counts);
        for (command, (outcome, reason)) in &said {
            let state = ledger.commands.get(*command).map_or("", |command| command.state.as_str());
            results.check(state == *outcome, || format!("{command} {outcome} ({reason}), and the ledger says {state}"));
        }
    }
    vec![twice, order, known, results, last]
}

/// A reason without the parts that differ between agents.
fn in_general(reason: &str) -> &str {
    reason.split(": ").next().unwrap_or_default()
}

/// Compares log lines of executions with the commands that ordered them, target by target.
fn executions<'a>(
    twice: &mut Verdict,
    ledger: &'a Ledger,
    said: &HashMap<&'a str, (&str, &str)>,
    applied: &HashMap<&str, usize>,
    account: &Account,
    counts: &mut Counts,
) {
    let mut asked: HashMap<&str, (usize, usize)> = HashMap::new();
    for command in ledger.commands.values().filter(|command| command.agent == account.id && command.op == "apply") {
        let (most, least) = asked.entry(&command.target).or_default();
        match said.get(command.id.as_str()) {
            Some(("refused", _)) | None => {}
            Some((outcome, reason)) => {
                *most += 1;
                let is_cut_short = reason.contains(CUT_SHORT);
                *least += usize::from(*outcome == "succeeded" && !is_cut_short);
                *counts.counts.entry("applies cut short by a kill".into()).or_default() += usize::from(is_cut_short);
            }
        }
    }
    for target in asked.keys().chain(applied.keys()).collect::<HashSet<_>>() {
        let times = applied.get(target).copied().unwrap_or(0);
        let (most, least) = asked.get(target).copied().unwrap_or_default();
        twice.check((least..=most).contains(&times), || {
            format!("{}: {target} was applied {times} times, by {least} to {most} commands", account.id)
        });
    }
}

fn effects(evidence: &Evidence<'_>, counts: &mut Counts) -> Vec<Verdict> {
    let Evidence { ledger, accounts, turned, lifted_at_ms, .. } = evidence;
    let mut early = Verdict::of("5. nothing is lifted early (6: the longest wins)");
    let mut lifted = Verdict::of("5. every block is lifted");
    for account in *accounts {
        let mut ends: HashMap<&str, Option<i64>> = HashMap::new();
        let mut open: HashSet<&str> = HashSet::new();
        let mut excused: HashSet<&str> = HashSet::new();
        for (at, deed) in &account.deeds {
            match deed {
                Deed::Applied(target) => {
                    open.insert(target);
                }
                Deed::Ran(_) => {}
                Deed::Done { command, outcome, reason } => {
                    let Some(command) = ledger.commands.get(command) else { continue };
                    if command.op == "revert" && reason.contains(CUT_SHORT) {
                        excused.insert(&command.target);
                    }
                    if command.op != "apply" || outcome != "succeeded" {
                        continue;
                    }
                    let end = ends.entry(&command.target).or_insert(Some(i64::MIN));
                    // An effect without an end outlasts all others.
                    *end = end.zip(command.until).map(|(older, newer)| older.max(newer));
                }
                Deed::Reverted(target) => {
                    open.remove(target.as_str());
                    let Some(end) = ends.remove(target.as_str()) else { continue };
                    let is_protected = Network::TURNING.contains(target) && *at >= turned.asked_at_ms;
                    if at >= lifted_at_ms || is_protected {
                        continue;
                    }
                    early.check(end.is_some_and(|end| *at >= end - TOLERANCE_MS), || {
                        format!("{}: {target} was lifted at {at}, its end is {end:?}", account.id)
                    });
                    counts.late_ms.extend(end.map(|end| (at - end).max(0)));
                }
            }
        }
        for target in open.difference(&excused) {
            lifted.check(false, || format!("{}: {target} was applied and never lifted", account.id));
        }
        let held = account.status["effects"].as_array().map_or(usize::MAX, Vec::len);
        lifted.check(held == 0, || format!("{} still holds {}", account.id, account.status["effects"]));
    }
    for effect in &ledger.effects {
        let is_lifted = effect.desired == "absent" && matches!(effect.actual.as_str(), "absent" | "unknown");
        lifted.check(is_lifted && effect.failed_reverts == 0, || format!("{effect:?}"));
        *counts.counts.entry(format!("effects: desired {}, actual {}", effect.desired, effect.actual)).or_default() +=
            1;
    }
    vec![early, lifted]
}

/// Whether the API shows the real state of responses at the end: everything is lifted, so nothing
/// may be shown in force.
fn shown(evidence: &Evidence<'_>, counts: &mut Counts) -> Verdict {
    let mut verdict = Verdict::of("14. nothing is shown as protection that is not in force");
    let is_left = evidence.ledger.effects.iter().any(|effect| effect.actual != "absent");
    for response in evidence.ledger.responses.values().flatten() {
        let acted = matches!(response.state.as_str(), "active" | "ended");
        verdict
            .check(acted != response.outcome.is_empty(), || format!("{response:?} has the outcome of another state"));
        verdict.check(is_left || response.in_force == 0, || format!("{response:?} is in force, and no effect is"));
        if acted {
            *counts.counts.entry(format!("outcomes {}", response.outcome)).or_default() += 1;
        }
    }
    verdict
}

/// Whether agents hold exactly what the manager believes to be in force. An effect that it wants
/// but knows not to be in force (refused, or not delivered in time) is no difference: both agree.
pub(crate) fn convergence(wanted: &[Effect], accounts: &[Account]) -> Verdict {
    let mut verdict = Verdict::of("10. agents hold what the manager wants");
    for account in accounts {
        let of_agent = || wanted.iter().filter(|effect| effect.agent == account.id);
        let everything: BTreeSet<&str> = of_agent().map(|effect| effect.id.as_str()).collect();
        let believed = of_agent().filter(|effect| effect.actual == "in_force").map(|effect| effect.id.as_str());
        let effects = account.status["effects"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_force = effects.iter().filter(|held| held["actual"] != "absent");
        let held: BTreeSet<&str> = in_force.filter_map(|held| held["effect"].as_str()).collect();
        for effect in believed {
            verdict.check(held.contains(effect), || format!("{}: effect {effect} is wanted and not held", account.id));
        }
        for effect in &held {
            verdict.check(everything.contains(effect), || format!("{}: effect {effect} is held, unwanted", account.id));
        }
    }
    verdict
}

#[cfg(test)]
mod tests;
