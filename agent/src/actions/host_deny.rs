//! `host-deny`: a line of its own in the file of TCP wrappers, which programs linked with libwrap
//! read. Reverting removes exactly that line, and no similar one; `rewrite.rs` writes the file.

mod allow;

use std::path::PathBuf;

use ipnet::IpNet;
use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Value, json};

use super::{About, Action, ActionError, Attempt, Host, Os, Step, rewrite};
use crate::platform::guarded;

/// The action.
#[derive(Debug)]
pub(super) struct HostDeny;

const ABOUT: About = About {
    name: "host-deny",
    summary: "Refuses an address or a network in the services that use TCP wrappers",
    targets: &[TargetKind::Ip],
    networks: true,
    platforms: Os::UNIX,
    lock_domain: "hosts-deny",
    applied: "the line `ALL:ADDRESS` in `/etc/hosts.deny`; FreeBSD: `ALL : ADDRESS : deny` at the head of `/etc/hosts.allow`, \
              where the first matching line decides",
    verified: "the line is in the file, whole and by itself, and no line of `/etc/hosts.allow`, which is read first, allows the address; \
               not rules there that match host names, nor services that are not linked with libwrap",
    undone: "exactly that line is removed, unless it was there before",
    rights: "write access to the file, and to /etc unless the file is a mount point",
    ..About::DEFAULT
};

/// The file, the line, and whether it must precede all others.
fn place(os: Os, target: &Target) -> Option<(&'static str, String, bool)> {
    let client = match target.network()? {
        // libwrap reads a prefix length only for IPv6.
        IpNet::V4(network) if network.prefix_len() < 32 => format!("{}/{}", network.network(), network.netmask()),
        IpNet::V4(network) => network.addr().to_string(),
        IpNet::V6(network) if network.prefix_len() < 128 => format!("[{}]/{}", network.network(), network.prefix_len()),
        IpNet::V6(network) => format!("[{}]", network.addr()),
    };
    match os {
        Os::Windows => None,
        Os::FreeBsd => Some(("/etc/hosts.allow", format!("ALL : {client} : deny"), true)),
        _ => Some(("/etc/hosts.deny", format!("ALL:{client}"), false)),
    }
}

impl Action for HostDeny {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        let name = if host.os == Os::FreeBsd { "/etc/hosts.allow" } else { "/etc/hosts.deny" };
        // An existing file may be a mount point, which is written in place; a missing one has to be
        // created.
        let place = Some(host.path(name)).filter(|file| file.exists()).unwrap_or_else(|| host.path("/etc"));
        let writable = guarded::may_write(&place);
        writable.map_err(|error| format!("{} cannot be written: {}", place.display(), error))
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        let verb = if op == Op::Apply { "add to" } else { "remove from" };
        place(attempt.host.os, attempt.target)
            .map_or_else(String::new, |(file, line, _)| format!("{verb} {file}: {line}"))
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(json!({ "was_so": is_there(attempt)? })) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let (path, line, is_first) = file(attempt)?;
            if let Some(rule) = let_in(attempt)? {
                return Err(ActionError::Failed(format!("/etc/hosts.allow allows it, and is read first: {rule}")));
            }
            let add = |text: &str| {
                if has(text, &line) {
                    return None;
                }
                let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                // After a backslash the line would become part of the one before.
                let separator = if text.ends_with("\\\n") || text.ends_with('\\') { "\n\n" } else { separator };
                Some(if is_first { format!("{line}\n{text}") } else { format!("{text}{separator}{line}\n") })
            };
            rewrite::edit(&attempt.host.state_dir, &path, add).await
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(is_there(attempt)? && let_in(attempt)?.is_none()) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if belongs_to_another(attempt) {
                return Ok(());
            }
            let (path, line, _) = file(attempt)?;
            let remove = |text: &str| {
                let is_there = text.lines().any(|other| other.trim() == line);
                is_there.then(|| text.split_inclusive('\n').filter(|other| other.trim() != line).collect())
            };
            rewrite::edit(&attempt.host.state_dir, &path, remove).await
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // Without a journal entry, any such line may be the effect's.
        Box::pin(async { Ok(attempt.undo.is_some() && belongs_to_another(attempt) || !is_there(attempt)?) })
    }
}

fn file(attempt: &Attempt<'_>) -> Result<(PathBuf, String, bool), ActionError> {
    let (file, line, is_first) =
        place(attempt.host.os, attempt.target).ok_or_else(|| super::recipe::unsuited(&ABOUT, attempt))?;
    Ok((attempt.host.path(file), line, is_first))
}

fn is_there(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let (path, line, _) = file(attempt)?;
    Ok(has(&rewrite::read(&attempt.host.state_dir, &path)?, &line))
}

