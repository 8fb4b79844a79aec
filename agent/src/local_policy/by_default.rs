//! Files that are protected by default: those that control logins and privileges, and Riposte's
//! own. An attacker who could have one of them quarantined would lock the administrators out by
//! their own response.
//!
//! Only new effects are refused. An effect that is already in force on such a file stays, and ends
//! as planned.

use std::path::{Path, PathBuf};

use riposte_protocol::target::{Target, TargetKind};

use super::LocalPolicy;
use crate::platform::places;
use crate::self_protection::is_within;

/// Protected folders, with everything in them, and files.
const PATHS: &[&str] = &[
    "/etc/ssh",
    "/root/.ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/pam.conf",
    "/etc/pam.d",
    "/etc/systemd",
    "/etc/riposte",
    "/etc/default/riposte",
    "/etc/default/riposte-agent",
    "/var/lib/riposte",
    "/var/lib/riposte-agent",
];
/// Folders of programs and systemd units, for both programs.
const PROGRAM_FOLDERS: &[&str] = &["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/riposte"];
const UNIT_FOLDERS: &[&str] = &["/lib/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system"];
const NAMES: &[&str] = &["riposte", "riposte-agent"];
/// Also protects copies beside `/etc/sudoers`, as packages and editors leave them.
const SUDOERS: &str = "/etc/sudoers";

/// Every path that is protected by default.
pub(crate) fn paths() -> impl Iterator<Item = PathBuf> {
    let programs = PROGRAM_FOLDERS.iter().flat_map(|folder| NAMES.iter().map(|name| Path::new(folder).join(name)));
    let unit = |folder: &&str, name: &&str| Path::new(folder).join(format!("{name}.service"));
    let units = UNIT_FOLDERS.iter().flat_map(move |folder| NAMES.iter().map(move |name| unit(folder, name)));
    PATHS.iter().chain(places::PROTECTED).map(PathBuf::from).chain(programs).chain(units)
}

impl LocalPolicy {
    /// Why this target is protected by default; `None` if it is not, or if the host exempts it.
    pub fn protects_by_default(&self, target: &Target) -> Option<String> {
        if target.kind() != TargetKind::File {
            return None;
        }
        let path = target.value();
        let resolve = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let real = resolve(Path::new(path));
        // Below an exempted path, by its text or with links resolved; never a folder that holds it.
        let is_exempt =
            |entry: &PathBuf| places::is_below(Path::new(path), entry) && places::is_below(&real, &resolve(entry));
        if self.protected.exempt.iter().any(is_exempt) {
            return None;
        }
        let is_sudoers = |path: &Path| path.to_string_lossy().starts_with(SUDOERS);
        let found = paths().find(|entry| is_within(path, entry));
        let found = found.or_else(|| (is_sudoers(Path::new(path)) || is_sudoers(&real)).then(|| SUDOERS.into()))?;
        Some(format!(
            "{} is protected by default; to allow it, name the file in protected.exempt of the local policy",
            found.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protects(policy: &LocalPolicy, path: &str) -> bool {
        policy.protects_by_default(&Target::parse(TargetKind::File, path).unwrap()).is_some()
    }

    #[test]
    fn the_ways_in_and_ripostes_own_files_are_protected_unless_the_host_exempts_them() {
        let mut policy = LocalPolicy::default();
        for path in [
            "/etc/ssh/sshd_config",
            "/root/.ssh/authorized_keys",
            "/etc/sudoers",
            "/etc/sudoers.d/admins",
            "/etc/sudoers.dpkg-new",
            "/etc/pam.d/sshd",
            "/etc/systemd/system/x.service",
            "/etc/riposte/config.toml",
            "/usr/bin/riposte",
            "/usr/bin/riposte-agent",
            "/usr/lib/systemd/system/riposte-agent.service",
            "/var/lib/riposte/signing.key",
            "/etc",
        ] {
            assert!(protects(&policy, path), "{path}");
        }
        for path in ["/etc/motd", "/usr/bin/ripostes", "/home/x/.ssh/authorized_keys", "/etc/sshd"] {
            assert!(!protects(&policy, path), "{path}");
        }
        policy.protected.exempt = vec!["/etc/ssh/sshd_config.d".into()];
        assert!(!protects(&policy, "/etc/ssh/sshd_config.d/evil.conf"));
        assert!(protects(&policy, "/etc/ssh/sshd_config") && protects(&policy, "/etc/ssh"));
    }

    #[test]
    fn a_link_to_a_protected_file_and_a_link_below_an_exempted_path_are_protected() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/pam.d", &link).unwrap();
        let mut policy = LocalPolicy::default();
        assert!(protects(&policy, link.to_str().unwrap()));
        policy.protected.exempt = vec![folder.path().into()];
        assert!(protects(&policy, link.to_str().unwrap()), "it leads out of what is exempted");
    }
}
