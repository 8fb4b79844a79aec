//! Circuit breaker rule: when a policy's commands fail too often, on one agent or globally.
//! Failures of one agent stop the policy only there. Stopping it globally needs failures on several
//! agents (promise 15).

use uuid::Uuid;

use super::policy::Percent;

/// Results of a policy's commands on one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Id of the agent.
    pub agent: Uuid,
    /// Name of the agent.
    pub name: String,
    /// Number of commands that failed, timed out or were refused.
    pub failed: u64,
    /// Number of finished commands.
    pub whole: u64,
}

/// The agents that reach the ratio with at least `at_least` commands.
pub fn agents_over(share: Percent, at_least: u32, all: &[Failures]) -> Vec<&Failures> {
    all.iter().filter(|one| one.whole >= u64::from(at_least) && share.is_reached(one.failed, one.whole)).collect()
}

/// Failures of a policy on all agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeFailures {
    /// Number of failed commands.
    pub failed: u64,
    /// Number of finished commands.
    pub whole: u64,
    /// Number of agents.
    pub agents: usize,
}

/// The failures of all agents, if they stop the policy globally: the ratio must also be reached
/// without the agent with the most failures.
pub fn whole_over(share: Percent, at_least: u32, all: &[Failures]) -> Option<WholeFailures> {
    let sum = |of: fn(&Failures) -> u64| all.iter().map(of).sum::<u64>();
    let (failed, whole) = (sum(|one| one.failed), sum(|one| one.whole));
    let worst = all.iter().max_by_key(|one| one.failed)?;
    let (others_failed, others_whole) = (failed - worst.failed, whole - worst.whole);
    let is_over = whole >= u64::from(at_least)
        && share.is_reached(failed, whole)
        && others_failed > 0
        && share.is_reached(others_failed, others_whole);
    is_over.then(|| WholeFailures { failed, whole, agents: all.iter().filter(|one| one.failed > 0).count() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(percent: &str) -> Percent {
        serde_json::from_value(serde_json::json!(percent)).unwrap()
    }

    fn all(counts: &[(u64, u64)]) -> Vec<Failures> {
        let one = |(n, (failed, whole)): (u128, &(u64, u64))| Failures {
            agent: Uuid::from_u128(n),
            name: format!("web-{n:02}"),
            failed: *failed,
            whole: *whole,
        };
        (1..).zip(counts).map(one).collect()
    }

    #[test]
    fn failures_on_one_agent_stop_the_policy_there_only() {
        let agents = all(&[(10, 10), (0, 10), (0, 10)]);
        let over: Vec<&str> = agents_over(share("50%"), 10, &agents).into_iter().map(|one| one.name.as_str()).collect();
        assert_eq!((over, whole_over(share("10%"), 10, &agents)), (vec!["web-01"], None));
        assert!(agents_over(share("50%"), 11, &agents).is_empty(), "fewer than asked for say nothing");
    }

    #[test]
    fn failures_on_several_agents_stop_the_policy() {
        let whole = |percent, at_least, counts| whole_over(share(percent), at_least, &all(counts));
        let found = WholeFailures { failed: 4, whole: 6, agents: 3 };
        assert_eq!(whole("50%", 6, &[(2, 2), (1, 2), (1, 2)]), Some(found));
        assert_eq!(whole("50%", 7, &[(2, 2), (1, 2), (1, 2)]), None);
        assert_eq!(whole("50%", 6, &[(4, 4), (1, 4), (0, 2)]), None, "without the worst it is one of six");
        assert_eq!(whole("1%", 1, &[]), None);
    }

    proptest! {
        /// Promise 15: failures of one agent never stop the policy on others.
        #[test]
        fn no_single_agent_stops_a_policy(
            liar in (0u64..50, 0u64..50), honest in proptest::collection::vec(0u64..50, 0..6), percent in 1u8..=100,
        ) {
            let mut counts: Vec<(u64, u64)> = honest.into_iter().map(|whole| (0, whole)).collect();
            counts.push((liar.0.min(liar.1), liar.1));
            prop_assert_eq!(whole_over(share(&format!("{percent}%")), 1, &all(&counts)), None);
        }
    }
}
