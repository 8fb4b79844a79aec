//! Decides whether a process is the one that the order means. A kernel reuses the number of an
//! ended process, within minutes on a busy host, and after a restart of the host all numbers. So
//! two more facts are compared: when the process was seen, and its name.

use std::time::Duration;

use super::super::about::values;
use super::super::attempt::Times;
use super::super::process_stat::ProcessStat;
use super::Attempt;
use nix::unistd::{SysconfVar, sysconf};

/// How much later than the order's time a process may seem to have started: the difference of two
/// clocks under NTP, and one tick of the kernel, to which it rounds down.
const TOLERANCE: Duration = Duration::from_millis(50);
/// How far this host's clock may be behind the manager's, which is sent in whole seconds. With a
/// larger difference, every process would seem to be old enough.
const BEHIND: Duration = Duration::from_secs(1);
/// Length of a program's name that the kernel keeps, in bytes.
const MAX_NAME_BYTES: usize = 15;
/// The kernel appends this to a program whose file was removed.
const DELETED: &str = " (deleted)";

/// Checks that the process that was `seen` is the one that the order means.
///
/// # Errors
/// Why not, for people.
pub(super) fn check(attempt: &Attempt<'_>, number: &str, seen: &ProcessStat) -> Result<(), String> {
    let names = values(attempt.arguments, "name");
    let paths = values(attempt.arguments, "path");
    if let Some(times) = &attempt.times {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        began_in_time(times, number, seen.started, ticks.filter(|ticks| *ticks > 0).unwrap_or(100))?;
        if times.is_told && names.is_empty() && paths.is_empty() {
            return Err("a number alone may be another process's by now: the order needs name= or path=".into());
        }
    }
    if is_another(attempt, seen) {
        return Err(format!("process {number} is another than the one that was looked at a moment ago"));
    }
    let program = attempt.host.path("/proc").join(number).join("exe");
    let program = std::fs::read_link(program).map(|path| path.to_string_lossy().into_owned());
    let program = program.map(|path| path.strip_suffix(DELETED).map_or_else(|| path.clone(), str::to_owned));
    if let Some(expected) = names.first() {
        let file_name = program.as_ref().ok().and_then(|path| path.rsplit('/').next());
        if shorten(expected) != shorten(&seen.name) && file_name != Some(*expected) {
            return Err(format!("process {number} is '{}', not what was meant", seen.name.escape_debug()));
        }
    }
    if let Some(expected) = paths.first() {
        let program = program.map_err(|error| format!("the program of process {number} cannot be seen: {error}"))?;
        if program != **expected {
            return Err(format!("process {number} runs '{}', not what was meant", program.escape_debug()));
        }
    }
    Ok(())
}

/// Whether the number now belongs to another process than the one in the evidence.
pub(super) fn is_another(attempt: &Attempt<'_>, seen: &ProcessStat) -> bool {
    let found = attempt.evidence.and_then(|evidence| evidence["started_ticks"].as_u64());
    found.is_some_and(|started| started != seen.started)
}

fn began_in_time(times: &Times, number: &str, started: u64, ticks_per_second: u64) -> Result<(), String> {
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
    // Both count from the host's boot, so a wall clock that was set meanwhile shifts both.
    let began = Duration::from_millis(started.saturating_mul(1000) / ticks_per_second);
    let began = started_at.plus(began);
    if began > as_of.plus(TOLERANCE) {
        return Err(format!(
            "process {number} began at {began}, after {as_of}: it is another process with the same number"
        ));
    }
    Ok(())
}

fn shorten(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(MAX_NAME_BYTES)]
}

#[cfg(test)]
mod tests {
    use riposte_protocol::time::Timestamp;

    use super::*;
    use crate::moment::Moment;

    const NOW: i64 = 1_795_514_400_000;

    fn judge(as_of: i64, issued: i64, started_ticks: u64) -> String {
        let at = |millis: i64| Timestamp::from_millis(NOW + millis);
        // The host booted 100 s ago.
        let now = Moment { wall: at(0), since_boot: Duration::from_secs(100), boot: "boot 1".into() };
        let times = Times { as_of: at(as_of), is_told: true, issued: at(issued), now };
        began_in_time(&times, "7", started_ticks, 100).err().unwrap_or_default()
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
