//! The time of a world on the clocks of its hosts.

use riposte_protocol::time::Timestamp;

use crate::plan::Millis;

/// Wall clock at the start of a world; an arbitrary instant.
const ORIGIN: i64 = 1_795_514_400_000;

/// When a clock that is off by `off` reaches `wall`, if it is not set meanwhile.
pub(crate) fn of(wall: Timestamp, off: i64) -> Millis {
    Millis::try_from(wall.as_millis() - ORIGIN - off).unwrap_or(0)
}

/// The reading of a clock that is off by `off`.
pub(crate) fn wall(now: Millis, off: i64) -> Timestamp {
    Timestamp::from_millis(ORIGIN + off + i64::try_from(now).unwrap_or(i64::MAX))
}
