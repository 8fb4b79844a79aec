//! The forwarder's part of promises 1 and 2: what is a whole line of `alerts.json` is stored and
//! answered, once, whatever happens to the files, the forwarder and the managers.

use super::evidence::{Counts, Evidence, Verdict};
use crate::plan::FIRST_WRITTEN;

/// Verifies it.
pub(super) fn judge(evidence: &Evidence<'_>, counts: &mut Counts) -> Verdict {
    let Evidence { plan, ledger, written, wrong_forwarding, .. } = evidence;
    let mut verdict = Verdict::of("2. every whole line of alerts.json is stored and answered once");
    for number in &written.numbers {
        let ids = ledger.alerts.get(number).map_or(&[][..], Vec::as_slice);
        verdict.check(ids.len() == 1, || format!("line {number} was written, and is stored {} times", ids.len()));
        let responses = ids.iter().filter_map(|id| ledger.responses.get(id)).map(Vec::len).sum::<usize>();
        let wanted = plan.of(*number).kind.responses();
        verdict.check(responses == wanted, || format!("line {number} has {responses} responses, not {wanted}"));
    }
    for number in ledger.alerts.keys().filter(|number| **number >= FIRST_WRITTEN) {
        verdict.check(written.numbers.contains(number), || format!("alert {number} was never a whole line"));
    }
    for what in *wrong_forwarding {
        verdict.check(false, || what.clone());
    }
    counts.counts.insert("alerts written to alerts.json".into(), written.numbers.len());
    for (what, times) in &written.happened {
        counts.counts.insert(format!("alerts.json: {what}"), *times);
    }
    verdict
}
