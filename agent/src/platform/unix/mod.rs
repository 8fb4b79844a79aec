//! The systems of the Unix family: what this host is, what this process may do on it, and what the
//! system tells.

pub mod accounts;
pub mod clocks;
pub mod facts;
pub mod guarded;
pub mod network;
pub mod places;
pub mod processes;
pub mod service;
pub mod stop;
pub mod tree;

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
    must_be_capable_of(12, "CAP_NET_ADMIN")
}

/// Whether this process may signal the processes of every account.
///
/// # Errors
/// The reason, for people.
pub fn may_kill() -> Result<(), String> {
    must_be_capable_of(5, "CAP_KILL")
}

/// Whether this process may open raw sockets, by which the older iptables talks to the kernel.
///
/// # Errors
/// The reason, for people.
pub fn may_open_raw_sockets() -> Result<(), String> {
    must_be_capable_of(13, "CAP_NET_RAW")
}

/// Whether this process may replace the files of every account, with their owners and modes.
///
/// # Errors
/// The reason, for people.
pub fn may_replace_files() -> Result<(), String> {
    [(1, "CAP_DAC_OVERRIDE"), (0, "CAP_CHOWN"), (3, "CAP_FOWNER")]
        .into_iter()
        .try_for_each(|(number, name)| must_be_capable_of(number, name))
}

/// The capability counts, not uid 0: a service may have either without the other.
fn must_be_capable_of(number: u32, name: &str) -> Result<(), String> {
    let allowed = effective_capabilities().map_or_else(is_root, |capabilities| capabilities & (1 << number) != 0);
    if allowed { Ok(()) } else { Err(format!("not permitted: needs {name}")) }
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(field.trim(), 16).ok()
}

/// The system's own name of its version; empty if it has none.
pub(super) fn version() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// Runs `work` without a capability, in a thread of its own: capabilities belong to a thread.
#[cfg(test)]
pub(crate) fn without<T: Send + 'static>(
    right: rustix::thread::CapabilitySet,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    use rustix::thread::{CapabilitySets, capabilities, set_capabilities};
    assert!(is_root(), "this test needs root: it drops a capability");
    let lacking = move || {
        let CapabilitySets { effective, permitted, inheritable } = capabilities(None).unwrap();
        let (effective, permitted) = (effective.difference(right), permitted.difference(right));
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable }).unwrap();
        work()
    };
    std::thread::spawn(lacking).join().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_follow_from_capabilities_and_not_from_the_account() {
        use rustix::thread::CapabilitySet;
        assert_eq!((may_kill(), may_configure_network()), (Ok(()), Ok(())));
        assert_eq!(without(CapabilitySet::KILL, may_kill), Err("not permitted: needs CAP_KILL".into()));
        let no_network = without(CapabilitySet::NET_ADMIN, may_configure_network);
        assert_eq!(no_network, Err("not permitted: needs CAP_NET_ADMIN".into()));
        assert_eq!((may_open_raw_sockets(), may_replace_files()), (Ok(()), Ok(())));
        let no_raw = without(CapabilitySet::NET_RAW, may_open_raw_sockets);
        assert_eq!(no_raw, Err("not permitted: needs CAP_NET_RAW".into()));
        for (right, name) in [
            (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
            (CapabilitySet::CHOWN, "CAP_CHOWN"),
            (CapabilitySet::FOWNER, "CAP_FOWNER"),
        ] {
            assert_eq!(without(right, may_replace_files), Err(format!("not permitted: needs {name}")));
        }
    }
}
