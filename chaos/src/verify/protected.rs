//! Promise 7: a protected target is never touched, wherever it is protected, from the moment of its
//! protection.

use super::evidence::{Counts, Evidence, Verdict};
use crate::ledger::Response;
use crate::plan::{AlertKind, Network};
use crate::witness::Deed;

/// How much later a decision made before the protection may be stamped, in milliseconds.
const UNDER_WAY_MS: i64 = 2_000;
/// How much later a command sent before the protection may be executed, in milliseconds: the
/// network delays it for seconds, and an agent with a full disk retries it until it expires.
const ON_ITS_WAY_MS: i64 = 60_000;

/// Verifies the promise.
pub(super) fn judge(evidence: &Evidence<'_>, counts: &mut Counts) -> Verdict {
    let mut verdict = Verdict::of("7. a protected target is never touched");
    decisions(evidence, &mut verdict, counts);
    let Evidence { ledger, accounts, turned, wanted, .. } = evidence;
    for command in ledger.commands.values().filter(|command| command.op == "apply") {
        let holds = if Network::SHIELDED.contains(&command.target) {
            false
        } else if Network::TURNING.contains(&command.target) {
            command.delivered.is_none_or(|at| at <= turned.granted_at_ms + UNDER_WAY_MS)
        } else if Network::REFUSED.contains(&command.target) {
            !matches!(command.state.as_str(), "succeeded" | "failed" | "timed_out")
        } else {
            continue;
        };
        verdict.check(holds, || format!("{command:?}, protected at {}", turned.granted_at_ms));
    }
    for account in *accounts {
        for (at, deed) in &account.deeds {
            let (Deed::Applied(target) | Deed::Ran(target)) = deed else { continue };
            let is_late = Network::TURNING.contains(target) && *at > turned.granted_at_ms + ON_ITS_WAY_MS;
            let holds = !Network::SHIELDED.contains(target) && !Network::REFUSED.contains(target) && !is_late;
            verdict.check(holds, || format!("{}: {target} was applied at {at}", account.id));
        }
    }
    for effect in wanted.iter().filter(|effect| Network::TURNING.contains(&effect.target)) {
        verdict.check(false, || format!("{effect:?} is still wanted"));
    }
    verdict
}

/// Every response to a target that was protected at the decision is spared.
fn decisions(evidence: &Evidence<'_>, verdict: &mut Verdict, counts: &mut Counts) {
    let Evidence { plan, ledger, turned, .. } = evidence;
    let mut of_turning = (0, 0);
    for (number, ids) in &ledger.alerts {
        let kind = plan.of(*number).kind;
        if !matches!(kind, AlertKind::Shielded | AlertKind::Turning) {
            continue;
        }
        for response in ids.iter().filter_map(|id| ledger.responses.get(id)).flatten() {
            let Response { state, created, .. } = response;
            if kind == AlertKind::Turning {
                of_turning =
                    (of_turning.0 + usize::from(state == "ended"), of_turning.1 + usize::from(state == "spared"));
                if *created <= turned.granted_at_ms {
                    continue;
                }
            }
            verdict.check(state == "spared", || format!("alert {number}: {response:?}, protected at {turned:?}"));
        }
    }
    counts.counts.insert("responses ended because their target became protected".into(), of_turning.0);
    counts.counts.insert("responses spared because their target had become protected".into(), of_turning.1);
}
