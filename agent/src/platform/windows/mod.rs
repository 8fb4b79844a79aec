//! Windows: what this host is, what this process may do on it, and what the system tells. All calls
//! of its API are in this folder; each has a reason why it is sound.

pub mod accounts;
mod acl;
pub mod clocks;
pub mod event_log;
pub mod facts;
pub mod guarded;
mod handle;
pub mod held_file;
pub mod network;
pub mod places;
pub mod processes;
mod registry;
pub mod service;
pub mod service_log;
pub mod stop;
pub mod tree;
mod wide;

const OS_KEY: &str = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion";

/// The host's name, or `unnamed`.
pub fn hostname() -> String {
    std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty()).map_or_else(
        || "unnamed".into(),
        |name| {
            // The variable is in capitals; names of hosts are not told apart by them.
            name.to_ascii_lowercase()
        },
    )
}

/// The system's own name of its version; empty if it has none.
pub(super) fn version() -> String {
    let name = registry::text(OS_KEY, "ProductName").unwrap_or_default();
    let build = registry::text(OS_KEY, "CurrentBuildNumber").unwrap_or_default();
    format!("{name} {build}").trim().to_owned()
}

/// Whether this process may administer the host.
pub fn is_root() -> bool {
    accounts::is_administrator()
}

/// Whether this process may administer the host.
///
/// # Errors
/// The reason, for people.
pub fn must_be_root() -> Result<(), String> {
    if is_root() { Ok(()) } else { Err("not permitted: needs an elevated Administrator or SYSTEM".into()) }
}

/// Whether this process may change the network's configuration.
///
/// # Errors
/// The reason, for people.
pub fn may_configure_network() -> Result<(), String> {
    must_be_root()
}

/// Whether this process may end the processes of every account.
///
/// # Errors
/// The reason, for people.
pub fn may_kill() -> Result<(), String> {
    must_be_root()
}

/// Windows has no such right apart from the Administrator's.
///
/// # Errors
/// The reason, for people.
pub fn may_open_raw_sockets() -> Result<(), String> {
    must_be_root()
}

/// Whether this process may replace the files of every account, with their owners and rights.
///
/// # Errors
/// The reason, for people.
pub fn may_replace_files() -> Result<(), String> {
    must_be_root()
}