/// The line of `hosts.allow` that allows the address before our line is read, if there is one.
fn let_in(attempt: &Attempt<'_>) -> Result<Option<String>, ActionError> {
    let Some(network) = attempt.target.network().filter(|_| attempt.host.os != Os::FreeBsd) else { return Ok(None) };
    let text = rewrite::read(&attempt.host.state_dir, &attempt.host.path("/etc/hosts.allow"))?;
    Ok(allow::letting_in(&text, network))
}

/// Whether the line was there before. Without a record of the state before, no line is known to be
/// ours: such a file has no marks.
fn belongs_to_another(attempt: &Attempt<'_>) -> bool {
    attempt.undo.is_none_or(|undo| undo["was_so"] != false)
}

/// Whether libwrap reads the line. It ignores one without a line end, and a backslash before it
/// makes it part of another.
fn has(text: &str, line: &str) -> bool {
    let mut is_continued = false;
    text.split_inclusive('\n').any(|other| {
        let is_part = std::mem::replace(&mut is_continued, other.ends_with("\\\n"));
        !is_part && other.ends_with('\n') && other.trim() == line
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::actions::{Transcript, own_namespace};
    use crate::runner::Runner;

    fn host(os: Os) -> (Host, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let mut host = Host::new(Runner::new(), root.path());
        (host.os, host.root) = (os, root.path().to_owned());
        (host, root)
    }

    fn target(text: &str) -> Target {
        Target::parse(TargetKind::Ip, text).or_else(|_| Target::parse_network(text)).unwrap()
    }

    async fn apply(host: &Host, address: &str) -> Value {
        let (target, transcript) = (target(address), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(host, &transcript, &target);
        let undo = HostDeny.prepare(&attempt).await.unwrap();
        attempt.undo = Some(&undo);
        for _ in 0..2 {
            HostDeny.apply(&attempt).await.unwrap();
            assert!(HostDeny.is_in_force(&attempt).await.unwrap());
        }
        undo
    }

    async fn revert(host: &Host, address: &str, undo: Option<&Value>) {
        let (target, transcript) = (target(address), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(host, &transcript, &target);
        attempt.undo = undo;
        for _ in 0..2 {
            HostDeny.revert(&attempt).await.unwrap();
            assert_eq!(HostDeny.is_lifted(&attempt).await.unwrap(), undo.is_some(), "a line without an undo stays");
        }
    }

    #[tokio::test]
    async fn removing_one_line_leaves_those_that_resemble_it() {
        let (host, root) = host(Os::Linux);
        let path = root.path().join("etc/hosts.deny");
        std::fs::write(&path, "# mine\nsshd: 192.0.2.1\nALL: PARANOID").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let mut undo = Vec::new();
        for address in ["192.0.2.1", "192.0.2.10", "192.0.2.100", "2001:db8::1", "198.51.100.0/24"] {
            undo.push(apply(&host, address).await);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# mine\nsshd: 192.0.2.1\nALL: PARANOID\nALL:192.0.2.1\nALL:192.0.2.10\nALL:192.0.2.100\n\
             ALL:[2001:db8::1]\nALL:198.51.100.0/255.255.255.0\n"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        revert(&host, "192.0.2.1", Some(&undo[0])).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("ALL:192.0.2.10\n") && text.contains("ALL:192.0.2.100\n"), "{text}");
        assert!(text.starts_with("# mine\nsshd: 192.0.2.1\n") && !text.contains("ALL:192.0.2.1\n"), "{text}");
    }

    #[tokio::test]
    async fn an_administrators_line_stays_and_so_does_one_of_an_unknown_owner() {
        let (host, root) = host(Os::Linux);
        let path = root.path().join("etc/hosts.deny");
        std::fs::write(&path, "ALL:192.0.2.1\nALL:192.0.2.2\n").unwrap();
        let undo = apply(&host, "192.0.2.1").await;
        revert(&host, "192.0.2.1", Some(&undo)).await;
        revert(&host, "192.0.2.2", None).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ALL:192.0.2.1\nALL:192.0.2.2\n");
    }

    #[tokio::test]
    async fn a_missing_file_is_made_and_a_link_stays_one() {
        let (mut host, root) = host(Os::FreeBsd);
        apply(&host, "192.0.2.1").await;
        let path = root.path().join("etc/hosts.allow");
        std::fs::write(&path, "ALL : ALL : allow\n").unwrap();
        apply(&host, "192.0.2.1").await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "ALL : 192.0.2.1 : deny\nALL : ALL : allow\n", "the first line that fits decides");
        host.os = Os::Linux;
        std::fs::write(root.path().join("real"), "").unwrap();
        std::os::unix::fs::symlink(root.path().join("real"), root.path().join("etc/hosts.deny")).unwrap();
        apply(&host, "192.0.2.1").await;
        assert_eq!(std::fs::read_to_string(root.path().join("real")).unwrap(), "ALL:192.0.2.1\n");
        assert!(root.path().join("etc/hosts.deny").is_symlink());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_a_sentence() {
        let (host, root) = host(Os::Linux);
        std::fs::create_dir(root.path().join("etc/hosts.deny")).unwrap();
        let (target, transcript) = (target("192.0.2.1"), Mutex::<Transcript>::default());
        let attempt = Attempt::new(&host, &transcript, &target);
        let error = HostDeny.prepare(&attempt).await.unwrap_err().to_string();
        assert!(error.contains("hosts.deny cannot be read"), "{error}");
    }

    #[tokio::test]
    async fn field_16_a_file_that_is_a_mount_gets_its_line_and_loses_it_again() {
        if own_namespace::is_inside() {
            return on_a_mount().await;
        }
        let name = "actions::host_deny::tests::field_16_a_file_that_is_a_mount_gets_its_line_and_loses_it_again";
        own_namespace::run_again(name, &[], &[], ":").await;
    }

    async fn on_a_mount() {
        let run = |program: &str, arguments: &[&str]| {
            let done = std::process::Command::new(program).args(arguments).status().unwrap();
            assert!(done.success(), "{program} {arguments:?}");
        };
        let (host, root) = host(Os::Linux);
        let (etc, path, below) =
            (root.path().join("etc"), root.path().join("etc/hosts.deny"), root.path().join("below"));
        std::fs::write(&path, "").unwrap();
        std::fs::write(&below, "# mine\nsshd: 192.0.2.9\n").unwrap();
        run("mount", &["--bind", below.to_str().unwrap(), path.to_str().unwrap()]);
        for is_folder_fixed in [false, true] {
            if is_folder_fixed {
                // An image with a read-only root.
                let etc = etc.to_str().unwrap();
                run("mount", &["--rbind", etc, etc]);
                run("mount", &["-o", "remount,bind,ro", etc]);
                assert!(std::fs::write(root.path().join("etc/other"), "").is_err());
            }
            assert_eq!(HostDeny.availability(&host), Ok(()));
            let undo = apply(&host, "203.0.113.5").await;
            let text = std::fs::read_to_string(&below).unwrap();
            assert_eq!(text, "# mine\nsshd: 192.0.2.9\nALL:203.0.113.5\n");
            revert(&host, "203.0.113.5", Some(&undo)).await;
            assert_eq!(std::fs::read_to_string(&below).unwrap(), "# mine\nsshd: 192.0.2.9\n");
            assert_eq!(std::fs::read_dir(&etc).unwrap().count(), 1, "nothing is left beside it");
        }
        // Another program that holds the lock and writes in place is waited for.
        let other = std::fs::OpenOptions::new().append(true).open(&below).unwrap();
        other.lock().unwrap();
        let writer = async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            std::io::Write::write_all(&mut &other, b"its: line\n").unwrap();
            other.unlock().unwrap();
        };
        tokio::join!(apply(&host, "203.0.113.6"), writer);
        let text = std::fs::read_to_string(&below).unwrap();
        assert_eq!(text, "# mine\nsshd: 192.0.2.9\nits: line\nALL:203.0.113.6\n");
    }

    #[tokio::test]
    async fn a_line_that_libwrap_does_not_come_to_is_no_block() {
        let (host, root) = host(Os::Linux);
        let undo = apply(&host, "192.0.2.1").await;
        let (target, transcript) = (target("192.0.2.1"), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&host, &transcript, &target);
        attempt.undo = Some(&undo);
        let allow = root.path().join("etc/hosts.allow");
        std::fs::write(&allow, "sshd: 192.0.2.0/255.255.255.0\n").unwrap();
        assert!(!HostDeny.is_in_force(&attempt).await.unwrap());
        let error = HostDeny.apply(&attempt).await.unwrap_err().to_string();
        assert!(error.contains("is read first: sshd: 192.0.2.0/255.255.255.0"), "{error}");
        std::fs::write(&allow, "sshd: 198.51.100.\n").unwrap();
        assert!(HostDeny.is_in_force(&attempt).await.unwrap());
        let deny = root.path().join("etc/hosts.deny");
        for unread in ["ftpd: x \\\nALL:192.0.2.1\n", "ALL:192.0.2.1"] {
            std::fs::write(&deny, unread).unwrap();
            assert!(!HostDeny.is_in_force(&attempt).await.unwrap(), "{unread}");
            HostDeny.apply(&attempt).await.unwrap();
            assert!(HostDeny.is_in_force(&attempt).await.unwrap(), "{unread}");
        }
    }
}
