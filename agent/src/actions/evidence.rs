//! Evidence: the state of a target before the action. A killed process or a moved file cannot be
//! examined afterwards, and an analyst in the morning has only this.
//!
//! An attacker can have written nearly every text in it. Each text is cut, and what a terminal
//! could take for a command is escaped. Collecting is limited in size and time. What could not be
//! seen is reported and does not stop the action.

mod sockets;

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use riposte_protocol::message::MAX_EVIDENCE_BYTES;
use riposte_protocol::time::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::process_stat::ProcessStat;
use crate::guarded;

/// Longest text, in bytes after escaping.
const MAX_TEXT_BYTES: usize = 512;
/// Limit of arguments of a process.
const MAX_ARGUMENTS: usize = 32;
/// Limit of all arguments of a process together, in bytes.
const MAX_ARGUMENT_BYTES: usize = 2048;
/// Time limit for reading a program's file for its hash.
const HASH_TIME: Duration = Duration::from_millis(1500);

/// Runs `look` in a thread of its own, because the agent has only one; an error becomes evidence
/// too.
pub(super) async fn in_thread(look: impl FnOnce() -> Value + Send + 'static) -> Option<Value> {
    let found = tokio::task::spawn_blocking(look).await;
    Some(found.map_or_else(|error| json!({ "unseen": text(&error.to_string()) }), bounded))
}

/// The process of that number, which started `started` ticks after the host's boot, as in `proc`.
pub(super) fn process(proc: &Path, number: &str, started: u64) -> Value {
    let folder = proc.join(number);
    let mut found = Map::new();
    found.insert("kind".into(), "process".into());
    found.insert("process".into(), number.into());
    found.insert("started_ticks".into(), started.into());
    let mut add = |name: &str, value: Result<Value, String>| {
        let value = value.unwrap_or_else(|error| json!({ "unseen": text(&error) }));
        found.insert(name.into(), value);
    };
    let link = |name: &str| {
        let path = std::fs::read_link(folder.join(name)).map_err(|error| error.to_string())?;
        Ok(text(&path.to_string_lossy()).into())
    };
    let file = |name: &str| {
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(folder.join(name));
        let read = opened.and_then(|file| file.take(64 * 1024).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| error.to_string())
    };
    add("executable", link("exe"));
    add("sha256", hash(&folder.join("exe")).map(Value::from));
    add("directory", link("cwd"));
    add("arguments", file("cmdline").map(|bytes| arguments(&bytes)));
    add("control_group", file("cgroup").map(|bytes| text(String::from_utf8_lossy(&bytes).trim_end()).into()));
    let status = file("status").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    add("account", status.and_then(|status| account(&status).ok_or_else(|| "no account in its status".into())));
    add("parent", parent(proc, number));
    add("sockets", sockets::of_process(&folder));
    Value::Object(found)
}

/// The file at `path`; `kept` is what the journal will record about it.
pub(super) fn file(path: &Path, kept: &Value) -> Value {
    use std::os::unix::fs::MetadataExt as _;
    // The path with those links resolved that only root could have made.
    let place = guarded::place(path).map(|place| place.path());
    let path = place.as_deref().unwrap_or(path);
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            return json!({ "kind": "file", "path": text(&path.to_string_lossy()), "unseen": text(&error.to_string()) });
        }
    };
    // Another file may be at the path by now; its state is no evidence.
    if kept["inode"].as_u64().is_some_and(|inode| inode != metadata.ino()) {
        return json!({ "kind": "file", "path": text(&path.to_string_lossy()), "unseen": "another file is at its place now" });
    }
    let owner = nix::unistd::User::from_uid(metadata.uid().into()).ok().flatten().map(|user| text(&user.name));
    let group = nix::unistd::Group::from_gid(metadata.gid().into()).ok().flatten().map(|group| text(&group.name));
    let time = |seconds: i64, nanos: i64| {
        Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
    };
    json!({
        "kind": "file",
        "path": text(&path.to_string_lossy()),
        "sha256": kept["sha256"],
        "size_bytes": metadata.len(),
        "mode": format!("{:04o}", metadata.mode() & 0o7777),
        "owner": { "uid": metadata.uid(), "name": owner },
        "group": { "gid": metadata.gid(), "name": group },
        "links": metadata.nlink(),
        "inode": metadata.ino(),
        "modified_at": time(metadata.mtime(), metadata.mtime_nsec()),
        "changed_at": time(metadata.ctime(), metadata.ctime_nsec()),
        "accessed_at": time(metadata.atime(), metadata.atime_nsec()),
    })
}

/// The host's open connections, as in `proc`.
pub(super) fn host(proc: &Path) -> Value {
    let sockets = sockets::of_host(&proc.join("net")).unwrap_or_else(|error| json!({ "unseen": text(&error) }));
    json!({ "kind": "host", "sockets": sockets })
}

fn parent(proc: &Path, number: &str) -> Result<Value, String> {
    let stat = std::fs::read(proc.join(number).join("stat")).map_err(|error| error.to_string())?;
    let own = ProcessStat::parse(&String::from_utf8_lossy(&stat)).ok_or("its state cannot be understood")?;
    let parent = proc.join(own.parent.to_string());
    let name = std::fs::read(parent.join("comm")).unwrap_or_default();
    let program = std::fs::read_link(parent.join("exe")).unwrap_or_default();
    Ok(json!({
        "process": own.parent,
        "name": text(String::from_utf8_lossy(&name).trim_end()),
        "executable": text(&program.to_string_lossy()),
    }))
}

fn account(status: &str) -> Option<Value> {
    let of =
        |field: &str| status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().nth(1)?.parse().ok());
    let (user, group): (u32, u32) = (of("Uid:")?, of("Gid:")?);
    let name = nix::unistd::User::from_uid(user.into()).ok().flatten().map(|user| text(&user.name));
    Some(json!({ "uid": user, "gid": group, "name": name }))
}

fn arguments(bytes: &[u8]) -> Value {
    let mut room = MAX_ARGUMENT_BYTES;
    let (mut shown, mut left_off) = (Vec::new(), 0);
    for argument in bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|byte| *byte == 0) {
        let argument = text(&String::from_utf8_lossy(argument));
        if shown.len() == MAX_ARGUMENTS || argument.len() > room {
            left_off += 1;
            continue;
        }
        room -= argument.len();
        shown.push(argument);
    }
    if left_off > 0 {
        shown.push(format!("[{left_off} more]"));
    }
    shown.into()
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
        assert_eq!(arguments(b"a\0b c\0"), json!(["a", "b c"]));
        let many = arguments("x\0".repeat(100).as_bytes());
        assert_eq!(many[MAX_ARGUMENTS], json!("[68 more]"));
    }
}
