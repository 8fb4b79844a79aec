//! Attacks on real files: the other account is a number, and root changes the owner of files.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use rustix::fs::CWD;

use super::trust::stand_in;
use super::*;

const OTHER: u32 = 41_000;

struct Bench {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Bench {
    fn new() -> Self {
        assert!(crate::platform::is_root(), "this test needs root: it changes the owner of files");
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        Self { folder, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A folder of that owner and mode.
    fn folder(&self, name: &str, owner: u32, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

/// A process that holds a lease on a file, and is killed with it.
pub(crate) struct Lease(std::process::Child);

impl Lease {
    /// A lease against everybody else; when it is asked back, the process does `then`.
    pub(crate) fn on(path: &Path, then: &str) -> Self {
        use std::io::BufRead as _;
        let program = format!(
            "import fcntl, os, signal, sys, time\n\
             file = open(sys.argv[1])\n\
             def asked_back(*_):\n    {then}\n\
             signal.signal(signal.SIGIO, asked_back)\n\
             fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
             print('held', flush=True)\n\
             while True: signal.pause()\n"
        );
        let mut process = std::process::Command::new("/usr/bin/python3")
            .args(["-c", &program])
            .arg(path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n", "the test has no lease");
        Self(process)
    }

    /// The lease is given up a moment after it is asked back.
    pub(crate) const YIELDS: &str = "time.sleep(0.3); os._exit(0)";
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn a_lease_of_another_process_is_named_and_a_thread_waits_for_its_end() {
    let bench = Bench::new();
    let leased = bench.file("leased", "x");
    let at = place(&leased).unwrap();
    let lease = Lease::on(&leased, "pass");
    let error = at.folder.open(&at.name, OFlags::RDONLY, Mode::empty()).unwrap_err();
    assert!(error.is_leased());
    assert_eq!(error.to_string(), format!("{}: another process holds a lease on it", leased.display()));
    drop(lease);
    let _lease = Lease::on(&leased, Lease::YIELDS);
    let mut text = String::new();
    let mut file = at.folder.open_waiting(&at.name, OFlags::RDONLY, Mode::empty()).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}

fn append(path: &Path) -> Result<File, PathError> {
    let place = place(path)?;
    place.folder.open(&place.name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, Mode::from(0o640))
}

#[test]
fn a_link_that_only_root_could_have_made_is_followed() {
    let bench = Bench::new();
    bench.folder("real", 0, 0o755);
    bench.file("real/file", "x");
    symlink("real", bench.path("way")).unwrap();
    symlink(bench.path("way/../way/file"), bench.path("link")).unwrap();
    assert_eq!(place(&bench.path("link")).unwrap().path(), bench.path("real/file"));
    assert_eq!(folder(&bench.path("way/./")).unwrap().path(), bench.path("real"));
    assert_eq!(read(&bench.path("link"), 10).unwrap(), b"x");
    assert_eq!(place(&bench.path("way/new")).unwrap().path(), bench.path("real/new"), "nothing need be there");
    symlink("loop", bench.path("loop")).unwrap();
    assert!(place(&bench.path("loop")).is_err());
    assert!(place(&bench.path("none/file")).unwrap_err().is_missing());
    assert_eq!(folder(Path::new("/../..")).unwrap().path(), Path::new("/"));
    assert!(bench.folder.path().exists());
}

#[test]
fn a_link_that_another_account_could_have_made_leads_nowhere() {
    let bench = Bench::new();
    let secret = bench.file("secret", "root's");
    for (name, owner, mode) in [("theirs", OTHER, 0o755), ("groups", 0, 0o775), ("everyones", 0, 0o777)] {
        let folder = bench.folder(name, owner, mode);
        symlink(&secret, folder.join("log")).unwrap();
        symlink(&bench.root, folder.join("way")).unwrap();
        for path in [folder.join("log"), folder.join("way/secret"), folder.join("way/new")] {
            let error = append(&path).unwrap_err().to_string();
            assert!(error.contains("a symbolic link that another account could have made"), "{error}");
        }
        // The same one folder further down, which is root's: the part above can be replaced.
        std::fs::create_dir(folder.join("below")).unwrap();
        symlink(&secret, folder.join("below/log")).unwrap();
        assert!(append(&folder.join("below/log")).is_err(), "{name}");
    }
    // In a folder like /tmp, another account's files may be replaced, and root's may not.
    let shared = bench.folder("shared", 0, 0o1777);
    symlink(&secret, shared.join("ours")).unwrap();
    symlink(&secret, shared.join("theirs")).unwrap();
    std::os::unix::fs::lchown(shared.join("theirs"), Some(OTHER), None).unwrap();
    assert_eq!(place(&shared.join("ours")).unwrap().path(), secret);
    assert!(place(&shared.join("theirs")).is_err());
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "root's");
}

#[test]
fn in_a_folder_of_others_nothing_but_a_plain_file_with_one_name_is_written() {
    let bench = Bench::new();
    let secret = bench.file("secret", "root's");
    let theirs = bench.folder("theirs", OTHER, 0o755);
    std::fs::hard_link(&secret, theirs.join("hard")).unwrap();
    nix::unistd::mkfifo(&theirs.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(theirs.join("folder")).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&theirs.join("device"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU, null)
        .unwrap();
    std::fs::write(theirs.join("third"), "").unwrap();
    chown(theirs.join("third"), Some(OTHER + 1), None).unwrap();
    for (name, reason) in [
        ("hard", "more than one name"),
        ("pipe", "not a regular file"),
        ("folder", "not a regular file"),
        ("device", "not a regular file"),
        ("third", "neither to root nor to the owner"),
    ] {
        let error = append(&theirs.join(name)).unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
    append(&theirs.join("new")).unwrap();
    std::fs::write(theirs.join("own"), "").unwrap();
    chown(theirs.join("own"), Some(OTHER), None).unwrap();
    append(&theirs.join("own")).unwrap();
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "root's");
}

#[test]
fn a_trusted_file_is_read_only_if_no_part_of_its_path_is_anothers() {
    let bench = Bench::new();
    let said = |path: PathBuf| read(&path, 100).unwrap_err().to_string();
    for (name, owner, mode, mend) in [
        ("theirs", OTHER, 0o755, "chown root"),
        ("groups", 0, 0o775, "chmod go-w"),
        ("everyones", 0, 0o757, "chmod go-w"),
    ] {
        let folder = bench.folder(name, owner, mode);
        std::fs::create_dir(folder.join("below")).unwrap();
        std::fs::write(folder.join("below/policy"), "x").unwrap();
        let error = said(folder.join("below/policy"));
        assert!(error.contains(&format!("{mend} {}", folder.display())), "{error}");
    }
    let shared = bench.folder("shared", 0, 0o1777);
    std::fs::write(shared.join("policy"), "x").unwrap();
    assert!(said(shared.join("policy")).contains("every account can put files there"));
    let file = bench.file("file", "0123456789");
    assert_eq!(read(&file, 10).unwrap().len(), 10);
    assert!(read(&file, 9).unwrap_err().to_string().contains("larger than 9 bytes"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
    assert!(said(file.clone()).contains(&format!("chmod go-w {}", file.display())));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(OTHER), None).unwrap();
    assert!(said(file).contains("chown root"));
}

/// Another account exchanges a folder for a link, again and again, while root appends below it.
#[test]
fn a_race_never_leads_out_of_the_folder() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let bench = Bench::new();
    let theirs = bench.folder("theirs", OTHER, 0o755);
    let target = bench.folder("target", 0, 0o755);
    std::fs::create_dir(theirs.join("way")).unwrap();
    symlink(&target, theirs.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, theirs.join("way"), CWD, theirs.join("link"), exchange).unwrap();
            }
        });
        let opened = (0..5000).filter(|_| append(&theirs.join("way/log")).is_ok()).count();
        stop.store(true, Ordering::Relaxed);
        assert!(opened > 0, "the race was never won: nothing was tried");
    });
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn a_held_folder_stays_the_same_when_its_name_is_reused() {
    let bench = Bench::new();
    let theirs = bench.folder("theirs", OTHER, 0o755);
    let held = folder(&theirs).unwrap();
    std::fs::rename(&theirs, bench.path("moved")).unwrap();
    symlink("/etc", &theirs).unwrap();
    held.open("file", OFlags::WRONLY | OFlags::CREATE, Mode::from(0o600)).unwrap();
    held.rename("file", "other").unwrap();
    assert!(bench.path("moved/other").exists());
    assert_eq!(held.stat("other").unwrap().unwrap().st_ino, bench.path("moved/other").metadata().unwrap().ino());
    held.sync().unwrap();
    assert!(held.free_bytes().unwrap() > 0);
    assert!(held.unlink("other").unwrap() && !held.unlink("other").unwrap());
}

#[test]
fn an_unknown_owner_is_trusted_only_where_the_real_root_is_unknown() {
    assert_eq!(stand_in("         0          0 4294967295\n", "65534\n"), None);
    assert_eq!(stand_in("         0       1000          1\n", "65534\n"), Some(65534));
}
