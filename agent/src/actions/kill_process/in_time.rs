//! A kernel reuses the number of an ended process, within minutes on a busy host, and after a restart
//! of the host all numbers. So an order means only a process that was there when its target was seen.

use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::super::attempt::Times;

/// Time limit for a killed process to disappear; one that waits for a disk takes long.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How much later than the order's time a process may seem to have started: the difference of two
/// clocks under NTP, and one tick of the kernel, to which it rounds down.
const TOLERANCE: Duration = Duration::from_millis(50);
/// How far this host's clock may be behind the manager's, which is sent in whole seconds. With a
/// larger difference, every process would seem to be old enough.
const BEHIND: Duration = Duration::from_secs(1);
/// Checks that the process of that number, which began at `began`, was there when the order's target
/// was seen.
///
/// # Errors
/// Why not, for people.
pub(super) fn check(times: &Times, number: &str, began: Timestamp) -> Result<(), String> {
    let Times { as_of, issued, now, .. } = times;
    if *issued > now.wall.plus(BEHIND) {
        let behind = issued.since(now.wall).as_secs();
        return Err(format!(
            "this host's clock is {behind} s behind the manager's, so it cannot be told whether process {number} was there \
             when it was ordered: set the clock"
        ));
    }
    let started_at = now.wall.minus(now.since_boot);
    if as_of.plus(TOLERANCE) < started_at {
        return Err(format!(
            "the order is about {as_of}, and this host was started at {started_at}: process numbers have changed since"
        ));
    }
    if began > as_of.plus(TOLERANCE) {
        return Err(format!(
            "process {number} began at {began}, after {as_of}: it is another process with the same number"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Moment;

    const NOW: i64 = 1_795_514_400_000;

    fn judge(as_of: i64, issued: i64, started_ticks: u64) -> String {
        let at = |millis: i64| Timestamp::from_millis(NOW + millis);
        // The host booted 100 s ago.
        let now = Moment { wall: at(0), since_boot: Duration::from_secs(100), boot: "boot 1".into() };
        let times = Times { as_of: at(as_of), is_told: true, issued: at(issued), now };
        let began = at(0).minus(Duration::from_secs(100)).plus(Duration::from_millis(started_ticks * 10));
        check(&times, "7", began).err().unwrap_or_default()
    }

    #[test]
    fn a_process_that_began_later_and_an_order_from_before_the_start_are_refused() {
        assert_eq!(judge(-10_000, -10_000, 9000), "", "it began at the very time");
        assert_eq!(judge(-10_000, -10_000, 9005), "", "50 ms later");
        assert!(judge(-10_000, -10_000, 9006).contains("it is another process with the same number"));
        assert!(judge(-101_000, -101_000, 0).contains("process numbers have changed since"));
        assert_eq!(judge(-99_000, -99_000, 50), "");
    }

    #[test]
    fn a_host_whose_clock_is_behind_kills_nothing() {
        assert!(judge(86_400_000, 86_400_000, 1).contains("86400 s behind"));
        assert!(judge(2000, 2000, 1).contains("2 s behind"));
        assert_eq!(judge(900, 900, 1), "", "less than can be told");
    }
}
