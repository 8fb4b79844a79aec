//! What this host is and what this process may do on it. Read-only.

use riposte_protocol::message::Platform;

/// The operating system, the architecture and the system's own name of its version.
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

/// The host and the port in a URL.
pub fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let default = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?;
    (!host.is_empty()).then_some((host, port))
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

/// The names of the process of that number: its own, and its program's.
pub fn process_names(number: &str) -> Vec<String> {
    let own = std::fs::read_to_string(format!("/proc/{number}/comm")).ok().map(|name| name.trim_end().to_owned());
    let program = std::fs::read_link(format!("/proc/{number}/exe")).ok();
    let program = program.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    // The kernel appends this when a program's file was replaced while it ran, as a package upgrade
    // does.
    let program = program.map(|name| name.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(name));
    own.into_iter().chain(program).collect()
}

/// Whether this process may not see which program the process of that number runs. Then it may be
/// any.
pub fn hides_its_program(number: &str) -> bool {
    std::fs::read_link(format!("/proc/{number}/exe"))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
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

    #[test]
    fn the_host_and_the_port_of_a_url_are_found() {
        for (url, expected) in [
            ("https://riposte.example.org/v1/x", Some(("riposte.example.org", 443))),
            ("ws://10.0.0.1:8480/x?y#z", Some(("10.0.0.1", 8480))),
            ("wss://[2001:db8::1]/x", Some(("2001:db8::1", 443))),
            ("http://[::1]:81", Some(("::1", 81))),
            ("http://user:word@host:82/", Some(("host", 82))),
            ("http://host:port/", None),
            ("http:///x", None),
            ("host", None),
        ] {
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_programs_name() {
        let own = process_names(&std::process::id().to_string());
        let program = std::env::current_exe().unwrap();
        assert!(own.contains(&program.file_name().unwrap().to_string_lossy().into_owned()), "{own:?}");
        assert!(process_names("4194305").is_empty());
    }

    #[test]
    fn a_process_keeps_its_programs_name_when_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than the 15 bytes that the kernel keeps of a process's own name.
        let program = folder.path().join("a-database-with-a-long-name");
        std::fs::copy(crate::runner::Runner::find("sleep").unwrap(), &program).unwrap();
        let mut process = std::process::Command::new(&program).arg("1000").spawn().unwrap();
        std::fs::remove_file(&program).unwrap();
        let names = process_names(&process.id().to_string());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(names.contains(&"a-database-with-a-long-name".to_owned()), "{names:?}");
    }
}
