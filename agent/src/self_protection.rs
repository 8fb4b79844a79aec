//! What this agent must never cut itself or its host off from, even by a signed order: its own
//! addresses, the manager's, the gateways and resolvers, its own account, process and files. Read
//! from the system when needed and cached for a moment only: addresses and routes change.
//!
//! Targets that need no knowledge of a host (loopback, multicast, root) are in the protocol:
//! `Target::always_protected`. The host's administrator adds others in the local policy.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::account::Account;
use riposte_protocol::target::{Target, TargetKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::platform::{accounts, network, places, processes};

/// How long what was read from the system is cached.
const FRESH: Duration = Duration::from_secs(2);
/// Limit of remembered addresses of the manager: a name with new addresses at every look-up must
/// not fill the memory.
const MAX_MANAGER: usize = 256;

/// The addresses, account and files that this agent needs.
#[derive(Debug, Default)]
pub struct SelfProtection {
    files: Vec<PathBuf>,
    manager: Mutex<BTreeSet<IpAddr>>,
    /// Cancelled for good once the manager's name has been looked up; `None` if no task looks it
    /// up.
    looked_up: Option<CancellationToken>,
    network: Mutex<Option<(Instant, Network)>>,
}

/// The addresses that this host needs, with what each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Network(Vec<(IpAddr, &'static str)>);

impl SelfProtection {
    /// Builds the protection of an agent whose own files are `files`; a folder stands for
    /// everything in it.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let executable = std::env::current_exe().ok();
        Self { files: files.into_iter().chain(executable).collect(), ..Self::default() }
    }

    /// Announces that a task will look the manager's addresses up.
    #[must_use]
    pub fn expecting_manager(self) -> Self {
        Self { looked_up: Some(CancellationToken::new()), ..self }
    }

    /// Announces that the manager's addresses are known, as far as they can be.
    pub fn manager_is_known(&self) {
        self.looked_up.iter().for_each(CancellationToken::cancel);
    }

    /// Waits until the manager's addresses are known, so that the first command after a start
    /// cannot block it.
    pub async fn await_manager(&self) {
        if let Some(looked_up) = &self.looked_up {
            looked_up.cancelled().await;
        }
    }

    /// Remembers an address of the manager, or of the proxy before it.
    pub fn note_manager(&self, address: IpAddr) {
        let mut manager = self.manager.lock().unwrap_or_else(PoisonError::into_inner);
        if manager.len() < MAX_MANAGER {
            manager.insert(address.to_canonical());
        }
    }

    /// Why this target must not be touched; `None` if it may be.
    pub fn protect(&self, target: &Target) -> Option<String> {
        match target.kind() {
            TargetKind::Ip => self.protect_network(target),
            TargetKind::User => {
                // `HOST\\name` may be the account of this host as well.
                let account = Account::of(target.value());
                let is_own = accounts::is_own(target.value()) || accounts::is_own(account.name());
                is_own.then(|| "the agent runs as this user".into())
            }
            TargetKind::Process => processes::own(target.value()).map(Into::into),
            TargetKind::File => {
                let own = self.files.iter().any(|file| is_within(target.value(), file));
                own.then(|| "a file of the agent itself".into())
            }
            TargetKind::Host | TargetKind::None => None,
        }
    }

    fn protect_network(&self, target: &Target) -> Option<String> {
        let network = target.network()?;
        let manager = self.manager.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(address) = manager.iter().find(|address| network.contains(*address)) {
            return Some(told(target, *address, "an address of the manager"));
        }
        let needed = self.network();
        let (address, what) = needed.0.iter().find(|(address, _)| network.contains(address))?;
        Some(told(target, *address, what))
    }

    /// Forgets what was read before if `target` is, or contains, an address that this host has got since. Routes are not read
    /// for it: there may be a million of them, and this is asked before every apply.
    pub fn look_at_own_addresses(&self, target: &Target) {
        let Some(network) = target.network() else { return };
        let own = network::own_addresses();
        let mut kept = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |found: &(IpAddr, &'static str)| kept.as_ref().is_none_or(|(_, kept)| kept.0.contains(found));
        if own.iter().any(|found| network.contains(&found.0) && !is_known(found)) {
            *kept = None;
        }
    }

    fn network(&self) -> Network {
        let mut kept = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, network)) if at.elapsed() < FRESH => network.clone(),
            _ => {
                let network = Network::read();
                *kept = Some((Instant::now(), network.clone()));
                network
            }
        }
    }
}

