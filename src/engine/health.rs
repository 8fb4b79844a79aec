//! Health of the stages: when each last finished, how long it took, and its last fault. Every
//! deadline has an owner (promise 11); this shows whether the owner still runs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::views::health::Round;
use riposte_protocol::time::Timestamp;

#[derive(Clone, Debug)]
struct Stage {
    every: Duration,
    /// Start of the expectation.
    since: Timestamp,
    finished_at: Option<Timestamp>,
    took: Duration,
    fault: Option<String>,
}

/// Reports of all stages.
#[derive(Debug, Default)]
pub struct Health {
    stages: Mutex<BTreeMap<&'static str, Stage>>,
    warnings: Mutex<BTreeMap<&'static str, String>>,
}

impl Health {
    /// Expects a stage to finish at least once per `every`, from `now` on.
    pub fn expect(&self, stage: &'static str, every: Duration, now: Timestamp) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = Stage { every, since: now, finished_at: None, took: Duration::ZERO, fault: None };
        stages.insert(stage, expected);
    }

    /// Records the end of a round that began at `begun`.
    pub fn report(&self, stage: &'static str, (begun, now): (Timestamp, Timestamp), fault: Option<String>) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = stages.get_mut(stage) else { return };
        if fault.is_none() {
            known.finished_at = Some(now);
            known.took = Duration::from_millis(u64::try_from(now.as_millis() - begun.as_millis()).unwrap_or(0));
        }
        known.fault = fault;
    }

    /// Says what needs attention although the manager can work, or that it no longer does. Returns
    /// whether this is news.
    pub fn warn(&self, about: &'static str, warning: Option<&str>) -> bool {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match warning {
            Some(text) => warnings.insert(about, text.to_owned()),
            None => warnings.remove(about),
        };
        before.as_deref() != warning
    }

    /// What needs attention, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// All stages at `now`.
    pub fn rounds(&self, now: Timestamp) -> BTreeMap<&'static str, Round> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let round = |(name, stage): (&&'static str, &Stage)| {
            let due = stage.finished_at.unwrap_or(stage.since).plus(stage.every);
            let late = u64::try_from(now.as_millis() - due.as_millis()).unwrap_or(0);
            let took_millis = millis(stage.took);
            let last_finished_at = stage.finished_at;
            (*name, Round { last_finished_at, took_millis, late_millis: late, fault: stage.fault.clone() })
        };
        stages.iter().map(round).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_stops_reporting_is_late() {
        let (health, at) = (Health::default(), |millis| Timestamp::from_millis(millis));
        health.expect("expire", Duration::from_secs(5), at(0));
        let round = |now| health.rounds(at(now))["expire"].clone();
        assert_eq!((round(5000).late_millis, round(7000).late_millis), (0, 2000), "also one that has never come");
        health.report("expire", (at(1000), at(1200)), None);
        assert_eq!((round(6200).late_millis, round(9200).late_millis, round(1300).took_millis), (0, 3000, 200));
        health.report("expire", (at(6000), at(6100)), Some("no database".into()));
        assert_eq!((round(9200).late_millis, round(9200).fault.as_deref()), (3000, Some("no database")));
    }
}
