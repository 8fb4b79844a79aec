//! Guardrails of a policy: threshold, limits, escalation, approval. `guardrails_reader.rs` parses
//! them; they are evaluated with the ledger's history at commit (`store/ledger/guard.rs`).

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::alert::TargetField;
use crate::domain::duration::Span;

/// A ratio in whole percent: `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("is not a share"))
    }
}

impl Percent {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('%')?;
        let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|share| plain && (1..=100).contains(share)).map(Self)
    }

    /// Whether `part` of `whole` exceeds this ratio.
    pub fn is_exceeded(self, part: u64, whole: u64) -> bool {
        part.saturating_mul(100) > whole.saturating_mul(u64::from(self.0))
    }

    /// Whether `part` of `whole` reaches this ratio.
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        whole > 0 && part.saturating_mul(100) >= whole.saturating_mul(u64::from(self.0))
    }
}

/// A rate limit: `60/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Maximum number.
    pub count: u32,
    /// Time window.
    pub within: Span,
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.count, self.within))
    }
}

impl Rate {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (count, within) = text.split_once('/')?;
        let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        let count = count.parse().ok().filter(|count| digits && *count > 0)?;
        Some(Self { count, within: within.parse().ok()? })
    }

    /// The most that it allows within any hour.
    pub fn most_per_hour(self) -> u64 {
        let windows = 3600_u64.div_ceil(self.within.duration().as_secs().max(1)).max(1);
        u64::from(self.count).saturating_mul(windows)
    }
}

/// Responds only at the n-th alert within a window, counted per observable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Threshold {
    /// Number of alerts.
    pub count: u32,
    /// Window, by time of receipt.
    #[schema(value_type = String, example = "2m")]
    pub within: Span,
    /// Observable to count by; absent: all alerts together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<TargetField>,
}

/// Longer durations for repeated targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Escalation {
    /// Durations after the first, which is `for`; the last one repeats.
    #[schema(value_type = Vec<String>, example = json!(["30m", "2h", "24h"]))]
    pub ladder: Vec<Span>,
    /// Time without a response after which the ladder starts again.
    #[schema(value_type = String, example = "7d")]
    pub forget_after: Span,
}

impl Escalation {
    /// How long a response to a target lasts after `before` earlier responses to it.
    pub fn duration(&self, first: Duration, before: u32) -> Duration {
        match (before as usize).checked_sub(1) {
            None => first,
            Some(step) => self.ladder[step.min(self.ladder.len() - 1)].duration(),
        }
    }
}

/// What happens to a response over a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverLimit {
    /// It waits for approval.
    #[default]
    Approve,
    /// It is spared.
    Drop,
    /// It is only recorded.
    Observe,
}

/// Limits of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Limits {
    /// Responses per time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "60/1m")]
    pub responses: Option<Rate>,
    /// Distinct targets per time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "200/1h")]
    pub targets: Option<Rate>,
    /// Maximum number of agents per response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents_per_response: Option<u32>,
    /// Maximum ratio of all enrolled agents per response.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10%")]
    pub fleet_share: Option<Percent>,
    /// Time after a response before the next one to the same target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30s")]
    pub cooldown: Option<Span>,
    /// What happens to a response over a limit.
    pub over_limit: OverLimit,
}

/// Stops a policy whose responses fail or are undone by people too often. Only a person resets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Breaker {
    /// Ratio of commands that failed, timed out or were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "50%")]
    pub failed: Option<Percent>,
    /// Ratio of responses that people lifted or rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30%")]
    pub undone: Option<Percent>,
    /// Minimum number of outcomes before a ratio counts.
    pub at_least: u32,
    /// Time window.
    #[schema(value_type = String, example = "1h")]
    pub within: Span,
}

/// Default of [`Waves::stop_at`], one agent in five: more is not an accident.
pub(super) const DEFAULT_STOP_AT: Percent = Percent(20);

/// Sends a response to many agents in waves, and stops if too many commands fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Waves {
    /// Number of waves.
    pub count: u32,
    /// Time over which the waves are spread evenly.
    #[schema(value_type = String, example = "10m")]
    pub over: Span,
    /// Ratio of failed commands at which the later waves are dropped.
    #[schema(value_type = String, example = "20%")]
    pub stop_at: Percent,
}

impl Limits {
    /// Whether a response to `agents` of a fleet of `fleet` exceeds the ratio. One agent never
    /// does: a ratio of a small fleet would otherwise forbid every response.
    pub fn is_over_share(&self, agents: usize, fleet: usize) -> bool {
        self.fleet_share.is_some_and(|share| agents > 1 && share.is_exceeded(agents as u64, fleet as u64))
    }
}

/// What happens when no decision arrives in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSilence {
    /// The response lapses.
    #[default]
    Reject,
    /// The response is carried out.
    Enforce,
}

impl OnSilence {
    /// Both values.
    pub const ALL: [Self; 2] = [Self::Reject, Self::Enforce];

    /// Name in policies and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Enforce => "enforce",
        }
    }

    /// Parses a value's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == word)
    }
}

/// Settings of an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Approval {
    /// Number of required approvals.
    pub quorum: u32,
    /// Time limit of the approval.
    #[schema(value_type = String, example = "15m")]
    pub within: Span,
    /// What happens when no decision arrives in time.
    pub on_silence: OnSilence,
    /// Act first, and undo unless confirmed within this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub undo_unless_confirmed: Option<Span>,
}

/// Fifteen minutes: long enough to be woken, short enough to matter.
const DEFAULT_WITHIN: &str = "15m";

impl Default for Approval {
    #[expect(clippy::expect_used, reason = "a constant text, read by the tests")]
    fn default() -> Self {
        let within = DEFAULT_WITHIN.parse().expect("a span");
        Self { quorum: 1, within, on_silence: OnSilence::Reject, undo_unless_confirmed: None }
    }
}

/// All guardrails of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Guardrails {
    /// Responds only at the n-th alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Circuit breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Settings of an approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_rises_by_steps_and_its_last_step_repeats() {
        let span = |text: &str| text.parse().unwrap();
        let escalation = Escalation { ladder: vec![span("30m"), span("2h")], forget_after: span("7d") };
        let minutes = |before| escalation.duration(Duration::from_mins(10), before).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 9].map(minutes), [10, 30, 120, 120, 120]);
    }
}
