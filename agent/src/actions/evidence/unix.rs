//! What `/proc` shows of a process and of the host.

mod sockets;

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::process_stat::ProcessStat;
use super::{hash, text};
use crate::platform::accounts;

/// Limit of arguments of a process.
const MAX_ARGUMENTS: usize = 32;
/// Limit of all arguments of a process together, in bytes.
const MAX_ARGUMENT_BYTES: usize = 2048;

/// The process of that number, which started `started` ticks after the host's boot, as in `proc`.
pub(in super::super) fn process(proc: &Path, number: &str, started: u64) -> Value {
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

/// The host's open connections, as in `proc`.
pub(in super::super) fn host(proc: &Path) -> Value {
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
    let name = accounts::name_of_number(user).map(|name| text(&name));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_cut_and_counted() {
        assert_eq!(arguments(b"a\0b c\0"), json!(["a", "b c"]));
        let many = arguments("x\0".repeat(100).as_bytes());
        assert_eq!(many[MAX_ARGUMENTS], json!("[68 more]"));
    }
}
