//! Evidence: the state of a target before the action. A killed process or a moved file cannot be
//! examined afterwards, and an analyst in the morning has only this.
//!
//! An attacker can have written nearly every text in it. Each text is cut, and what a terminal
//! could take for a command is escaped. Collecting is limited in size and time. What could not be
//! seen is reported and does not stop the action.

#[cfg(unix)]
#[path = "evidence/unix.rs"]
mod native;
#[cfg(windows)]
#[path = "evidence/windows.rs"]
mod native;

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use riposte_protocol::message::MAX_EVIDENCE_BYTES;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) use self::native::*;
use crate::platform::facts;
use crate::platform::guarded;

/// Longest text, in bytes after escaping.
const MAX_TEXT_BYTES: usize = 512;
/// Time limit for reading a program's file for its hash.
const HASH_TIME: Duration = Duration::from_millis(1500);

/// Runs `look` in a thread of its own, because the agent has only one; an error becomes evidence
/// too.
pub(super) async fn in_thread(look: impl FnOnce() -> Value + Send + 'static) -> Option<Value> {
    let found = tokio::task::spawn_blocking(look).await;
    Some(found.map_or_else(|error| json!({ "unseen": text(&error.to_string()) }), bounded))
}

/// The file at `path`; `kept` is what the journal will record about it.
pub(super) fn file(path: &Path, kept: &Value) -> Value {
    // The path with those links resolved that only root could have made.
    let place = guarded::place(path).map(|place| place.path());
    let path = place.as_deref().unwrap_or(path);
    let unseen =
        |reason: &str| json!({ "kind": "file", "path": text(&path.to_string_lossy()), "unseen": text(reason) });
    let facts = match facts::of_file(path) {
        Ok(facts) => facts,
        Err(error) => return unseen(&error.to_string()),
    };
    // Another file may be at the path by now; its state is no evidence.
    if kept["inode"].as_u64().is_some_and(|inode| facts["inode"] != inode) {
        return unseen("another file is at its place now");
    }
    let mut found = json!({ "kind": "file", "path": text(&path.to_string_lossy()), "sha256": kept["sha256"] });
    if let (Some(found), Value::Object(facts)) = (found.as_object_mut(), facts) {
        found.extend(facts);
    }
    found
}

/// SHA-256 of the part of the file that could be read in time.
pub(super) fn hash(path: &Path) -> Result<String, String> {
    let mut file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let (end, mut sha256) = (Instant::now() + HASH_TIME, Sha256::new());
    let mut chunk = vec![0; 128 * 1024];
    loop {
        let length = file.read(&mut chunk).map_err(|error| error.to_string())?;
        if length == 0 {
            return Ok(sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        if Instant::now() > end {
            return Err("it is too large to be read in time".into());
        }
        sha256.update(&chunk[..length]);
    }
}

/// A hostile text, safe to show anywhere: it is cut, and nothing in it moves a cursor or reverses a
/// line.
pub(super) fn text(raw: &str) -> String {
    let mut shown = String::new();
    for character in raw.chars() {
        let is_plain = character == ' '
            || character.is_ascii_graphic() && character != '\\'
            || !character.is_ascii() && {
                // Letters and symbols of any script, but no characters that control how others are
                // shown.
                character.is_alphanumeric()
            };
        let written = if is_plain { character.to_string() } else { character.escape_default().to_string() };
        if shown.len() + written.len() > MAX_TEXT_BYTES {
            shown.push('…');
            break;
        }
        shown.push_str(&written);
    }
    shown
}

/// Evidence within the size limit of a result: the longest parts are dropped first.
pub(super) fn bounded(mut evidence: Value) -> Value {
    while evidence.to_string().len() > MAX_EVIDENCE_BYTES {
        let Some(fields) = evidence.as_object_mut() else { return json!({ "left_out": "it is too large" }) };
        let longest = fields.iter().max_by_key(|(_, value)| value.to_string().len()).map(|(name, _)| name.clone());
        let Some(longest) = longest else { break };
        fields.insert(longest, json!({ "left_out": true }));
    }
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_steers_a_terminal_and_each_is_cut() {
        assert_eq!(text("/tmp/a b"), "/tmp/a b");
        assert_eq!(text("a\u{1b}[2Jb\nc\\"), "a\\u{1b}[2Jb\\nc\\\\");
        assert_eq!(text("grün\u{202e}gpj"), "grün\\u{202e}gpj");
        let long = text(&"\u{7}".repeat(4000));
        assert!(long.len() <= MAX_TEXT_BYTES + '…'.len_utf8() && long.ends_with('…'));
    }

    #[test]
    fn evidence_never_exceeds_its_limit() {
        let hostile = json!({ "kind": "process", "arguments": vec!["\"".repeat(500); 40], "parent": 1 });
        let kept = bounded(hostile);
        assert!(kept.to_string().len() <= MAX_EVIDENCE_BYTES);
        assert_eq!((&kept["parent"], &kept["arguments"]), (&json!(1), &json!({ "left_out": true })));
    }
}
