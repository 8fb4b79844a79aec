//! What this host is and what this process may do on it. Read-only.

use riposte_protocol::message::Platform;

/// The operating system, the architecture and the system's own name for its version.
pub fn describe() -> Platform {
    Platform { os: std::env::consts::OS.into(), arch: std::env::consts::ARCH.into(), version: version() }
}

/// The host's name, or `unnamed`.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".into())
}

/// Whether this process runs as the superuser.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether this process runs as the superuser.
///
/// # Errors
/// The reason, for people.
pub fn must_be_root() -> Result<(), String> {
    if is_root() { Ok(()) } else { Err("not permitted: needs root".into()) }
}

/// Whether this process may change the network's configuration.
///
/// # Errors
/// The reason, for people.
pub fn may_configure_network() -> Result<(), String> {
    // CAP_NET_ADMIN is what counts, not uid 0: a service may have the one without the other, both ways.
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let allowed = effective_capabilities().map_or_else(is_root, |capabilities| capabilities & CAP_NET_ADMIN != 0);
    if allowed { Ok(()) } else { Err("not permitted: needs root or CAP_NET_ADMIN".into()) }
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(field.trim(), 16).ok()
}

fn version() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_default()
}
