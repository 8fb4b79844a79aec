//! Effects: what is or should be in force on one agent. Several responses can hold one effect; the
//! longest hold wins. These rules decide when a command is needed, and which (promises 5 and 6).

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// When something ends. `Never` sorts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Until {
    /// At an instant.
    At(Timestamp),
    /// Only when lifted by hand.
    Never,
}

impl Until {
    /// The instant, if any.
    pub const fn instant(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Never => None,
        }
    }

    /// Whether it has ended at `now`.
    pub fn is_over(self, now: Timestamp) -> bool {
        self <= Self::At(now)
    }
}

impl From<Option<Timestamp>> for Until {
    fn from(instant: Option<Timestamp>) -> Self {
        instant.map_or(Self::Never, Self::At)
    }
}

/// Wanted state of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It should be in force.
    InForce,
    /// It should be lifted.
    Absent,
}

impl Desired {
    /// Both states.
    pub const ALL: [Self; 2] = [Self::InForce, Self::Absent];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Absent => "absent",
        }
    }

    /// Parses a state's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Last reported state of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Actual {
    /// No report yet, or no certainty.
    Unknown,
    /// In force.
    InForce,
    /// Not in force.
    Absent,
    /// Found missing or changed when the agent checked it.
    Drifted,
}

impl Actual {
    /// All states, for the test that compares code, schema and docs.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::InForce, Self::Absent, Self::Drifted];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InForce => "in_force",
            Self::Absent => "absent",
            Self::Drifted => "drifted",
        }
    }

    /// Parses a state's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Outcome of an apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastApply {
    /// Succeeded and verified.
    Verified,
    /// Succeeded according to the program; it cannot be verified.
    Unverified,
    /// Not executed, because the agent only observes.
    Observed,
    /// Failed, or not found in force afterwards.
    Failed,
    /// Refused by the agent.
    Refused,
    /// Stopped by a time limit, or without a result.
    TimedOut,
    /// Not acknowledged in time.
    Expired,
    /// Cancelled before it was sent.
    Cancelled,
}

impl LastApply {
    /// All outcomes of an apply.
    pub const ALL: [Self; 8] = [
        Self::Verified,
        Self::Unverified,
        Self::Observed,
        Self::Failed,
        Self::Refused,
        Self::TimedOut,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Name in the API and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Observed => "observed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Parses an outcome's name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }

    /// Whether the effect came into force.
    pub const fn is_in_force(self) -> bool {
        matches!(self, Self::Verified | Self::Unverified)
    }

    /// The outcome and its reason, in words.
    pub fn behind(self, reason: &str) -> String {
        if reason.is_empty() { self.words().to_owned() } else { format!("{}: {reason}", self.words()) }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Verified | Self::Unverified => "lost",
            Self::Observed => "observed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::Expired => "expired",
            Self::Cancelled => "called back",
        }
    }
}

/// State of an effect when a response released it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAs {
    /// It was in force.
    InForce,
    /// No apply had finished.
    Withdrawn,
    /// It never came into force; this is the outcome of its apply.
    Never(LastApply),
}

impl LeftAs {
    /// Name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Withdrawn => "withdrawn",
            Self::Never(last_apply) => last_apply.as_str(),
        }
    }

    /// Parses the word of a state.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "in_force" => Some(Self::InForce),
            "withdrawn" => Some(Self::Withdrawn),
            word => LastApply::parse(word).map(Self::Never),
        }
    }
}

/// An effect before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Wanted state.
    pub desired: Desired,
    /// Last reported state.
    pub actual: Actual,
    /// End of the effect.
    pub until: Until,
}

/// Adds a hold until `until`. Returns the end to apply now, or `None` if the current effect is
/// enough.
pub fn take_hold(standing: Option<Standing>, until: Until) -> Option<Until> {
    match standing {
        Some(Standing { desired: Desired::InForce, actual, until: stands }) => {
            // Reported as not in force: apply again, with the later end.
            let lost = matches!(actual, Actual::Absent | Actual::Drifted);
            (lost || until > stands).then(|| until.max(stands))
        }
        _ => Some(until),
    }
}

