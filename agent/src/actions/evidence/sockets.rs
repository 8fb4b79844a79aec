//! The connections of a process or a host, from `/proc`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

/// Limit of sockets in the evidence.
const MAX_SHOWN: usize = 24;
/// Limit of a process's open files, and of lines of one kernel table, that are read.
const MAX_FILES: usize = 4096;
const MAX_LINES: usize = 65_536;

/// One line of a socket table.
struct Socket {
    protocol: &'static str,
    local: SocketAddr,
    remote: SocketAddr,
    state: &'static str,
    inode: u64,
}

/// The open sockets of a process, from the tables of its own network namespace.
pub(super) fn of_process(folder: &Path) -> Result<Value, String> {
    let files = std::fs::read_dir(folder.join("fd")).map_err(|error| error.to_string())?;
    let inode = |file: std::fs::DirEntry| {
        let name = std::fs::read_link(file.path()).ok()?;
        name.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    };
    let own: BTreeSet<u64> = files.flatten().take(MAX_FILES).filter_map(inode).collect();
    if own.is_empty() {
        return Ok(json!([]));
    }
    let sockets = tables(&folder.join("net"))?;
    Ok(shown(sockets.iter().filter(|socket| own.contains(&socket.inode))))
}

/// All sockets of the network whose tables are in `net`; connected ones first.
pub(super) fn of_host(net: &Path) -> Result<Value, String> {
    let mut sockets = tables(net)?;
    sockets.sort_by_key(|socket| (socket.state != "established", socket.state == "time_wait"));
    Ok(shown(sockets.iter()))
}

fn shown<'a>(sockets: impl Iterator<Item = &'a Socket>) -> Value {
    let mut all: Vec<Value> = sockets
        .map(|Socket { protocol, local, remote, state, .. }| {
            json!({ "protocol": protocol, "local": local.to_string(), "remote": remote.to_string(), "state": state })
        })
        .collect();
    let left_off = all.len().saturating_sub(MAX_SHOWN);
    all.truncate(MAX_SHOWN);
    if left_off > 0 {
        all.push(json!({ "left_off": left_off }));
    }
    all.into()
}

fn tables(net: &Path) -> Result<Vec<Socket>, String> {
    let mut sockets = Vec::new();
    for (file, protocol) in [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")] {
        match std::fs::read_to_string(net.join(file)) {
            Ok(table) => {
                let lines = table.lines().skip(1).take(MAX_LINES);
                sockets.extend(lines.filter_map(|line| socket(protocol, line)));
            }
            // A host without IPv6 has no such table.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(sockets)
}

fn socket(protocol: &'static str, line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = match (*fields.get(3)?, protocol) {
        ("01", _) => "established",
        ("02", _) => "syn_sent",
        ("06", _) => "time_wait",
        ("0A", _) => "listen",
        ("07", "udp") => "bound",
        _ => "closing",
    };
    let (local, remote) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
    Some(Socket { protocol, local, remote, state, inode: fields.get(9)?.parse().ok()? })
}

/// Parses `0100007F:1F90`: words of 32 bits in the host's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = host
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let address = match words.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_way_of_writing_addresses_is_read() {
        let text = |raw: &str| address(raw).map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(text("0100007F:1F90"), "127.0.0.1:8080");
        assert_eq!(text("0000000000000000FFFF00000771A8C0:0016"), "192.168.113.7:22");
        assert_eq!(text("B80D0120000000000000000001000000:0050"), "[2001:db8::1]:80");
        assert_eq!(text("garbage"), "");
    }
}
