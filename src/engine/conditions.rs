//! Failed conditions: a policy that never fires because of a misspelt field looks like one without
//! matches. Failures are counted per policy since the manager started, and the last one is kept as
//! an example.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use riposte_protocol::time::Timestamp;

use crate::domain::expression::Failure;
use crate::telemetry::{ByCondition, Metrics};
use crate::views::policies::FailedConditions;

/// Failures of all policies.
#[derive(Debug, Default)]
pub struct Conditions {
    by_policy: Mutex<HashMap<String, FailedConditions>>,
}

impl Conditions {
    /// Counts a failure.
    pub fn note(&self, policy: &str, failure: &Failure, now: Timestamp, metrics: &Metrics) {
        let is_missing = failure.is_missing_field();
        let mut by_policy = self.by_policy.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = if is_missing { "missing_field" } else { "fault" };
        metrics.conditions_failed.get_or_create(&ByCondition { policy: policy.to_owned(), kind }).inc();
        if let Some(failed) = by_policy.get_mut(policy) {
            failed.missing_field += u64::from(is_missing);
            failed.fault += u64::from(!is_missing);
            // A fault is more informative than a missing field, so it is not overwritten by one.
            if !is_missing || failed.fault == 0 {
                (failed.last, failed.last_at) = (failure.to_string(), now);
            }
        } else {
            let (missing_field, fault) = (u64::from(is_missing), u64::from(!is_missing));
            let failed = FailedConditions { missing_field, fault, last: failure.to_string(), last_at: now };
            by_policy.insert(policy.to_owned(), failed);
        }
    }

    /// Failures of one policy.
    pub fn of(&self, policy: &str) -> Option<FailedConditions> {
        self.by_policy.lock().unwrap_or_else(PoisonError::into_inner).get(policy).cloned()
    }

    /// Forgets deleted policies.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool, metrics: &Metrics) {
        let mut by_policy = self.by_policy.lock().unwrap_or_else(PoisonError::into_inner);
        by_policy.retain(|policy, _| {
            let is_known = is_known(policy);
            if !is_known {
                for kind in ["missing_field", "fault"] {
                    metrics.conditions_failed.remove(&ByCondition { policy: policy.clone(), kind });
                }
            }
            is_known
        });
    }
}
