//! Decides whether a process is the one that the order means: by the time, and by its name.

use std::time::Duration;

use crate::actions::Attempt;
use crate::actions::about::values;
use crate::actions::kill_process::in_time;
use crate::actions::process_stat::ProcessStat;
use crate::platform::clocks;

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
        // Both count from the host's boot, so a wall clock that was set meanwhile shifts both.
        let began = Duration::from_millis(seen.started.saturating_mul(1000) / clocks::ticks_per_second());
        in_time::check(times, number, times.now.wall.minus(times.now.since_boot).plus(began))?;
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

fn shorten(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(MAX_NAME_BYTES)]
}