/// What the end of a hold requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing: another hold lasts as long.
    Nothing,
    /// An earlier end: the remaining holds are shorter.
    Shorten(Until),
    /// The last hold has ended.
    Lift,
}

/// Ends a hold of an effect that ends at `stands`; `longest_left` is the longest remaining hold.
pub fn let_go(stands: Until, longest_left: Option<Until>) -> Release {
    match longest_left {
        None => Release::Lift,
        Some(left) if left < stands => Release::Shorten(left),
        Some(_) => Release::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(secs: i64) -> Until {
        Until::At(Timestamp::from_millis(secs * 1000))
    }

    #[expect(clippy::unnecessary_wraps, reason = "what stands is optional where it is used")]
    const fn in_force(actual: Actual, until: Until) -> Option<Standing> {
        Some(Standing { desired: Desired::InForce, actual, until })
    }

    #[test]
    fn the_longest_wins() {
        assert_eq!(take_hold(None, at(10)), Some(at(10)));
        assert_eq!(take_hold(in_force(Actual::InForce, at(20)), at(10)), None);
        assert_eq!(take_hold(in_force(Actual::Unknown, at(20)), at(20)), None);
        assert_eq!(take_hold(in_force(Actual::InForce, at(20)), at(30)), Some(at(30)));
        assert_eq!(take_hold(in_force(Actual::InForce, at(20)), Until::Never), Some(Until::Never));
        assert_eq!(take_hold(in_force(Actual::InForce, Until::Never), at(30)), None);
        let lifted = Standing { desired: Desired::Absent, actual: Actual::Unknown, until: at(20) };
        assert_eq!(take_hold(Some(lifted), at(10)), Some(at(10)));
    }

    #[test]
    fn a_block_that_is_not_in_force_is_applied_again() {
        assert_eq!(take_hold(in_force(Actual::Absent, at(20)), at(10)), Some(at(20)));
        assert_eq!(take_hold(in_force(Actual::Drifted, at(20)), at(30)), Some(at(30)));
    }

    #[test]
    fn lifting_one_hold_does_not_lift_the_other() {
        assert_eq!(let_go(at(20), None), Release::Lift);
        assert_eq!(let_go(at(20), Some(at(20))), Release::Nothing);
        assert_eq!(let_go(at(20), Some(at(10))), Release::Shorten(at(10)));
        assert_eq!(let_go(Until::Never, Some(at(10))), Release::Shorten(at(10)));
        assert_eq!(let_go(Until::Never, Some(Until::Never)), Release::Nothing);
    }

    proptest! {
        /// After any sequence of holds, the effect ends with its longest hold.
        #[test]
        fn the_end_is_always_that_of_the_longest_hold(steps in proptest::collection::vec((any::<bool>(), 0i64..50), 1..60)) {
            let mut holds: Vec<Until> = Vec::new();
            let mut standing: Option<Standing> = None;
            for (take, value) in steps {
                if take || holds.is_empty() {
                    let until = if value == 49 { Until::Never } else { at(value) };
                    holds.push(until);
                    if let Some(until) = take_hold(standing, until) {
                        standing = in_force(Actual::InForce, until);
                    }
                } else {
                    holds.remove(usize::try_from(value).unwrap() % holds.len());
                    let stands = standing.unwrap().until;
                    standing = match let_go(stands, holds.iter().max().copied()) {
                        Release::Nothing => standing,
                        Release::Shorten(until) => in_force(Actual::InForce, until),
                        Release::Lift => Some(Standing { desired: Desired::Absent, ..standing.unwrap() }),
                    };
                }
                let in_force = standing.filter(|standing| standing.desired == Desired::InForce);
                prop_assert_eq!(in_force.map(|standing| standing.until), holds.iter().max().copied());
            }
        }
    }
}
