//! Conditions that could not be decided: a policy that never fires because a field is misspelt looks like one that has nothing
//! to do. Counted by policy since the manager started; the last failure is kept as an example.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use riposte_protocol::time::Timestamp;
use serde::Serialize;

use crate::domain::expression::Failure;
use crate::telemetry::{ByCondition, Metrics};

/// How often the conditions of one policy could not be decided, since the manager started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FailedConditions {
    /// Because a field is not there: that is ordinary for conditions about some alerts only.
    pub missing_field: u64,
    /// For any other reason, such as a text that is no address.
    pub fault: u64,
    /// The last reason.
    pub last: String,
    /// When that was.
    pub last_at: Timestamp,
}

/// All that failed, by policy.
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
            // A fault says more than a field that is not there, and is not hidden by the next one.
            if !is_missing || failed.fault == 0 {
                (failed.last, failed.last_at) = (failure.to_string(), now);
            }
        } else {
            let (missing_field, fault) = (u64::from(is_missing), u64::from(!is_missing));
            let failed = FailedConditions { missing_field, fault, last: failure.to_string(), last_at: now };
            by_policy.insert(policy.to_owned(), failed);
        }
    }

    /// What failed of one policy.
    pub fn of(&self, policy: &str) -> Option<FailedConditions> {
        self.by_policy.lock().unwrap_or_else(PoisonError::into_inner).get(policy).cloned()
    }

    /// Forgets policies that are no more: there are as many entries as policies.
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