fn told(target: &Target, address: IpAddr, what: &str) -> String {
    if target.ip() == Some(address) { what.to_owned() } else { format!("it contains {address}, {what}") }
}

impl Network {
    fn read() -> Self {
        Self(network::needed())
    }
}

/// Whether `path` is `folder`, is in it, or holds it, by its text or with links resolved.
pub fn is_within(path: &str, folder: &Path) -> bool {
    let resolve = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let path = Path::new(path);
    let touches = |path: &Path, folder: &Path| places::is_below(path, folder) || places::is_below(folder, path);
    touches(path, folder) || touches(&resolve(path), &resolve(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "a gateway of this host";

    fn protects(self_protection: &SelfProtection, kind: TargetKind, text: &str) -> Option<String> {
        self_protection.protect(&Target::parse(kind, text).unwrap())
    }

    #[test]
    fn targets_that_the_host_needs_are_protected_also_within_a_network() {
        let self_protection = SelfProtection::new(vec![]);
        self_protection.note_manager("::ffff:198.51.100.8".parse().unwrap());
        let needed =
            Network(vec![("203.0.113.1".parse().unwrap(), GATEWAY), ("2001:db8::1".parse().unwrap(), GATEWAY)]);
        *self_protection.network.lock().unwrap() = Some((Instant::now() + Duration::from_hours(1), needed));
        let ip = |text| protects(&self_protection, TargetKind::Ip, text);
        assert_eq!(ip("198.51.100.8").as_deref(), Some("an address of the manager"));
        assert_eq!(ip("203.0.113.1").as_deref(), Some(GATEWAY));
        assert_eq!(ip("203.0.113.2"), None);
        let network = |text| self_protection.protect(&Target::parse_network(text).unwrap());
        assert_eq!(network("203.0.113.0/24").unwrap(), "it contains 203.0.113.1, a gateway of this host");
        assert_eq!(network("198.51.100.0/29"), None);
        assert!(network("198.51.100.0/28").unwrap().contains("manager"));
        assert!(network("2001:db8::/64").is_some());
    }

    #[test]
    fn an_address_that_the_host_has_just_got_is_protected_before_the_cache_is_old() {
        let self_protection = SelfProtection::new(vec![]);
        let fresh = Instant::now() + Duration::from_hours(1);
        *self_protection.network.lock().unwrap() = Some((fresh, Network::default()));
        // An address of this host's, since an interface of a test's own needs rights.
        let target = Target::parse_network("127.0.0.0/30").unwrap();
        assert_eq!(self_protection.protect(&target), None, "as it was read last");
        self_protection.look_at_own_addresses(&Target::parse(TargetKind::Ip, "203.0.113.7").unwrap());
        assert_eq!(self_protection.protect(&target), None, "nothing is read anew for another address");
        self_protection.look_at_own_addresses(&target);
        assert_eq!(self_protection.protect(&target).unwrap(), "it contains 127.0.0.1, an address of this host");
    }

    #[test]
    fn the_agents_own_account_process_and_files_are_protected() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&state, &link).unwrap();
        let self_protection = SelfProtection::new(vec![state.clone()]);
        let is_protected = |kind, text: &str| protects(&self_protection, kind, text).is_some();
        assert!(is_protected(TargetKind::Process, &std::process::id().to_string()));
        assert!(is_protected(TargetKind::Process, &std::os::unix::process::parent_id().to_string()));
        assert!(!is_protected(TargetKind::Process, "4194305"));
        assert!(is_protected(TargetKind::User, "root"));
        assert!(!is_protected(TargetKind::User, "no-such-account"));
        let file = |path: PathBuf| is_protected(TargetKind::File, path.to_str().unwrap());
        std::fs::write(state.join("journal"), "").unwrap();
        assert!(file(state.join("journal")) && file(state.join("not-there-yet")));
        assert!(file(link.join("journal")), "whatever way leads there");
        assert!(file(std::env::current_exe().unwrap()));
        assert!(file(directory.path().into()), "a folder that holds it");
        assert!(!file(directory.path().join("other")));
    }
}
