//! Alerts that were too old when they came, until the audit log has them: after a long outage of a pipeline they are stored and
//! spared, and one entry says how many there were and of what time. Otherwise the outage would look like silence.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;

/// Without another late alert for so long, a pipeline has caught up.
const QUIET: Duration = Duration::from_secs(30);
/// Maximum number of pipelines: what an alert says of its own is not trusted.
const PIPELINES: usize = 64;
/// Stands for the pipeline where there are too many.
const OTHERS: &str = "others";

/// Late alerts of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRun {
    /// Their number.
    pub count: u64,
    /// Event time of the earliest one.
    pub first: Timestamp,
    /// Event time of the latest one.
    pub last: Timestamp,
    seen_at: Timestamp,
}

/// Late alerts by pipeline.
#[derive(Debug, Default)]
pub struct LateAlerts(Mutex<BTreeMap<String, LateRun>>);

impl LateAlerts {
    /// Notes an alert of `time` that came at `now`.
    pub fn note(&self, pipeline: &str, time: Timestamp, now: Timestamp) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = runs.contains_key(pipeline) || runs.len() < PIPELINES;
        let pipeline = if is_known { pipeline } else { OTHERS };
        let new = LateRun { count: 0, first: time, last: time, seen_at: now };
        let run = runs.entry(pipeline.to_owned()).or_insert(new);
        run.count += 1;
        (run.first, run.last, run.seen_at) = (run.first.min(time), run.last.max(time), now);
    }

    /// Takes what came from the pipelines that have caught up at `now`; all of it at the end.
    pub fn take(&self, now: Timestamp, is_end: bool) -> BTreeMap<String, LateRun> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, left) =
            std::mem::take(&mut *runs).into_iter().partition(|(_, run)| is_end || now.since(run.seen_at) >= QUIET);
        *runs = left;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_one_entry_and_pipelines_are_bounded() {
        let (late, at) = (LateAlerts::default(), |seconds: i64| Timestamp::from_millis(seconds * 1000));
        for nth in 0..1000 {
            late.note("wazuh", at(500 - nth), at(10_000 + nth / 50));
        }
        assert!(late.take(at(10_045), false).is_empty(), "it may go on");
        let taken = late.take(at(10_050), false);
        let run = &taken["wazuh"];
        assert_eq!((run.count, run.first, run.last), (1000, at(-499), at(500)));
        assert!(late.take(at(20_000), true).is_empty());
        for nth in 0..1000 {
            late.note(&format!("p{nth}"), at(1), at(2));
        }
        let all = late.take(at(2), true);
        assert_eq!((all.len(), all.values().map(|run| run.count).sum::<u64>()), (PIPELINES + 1, 1000));
    }
}
