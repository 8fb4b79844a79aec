//! Windows: the process is held by a handle, which keeps its number from being used again.

use std::path::Path;

use serde_json::{Value, json};

use super::super::about::values;
use super::super::{ActionError, Attempt, Host, evidence};
use super::in_time::{self, PATIENCE};
use crate::platform::processes::{self, Held};

/// What is done to the process, for people.
pub(super) const VERB: &str = "TerminateProcess of";

/// Processes can always be seen.
///
/// # Errors
/// Never.
#[expect(clippy::unnecessary_wraps, reason = "other systems may hide them")]
pub(super) fn can_look(_host: &Host) -> Result<(), String> {
    Ok(())
}

/// What the process is.
pub(super) async fn evidence(attempt: &Attempt<'_>) -> Option<Value> {
    let number: u32 = attempt.target.value().parse().ok()?;
    let held = Held::to_see(number).ok().flatten()?;
    evidence::in_thread(move || {
        let program = held.program().map_err(|error| error.to_string());
        let unseen = |error: String| json!({ "unseen": evidence::text(&error) });
        // A file of another host is not opened: the system would log in there.
        let own = program.clone().and_then(|path| {
            let text = path.to_string_lossy().into_owned();
            let is_here = matches!(text.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic());
            if is_here { Ok(path) } else { Err("its program is not on this host".to_owned()) }
        });
        let sha256 = own.and_then(|path| evidence::hash(&path)).map_or_else(unseen, Value::from);
        let shown = |path: &Path| Value::from(evidence::text(&path.to_string_lossy()));
        json!({
            "kind": "process",
            "process": number.to_string(),
            "began_at": held.began().ok(),
            "executable": program.map_or_else(unseen, |path| shown(&path)),
            "sha256": sha256,
            "parent": held.parent(),
        })
    })
    .await
}

/// Ends the process that is meant.
pub(super) async fn apply(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let number = attempt.target.value();
    let parsed: u32 = number.parse().map_err(|_| ActionError::Refused(format!("{number} is not a process")))?;
    if let Some(what) = processes::own(number) {
        return Err(ActionError::Refused(format!("the process is {what}: protected")));
    }
    let failed =
        |what: &str, error: &std::io::Error| ActionError::Failed(format!("process {number} cannot be {what}: {error}"));
    let held = Held::to_end(parsed).map_err(|error| failed("held", &error))?;
    let held =
        held.ok_or_else(|| ActionError::Refused(format!("there is no process {number} on this host (any more)")))?;
    if held.is_critical() {
        return Err(ActionError::Refused(format!("Windows itself ends with process {number}: protected")));
    }
    check(attempt, number, &held).map_err(ActionError::Refused)?;
    if let Some(reason) = attempt.policy.and_then(|policy| policy.protects(attempt.target)) {
        return Err(ActionError::Refused(format!("the target is protected: {reason}")));
    }
    held.end().map_err(|error| failed("ended", &error))?;
    // In a thread: the agent has only one of its own.
    let gone = tokio::task::spawn_blocking(move || held.is_gone_within(PATIENCE)).await;
    if !gone.unwrap_or(false) {
        return Err(ActionError::TimedOut(format!("process {number} was ended and is not gone yet")));
    }
    // By now another process may have its number.
    attempt.saw_in_force();
    Ok(())
}

/// Whether the process is gone.
pub(super) fn is_gone(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let number = attempt.target.value();
    let held = number.parse().map_or(Ok(None), Held::to_see);
    let held = held.map_err(|error| ActionError::Failed(format!("process {number} cannot be looked at: {error}")))?;
    let Some(held) = held else { return Ok(true) };
    let began = held.began().ok().map(|began| json!(began));
    let seen = attempt.evidence.map(|evidence| &evidence["began_at"]).filter(|seen| !seen.is_null());
    Ok(seen.is_some_and(|seen| began.as_ref() != Some(seen)))
}

/// Checks that the held process is the one that the order means.
fn check(attempt: &Attempt<'_>, number: &str, held: &Held) -> Result<(), String> {
    let (names, paths) = (values(attempt.arguments, "name"), values(attempt.arguments, "path"));
    if let Some(times) = &attempt.times {
        let began = held.began().map_err(|error| format!("the start of process {number} cannot be seen: {error}"))?;
        in_time::check(times, number, began)?;
        if times.is_told && names.is_empty() && paths.is_empty() {
            return Err("a number alone may be another process's by now: the order needs name= or path=".into());
        }
    }
    if names.is_empty() && paths.is_empty() {
        return Ok(());
    }
    let program = held.program().map_err(|error| format!("the program of process {number} cannot be seen: {error}"))?;
    let shown = program.display().to_string();
    let name = program.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let is_named = |expected: &&str| {
        let expected = expected.to_lowercase();
        expected == name || name.strip_suffix(".exe") == Some(expected.as_str())
    };
    if names.first().is_some_and(|expected| !is_named(expected)) {
        return Err(format!("process {number} is '{}', not what was meant", name.escape_debug()));
    }
    if paths.first().is_some_and(|expected| expected.to_lowercase() != shown.to_lowercase()) {
        return Err(format!("process {number} runs '{}', not what was meant", shown.escape_debug()));
    }
    Ok(())
}
