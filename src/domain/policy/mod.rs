//! Policies: which alerts get which response, on which agents, for how long, under which
//! guardrails. `definition.rs` and `guardrails.rs` say what a policy is, `reader.rs` parses one, and
//! `domain/index.rs` matches alerts.

mod age;
mod definition;
mod fleet_warnings;
mod guardrails;
mod guardrails_reader;
mod reader;
mod warnings;

pub use age::{FUTURE_SKEW, MaxAge};
pub use definition::{MAX_POLICY_BYTES, Mode, Network, On, Policy, PolicyTest, Respond, Selector, is_name};
pub use guardrails::{
    Approval, Breaker, Escalation, Guardrails, Limits, OnSilence, OverLimit, Percent, Rate, Threshold, Waves,
};
