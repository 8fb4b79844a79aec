//! Time to contain: how long it takes from an alert, or from a response by hand, until an effect is
//! verified in force for the first time. Observed once it is durable, by policy and action; both labels
//! are bounded, and a row never moves to another label, because a counter must not fall.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use riposte_protocol::time::Timestamp;

use crate::telemetry::ByPolicyAndAction;

/// Pairs of policy and action with a row of their own, for as long as the manager runs: the first ones
/// that contain something. Fourteen buckets each, so at most about 1,600 series.
const PAIRS: usize = 100;
/// The row of all further pairs. A policy's name contains no brackets, so it cannot clash.
const OTHERS: &str = "(others)";
/// The row of responses that people and programs made by hand.
const BY_HAND: &str = "(by hand)";
/// Bucket bounds in seconds: from a connected agent over one that polls to one that was away.
const BOUNDS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 14400.0];

/// One effect that came into force.
#[derive(Clone, Debug)]
pub(in crate::store) struct Containment {
    /// The policy; none: by hand.
    pub(in crate::store) policy: Option<String>,
    /// The action.
    pub(in crate::store) action: String,
    /// When the alert was received, or the response was made.
    pub(in crate::store) since: Timestamp,
    /// When the result was committed.
    pub(in crate::store) at: Timestamp,
}

/// The histogram. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TimeToContain {
    /// The rows, as `/metrics` has them.
    pub rows: Family<ByPolicyAndAction, Histogram>,
    named: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl Default for TimeToContain {
    fn default() -> Self {
        let rows = Family::new_with_constructor((|| Histogram::new(BOUNDS)) as fn() -> Histogram);
        Self { rows, named: Arc::default() }
    }
}

impl TimeToContain {
    /// Observes one.
    pub(in crate::store) fn observe(&self, contained: Containment) {
        let Containment { policy, action, since, at } = contained;
        let labels = self.labels(policy.unwrap_or_else(|| BY_HAND.to_owned()), action);
        // A clock may have been set back in between.
        let millis = u32::try_from((at.as_millis() - since.as_millis()).max(0)).unwrap_or(u32::MAX);
        self.rows.get_or_create(&labels).observe(f64::from(millis) / 1000.0);
    }

    fn labels(&self, policy: String, action: String) -> ByPolicyAndAction {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (policy, action);
        if !named.contains(&pair) {
            if named.len() >= PAIRS {
                return ByPolicyAndAction { policy: OTHERS.to_owned(), action: OTHERS.to_owned() };
            }
            named.insert(pair.clone());
        }
        let (policy, action) = pair;
        ByPolicyAndAction { policy, action }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contained(policy: Option<&str>, millis: i64) -> Containment {
        let (since, at) = (Timestamp::from_millis(1000), Timestamp::from_millis(1000 + millis));
        Containment { policy: policy.map(str::to_owned), action: "firewall-drop".into(), since, at }
    }

    fn rows(time: &TimeToContain) -> BTreeSet<String> {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("t", "T", time.rows.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| line.starts_with("t_count")).map(str::to_owned).collect()
    }

    #[test]
    fn the_first_hundred_pairs_keep_their_rows_and_all_others_share_one() {
        let time = TimeToContain::default();
        for n in 0..PAIRS + 5 {
            time.observe(contained(Some(&format!("p{n}")), 10));
        }
        time.observe(contained(Some("p0"), 10));
        let rows = rows(&time);
        assert_eq!(rows.len(), PAIRS + 1);
        let row = |policy: &str, action: &str, count: u8| {
            rows.contains(&format!("t_count{{policy=\"{policy}\",action=\"{action}\"}} {count}"))
        };
        assert!(row("p0", "firewall-drop", 2) && row("(others)", "(others)", 5), "{rows:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_counts_as_no_time_and_months_fit() {
        let time = TimeToContain::default();
        time.observe(contained(None, -5000));
        time.observe(contained(None, i64::MAX / 2));
        let rows = rows(&time);
        assert!(rows.contains("t_count{policy=\"(by hand)\",action=\"firewall-drop\"} 2"), "{rows:?}");
    }
}
