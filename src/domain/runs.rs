//! The runs of an agent: each start of its program is one. A run that another one has followed is
//! over; one that comes back repeatedly proves that two hosts share the identity.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Remembered runs per agent: enough to detect one that comes back.
const RUNS: usize = 8;
/// Tolerated comebacks of a run: its last message before a restart may arrive late.
const COMEBACKS: u32 = 1;

/// The last runs of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRuns {
    /// Latest speaker last, with the number of times each came back.
    runs: VecDeque<(Uuid, u32)>,
    /// The run that began last.
    newest: Option<Uuid>,
}

impl AgentRuns {
    /// Whether this run spoke last.
    pub fn is_last(&self, run: Uuid) -> bool {
        self.runs.back().is_some_and(|(last, _)| *last == run)
    }

    /// Records that a run speaks. Returns whether two hosts provably share the identity: a run that
    /// was followed by another is over, so it cannot come back repeatedly.
    pub fn speaks(&mut self, run: Uuid) -> bool {
        if self.is_last(run) {
            return false;
        }
        let known = self.runs.iter().find(|(known, _)| *known == run).map(|(_, comebacks)| *comebacks);
        if known.is_none() {
            self.newest = Some(run);
        }
        // Only the older run counts: the newest is merely interrupted by it.
        let comebacks = known.map_or(0, |comebacks| comebacks + u32::from(self.newest != Some(run)));
        self.runs.retain(|(known, _)| *known != run);
        self.runs.push_back((run, comebacks));
        if self.runs.len() > RUNS {
            self.runs.pop_front();
        }
        comebacks > COMEBACKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proves(runs: &[u128]) -> Vec<bool> {
        let mut known = AgentRuns::default();
        runs.iter().map(|run| known.speaks(Uuid::from_u128(*run))).collect()
    }

    #[test]
    fn a_run_that_comes_back_proves_a_clone() {
        assert_eq!(proves(&[1, 1, 2, 2]), [false; 4], "a restart is no clone");
        assert_eq!(proves(&[1, 1, 2, 2, 1, 2, 2]), [false; 7], "nor is a poll that came late");
        assert_eq!(proves(&[1, 2, 1, 2, 1]).last(), Some(&true), "the first one is still alive");
        assert_eq!(proves(&[1, 2, 1, 2, 3, 2, 3, 4, 3, 4]), [false; 10], "a late message after each of three restarts");
    }

    #[test]
    fn the_runs_are_read_as_they_are_stored() {
        let mut runs = AgentRuns::default();
        runs.speaks(Uuid::from_u128(1));
        let stored = serde_json::to_string(&runs).unwrap();
        assert_eq!(serde_json::from_str::<AgentRuns>(&stored).unwrap(), runs);
    }
}
