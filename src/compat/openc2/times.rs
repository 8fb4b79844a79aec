//! How long a command holds: `start_time`, `stop_time` and `duration`, in milliseconds, any two of them.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::answer::OpenC2Answer;
use super::command::CommandTimes;
use crate::domain::duration::Span;

/// By how much a producer's clock may be ahead.
const SKEW_MILLIS: i64 = 5000;

/// How long from `now` on; `None`: until it is lifted.
///
/// # Errors
/// 400 if the times contradict each other or are over; 501 if it is to begin later.
pub fn lasting(times: CommandTimes, now: Timestamp) -> Result<Option<Duration>, OpenC2Answer> {
    let CommandTimes { start, stop, duration } = times;
    let now = now.as_millis();
    let (start, stop) = match (start, stop, duration) {
        (Some(_), Some(_), Some(_)) => {
            return Err(OpenC2Answer::bad("/args has start_time, stop_time and duration: two of them say it all"));
        }
        (_, Some(stop), Some(duration)) => (stop.checked_sub(duration), Some(stop)),
        (start, None, Some(duration)) => {
            let start = start.unwrap_or(now);
            let stop = start.checked_add(duration);
            (Some(start), Some(stop.ok_or_else(|| OpenC2Answer::bad("/args/duration is too long"))?))
        }
        (start, stop, None) => (start.or(Some(now)), stop),
    };
    if start.is_none_or(|start| start > now.saturating_add(SKEW_MILLIS)) {
        return Err(OpenC2Answer::beyond("/args: a command cannot begin later; send it when it is to begin"));
    }
    let Some(stop) = stop else { return Ok(None) };
    let left = u64::try_from(stop.saturating_sub(now)).ok().filter(|left| *left > 0);
    let left = Duration::from_millis(left.ok_or_else(|| OpenC2Answer::bad("/args: the time of the command is over"))?);
    if left > Span::MAX {
        return Err(OpenC2Answer::bad("/args: ten years at most; without an end a command holds until it is lifted"));
    }
    Ok(Some(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn of(start: Option<i64>, stop: Option<i64>, duration: Option<i64>) -> Result<Option<u128>, u16> {
        let lasting = lasting(CommandTimes { start, stop, duration }, Timestamp::from_millis(NOW));
        lasting.map(|left| left.map(|left| left.as_millis())).map_err(|fault| fault.status as u16)
    }

    #[test]
    fn any_two_times_say_how_long() {
        assert_eq!(of(None, None, None), Ok(None));
        assert_eq!(of(None, None, Some(600)), Ok(Some(600)));
        assert_eq!(of(Some(NOW - 100), None, Some(600)), Ok(Some(500)));
        assert_eq!(of(Some(NOW), Some(NOW + 7), None), Ok(Some(7)));
        assert_eq!(of(None, Some(NOW + 7), None), Ok(Some(7)));
        assert_eq!(of(None, Some(NOW + 7), Some(10)), Ok(Some(7)));
        assert_eq!(of(Some(NOW + SKEW_MILLIS), None, Some(1)), Ok(Some(5001)));
    }

    #[test]
    fn times_that_cannot_be_kept_are_refused() {
        assert_eq!(of(Some(NOW), Some(NOW + 1), Some(1)), Err(400));
        assert_eq!(of(None, Some(NOW), None), Err(400), "over");
        assert_eq!(of(Some(NOW - 100), None, Some(100)), Err(400), "over");
        assert_eq!(of(Some(NOW + SKEW_MILLIS + 1), None, None), Err(501));
        assert_eq!(of(None, Some(NOW + 60_000), Some(100)), Err(501), "it would begin later");
        assert_eq!(of(None, None, Some(i64::MAX)), Err(400));
        assert_eq!(of(None, Some(i64::MAX), None), Err(400));
        assert_eq!(of(None, Some(i64::MIN), Some(i64::MAX)), Err(501));
    }
}
