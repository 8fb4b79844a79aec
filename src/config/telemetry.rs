//! What `[telemetry]` says: where traces and metrics go, and how many.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The share of traces that is recorded, from 0 to 1, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct SampleRatio(u32);

const WHOLE: f64 = 1_000_000.0;

impl SampleRatio {
    /// Every trace.
    pub const ALL: Self = Self(1_000_000);

    /// Of a million traces, those that are recorded.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

impl TryFrom<f64> for SampleRatio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(format!("{ratio} is not a ratio from 0 to 1"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to a million")]
        Ok(Self((ratio * WHOLE).round() as u32))
    }
}

impl FromStr for SampleRatio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse::<f64>().map_err(|_| format!("{text} is not a ratio from 0 to 1"))?.try_into()
    }
}

impl fmt::Display for SampleRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_from_0_to_1() {
        for (text, millionths) in [("0", 0), ("1", 1_000_000), ("0.25", 250_000), (" 0.000001", 1)] {
            let ratio: SampleRatio = text.parse().unwrap();
            assert_eq!(ratio.millionths(), millionths, "{text}");
            assert_eq!(ratio.to_string().parse(), Ok(ratio), "{text}");
        }
        for text in ["", "x", "-0.1", "1.1", "NaN", "inf", "50%"] {
            assert!(text.parse::<SampleRatio>().is_err(), "{text}");
        }
    }
}
