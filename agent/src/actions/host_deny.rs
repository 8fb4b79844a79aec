//! `host-deny`: a line of its own in the file of TCP wrappers, which programs linked with libwrap read. The very line is
//! looked for and removed, and none that only resembles it; the file is rewritten beside and renamed, so that it is
//! never half a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat};
use serde_json::{Value, json};

use super::{About, Action, ActionError, Attempt, Host, Os, Step};
use crate::guarded::{self, PathError, Place};

/// A larger file is not rewritten, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The action.
#[derive(Debug)]
pub(super) struct HostDeny;

const ABOUT: About = About {
    name: "host-deny",
    summary: "Refuses an address or a network in the services that ask TCP wrappers",
    targets: &[TargetKind::Ip],
    networks: true,
    platforms: Os::UNIX,
    lock_domain: "hosts-deny",
    applied: "the line `ALL:ADDRESS` in `/etc/hosts.deny`; FreeBSD: `ALL : ADDRESS : deny` at the head of `/etc/hosts.allow`, \
              where the first line that fits decides",
    verified: "the line is in the file",
    undone: "exactly that line is removed, unless it was there before",
    rights: "write access to the file and to /etc",
    ..About::DEFAULT
};

/// The file, the line, and whether it has to come before all others.
fn place(os: Os, target: &Target) -> Option<(&'static str, String, bool)> {
    let client = match target.network()? {
        // libwrap reads a length of prefix only for IPv6.
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
        let etc = host.path("/etc");
        let writable = accessat(CWD, &etc, Access::WRITE_OK, AtFlags::EACCESS);
        writable.map_err(|error| format!("{} cannot be written: {}", etc.display(), io::Error::from(error)))
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
            edit(&path, |text| {
                if has(text, &line) {
                    return None;
                }
                let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                Some(if is_first { format!("{line}\n{text}") } else { format!("{text}{separator}{line}\n") })
            })
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { is_there(attempt) })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if is_somebody_elses(attempt) {
                return Ok(());
            }
            let (path, line, _) = file(attempt)?;
            edit(&path, |text| {
                let kept = text.split_inclusive('\n').filter(|other| other.trim() != line);
                has(text, &line).then(|| kept.collect())
            })
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        // Of what is not held, whatever is there may be it.
        Box::pin(async { Ok(attempt.undo.is_some() && is_somebody_elses(attempt) || !is_there(attempt)?) })
    }
}

fn file(attempt: &Attempt<'_>) -> Result<(PathBuf, String, bool), ActionError> {
    let (file, line, is_first) =
        place(attempt.host.os, attempt.target).ok_or_else(|| super::recipe::unsuited(&ABOUT, attempt))?;
    Ok((attempt.host.path(file), line, is_first))
}

fn is_there(attempt: &Attempt<'_>) -> Result<bool, ActionError> {
    let (path, line, _) = file(attempt)?;
    Ok(has(&read(&path)?, &line))
}

/// Without a word about what was before, nothing is known to be ours: there is no mark in such a file.
fn is_somebody_elses(attempt: &Attempt<'_>) -> bool {
    attempt.undo.is_none_or(|undo| undo["was_so"] != false)
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|other| other.trim() == line)
}

/// The file at its real place, if it is there.
fn open(path: &Path) -> Result<(Place, Option<File>), PathError> {
    let place = guarded::place(path)?;
    match place.folder.open(&place.name, OFlags::RDONLY, Mode::empty()) {
        Ok(file) => Ok((place, Some(file))),
        Err(error) if error.is_missing() => Ok((place, None)),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<String, ActionError> {
    let text = open(path).map_err(io::Error::from).and_then(|(_, file)| text(file));
    text.map_err(|error| ActionError::Failed(format!("{} cannot be read: {error}", path.display())))
}

fn text(file: Option<File>) -> io::Result<String> {
    let mut text = String::new();
    let Some(file) = file else { return Ok(text) };
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Replaces the file by what `change` makes of it, with its owner and its mode; no change, no write. A link that only root
/// can have made is followed, so that it stays one.
fn edit(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> Result<(), ActionError> {
    let Some(text) = change(&read(path)?) else { return Ok(()) };
    let failed = |error: io::Error| ActionError::Failed(format!("{} cannot be rewritten: {error}", path.display()));
    replace(path, &text).map_err(failed)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (place, before) = open(path)?;
    place.folder.require_sure()?;
    let mut beside = place.name.clone();
    beside.push(".riposte-new");
    place.folder.unlink(&beside)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut file = place.folder.open(&beside, flags, Mode::from(0o600))?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    match before {
        Some(before) => {
            let before = before.metadata()?;
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
            file.set_permissions(before.permissions())?;
        }
        // Services that run as anybody have to read it.
        None => file.set_permissions(std::fs::Permissions::from_mode(0o644))?,
    }
    file.sync_all()?;
    place.folder.rename(&beside, &place.name)?;
    Ok(place.folder.sync()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::actions::Transcript;
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
            assert_eq!(HostDeny.is_lifted(&attempt).await.unwrap(), undo.is_some(), "nobody knows whose line it is");
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
    async fn an_administrators_line_stays_and_so_does_one_that_nobody_knows_of() {
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
}
