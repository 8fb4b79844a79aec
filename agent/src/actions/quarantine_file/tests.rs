//! Quarantine on real files, on one file system and across two.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Mutex;

use riposte_protocol::target::Target;
use uuid::Uuid;

use super::*;
use crate::actions::Transcript;
use crate::local_policy::Limits;
use crate::runner::Runner;

struct Bench {
    host: Host,
    transcript: Mutex<Transcript>,
    files: PathBuf,
    _folders: [tempfile::TempDir; 2],
}

impl Bench {
    /// A bench with its state and its files in folders below these.
    fn between(state: &str, files: &str) -> Self {
        assert!(platform::is_root(), "this test needs root: it changes the owner of files");
        let folders = [tempfile::tempdir_in(state).unwrap(), tempfile::tempdir_in(files).unwrap()];
        let host = Host::new(Runner::new(), folders[0].path());
        let files = folders[1].path().canonicalize().unwrap();
        Self { host, transcript: Mutex::default(), files, _folders: folders }
    }

    fn target(&self, name: &str) -> Target {
        Target::parse(TargetKind::File, self.files.join(name).to_str().unwrap()).unwrap()
    }

    fn attempt<'a>(&'a self, target: &'a Target) -> Attempt<'a> {
        let mut attempt = Attempt::new(&self.host, &self.transcript, target);
        attempt.effect = Uuid::from_u128(7);
        attempt
    }

    async fn refusal(&self, name: &str) -> String {
        let target = self.target(name);
        QuarantineFile.prepare(&self.attempt(&target)).await.unwrap_err().to_string()
    }
}

async fn goes_and_comes_back(state: &str, files: &str) {
    let bench = Bench::between(state, files);
    let path = bench.files.join("evil.sh");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    std::os::unix::fs::chown(&path, Some(41_000), Some(41_001)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let before = path.metadata().unwrap();
    let target = bench.target("evil.sh");
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    assert_eq!(undo["sha256"], "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf");
    attempt.undo = Some(&undo);
    let evidence = QuarantineFile.evidence(&attempt).await.unwrap();
    assert_eq!(evidence["path"], path.to_str().unwrap());
    assert_eq!(
        (&evidence["sha256"], &evidence["mode"], &evidence["links"]),
        (&undo["sha256"], &"4755".into(), &1.into())
    );
    assert_eq!((&evidence["owner"]["uid"], &evidence["group"]["gid"]), (&41_000.into(), &41_001.into()));
    assert_eq!(evidence["size_bytes"], 10);
    for _ in 0..2 {
        QuarantineFile.apply(&attempt).await.unwrap();
        assert!(QuarantineFile.is_in_force(&attempt).await.unwrap());
        assert!(!path.exists());
    }
    let folder = Store::folder(&bench.host);
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    let inside = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
    assert_eq!(inside.metadata().unwrap().mode() & 0o7777, 0);
    for _ in 0..2 {
        QuarantineFile.revert(&attempt).await.unwrap();
        assert!(QuarantineFile.is_lifted(&attempt).await.unwrap());
        let after = path.metadata().unwrap();
        let facts = |file: &std::fs::Metadata| (file.mode(), file.uid(), file.gid(), file.mtime(), file.mtime_nsec());
        assert_eq!(facts(&after), facts(&before));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "#!/bin/sh\n");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_is_moved_and_restored_unchanged() {
    goes_and_comes_back("/tmp", "/tmp").await;
}

#[tokio::test]
async fn a_file_is_moved_and_restored_across_file_systems() {
    let device = |path: &str| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device("/tmp"), device("/dev/shm"), "this test needs /dev/shm on a file system of its own");
    goes_and_comes_back("/dev/shm", "/tmp").await;
}

#[tokio::test]
async fn only_a_plain_file_is_accepted() {
    let bench = Bench::between("/tmp", "/tmp");
    std::fs::create_dir(bench.files.join("folder")).unwrap();
    std::fs::write(bench.files.join("folder/file"), "x").unwrap();
    std::os::unix::fs::symlink(bench.files.join("folder/file"), bench.files.join("link")).unwrap();
    std::os::unix::fs::symlink(bench.files.join("folder"), bench.files.join("way")).unwrap();
    nix::unistd::mkfifo(&bench.files.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(bench.refusal("folder").await.contains("is not a regular file"));
    assert!(bench.refusal("pipe").await.contains("is not a regular file"));
    std::fs::hard_link(bench.files.join("folder/file"), bench.files.join("second")).unwrap();
    assert!(bench.refusal("second").await.contains("has 2 names (hard links)"));
    std::fs::remove_file(bench.files.join("second")).unwrap();
    std::os::unix::fs::chown(&bench.files, Some(41_000), None).unwrap();
    assert!(bench.refusal("link").await.contains("a symbolic link that another account could have made"));
    assert!(bench.refusal("way/file").await.contains("a symbolic link that another account could have made"));
    assert!(bench.refusal("nothing").await.contains("there is no file"));
}

#[tokio::test]
async fn files_that_the_system_or_the_agent_needs_are_refused() {
    let bench = Bench::between("/tmp", "/tmp");
    let journal = bench.host.state_dir.join("journal");
    let own = std::env::current_exe().unwrap();
    for path in ["/etc/passwd", "/usr/bin/env", "/proc/self/exe", "/dev/null", "/dev/shm", "/bin/sh", "/lib/x"]
        .map(PathBuf::from)
        .into_iter()
        .chain([journal, own])
    {
        let target = Target::parse(TargetKind::File, path.to_str().unwrap()).unwrap();
        let refusal = QuarantineFile.prepare(&bench.attempt(&target)).await.unwrap_err().to_string();
        assert!(refusal.contains("is protected"), "{refusal}");
    }
}

/// Every account can put programs into `/dev/shm`.
#[tokio::test]
async fn a_file_in_shared_memory_is_taken_and_put_back() {
    goes_and_comes_back("/tmp", "/dev/shm").await;
}

const OTHER: u32 = 41_000;

impl Bench {
    /// A file of another account, in a folder of that account.
    fn theirs(&self) -> (PathBuf, Target) {
        let theirs = self.files.join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("evil.sh"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(theirs.join("evil.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&self.files, std::fs::Permissions::from_mode(0o755)).unwrap();
        for path in [&theirs, &theirs.join("evil.sh")] {
            std::os::unix::fs::chown(path, Some(OTHER), Some(OTHER)).unwrap();
        }
        (theirs.join("evil.sh"), self.target("theirs/evil.sh"))
    }

    /// What the quarantine has.
    fn inside(&self) -> Vec<PathBuf> {
        std::fs::read_dir(Store::folder(&self.host)).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn owner_and_mode(path: &Path) -> (u32, u32) {
    let file = path.metadata().unwrap();
    (file.uid(), file.mode() & 0o7777)
}

/// The attack: the account that owns the file has it open, waits until the name is gone, and makes the same file executable
/// again at its old place.
#[tokio::test]
async fn an_account_that_has_the_file_open_does_not_get_it_back_into_reach() {
    use std::io::{BufRead as _, Write as _};
    use std::os::unix::process::CommandExt as _;
    use std::process::Stdio;
    let bench = Bench::between("/tmp", "/tmp");
    let (path, target) = bench.theirs();
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    let mut account = std::process::Command::new("/bin/sh");
    let links_back = "exec 3<>\"$1\"; echo open; read -r gone; chmod 755 /proc/self/fd/3; ln -L /proc/self/fd/3 \"$1\"";
    account.args(["-c", links_back, "sh"]).arg(&path).current_dir("/").uid(OTHER);
    account.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut account = account.spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(account.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    QuarantineFile.apply(&attempt).await.unwrap();
    account.stdin.take().unwrap().write_all(b"gone\n").unwrap();
    account.wait().unwrap();
    assert_eq!(owner_and_mode(&bench.inside()[0]), (0, 0), "it is root's, and no account opens it");
    // Where the system has fs.protected_hardlinks=0 there is a name again, of a file that no account can open.
    assert_eq!(QuarantineFile.is_in_force(&attempt).await.unwrap(), !path.exists());
    QuarantineFile.apply(&attempt).await.unwrap();
    assert!(QuarantineFile.is_in_force(&attempt).await.unwrap() && !path.exists());
    QuarantineFile.revert(&attempt).await.unwrap();
    assert_eq!(owner_and_mode(&path), (OTHER, 0o755));
}

/// What such an account could do to the files of an older agent, and can where `fs.protected_hardlinks` is 0.
#[tokio::test]
async fn a_quarantined_file_that_is_linked_back_is_drift_and_is_taken_again_or_given_back() {
    let bench = Bench::between("/tmp", "/tmp");
    let (path, target) = bench.theirs();
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    QuarantineFile.apply(&attempt).await.unwrap();
    let held = bench.inside().remove(0);
    let open_again = || {
        std::os::unix::fs::chown(&held, Some(OTHER), Some(OTHER)).unwrap();
        std::fs::set_permissions(&held, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open_again();
    assert!(!QuarantineFile.is_in_force(&attempt).await.unwrap(), "its owner can make it executable");
    std::fs::hard_link(&held, &path).unwrap();
    assert!(!QuarantineFile.is_lifted(&attempt).await.unwrap());
    QuarantineFile.apply(&attempt).await.unwrap();
    assert!(QuarantineFile.is_in_force(&attempt).await.unwrap() && !path.exists());

    // A name elsewhere is not known to the agent.
    std::fs::hard_link(&held, path.with_file_name("second")).unwrap();
    assert!(!QuarantineFile.is_in_force(&attempt).await.unwrap());
    let error = QuarantineFile.apply(&attempt).await.unwrap_err().to_string();
    assert!(error.contains("got another name (hard link)"), "{error}");
    assert_eq!(owner_and_mode(&path.with_file_name("second")), (0, 0));
    std::fs::remove_file(path.with_file_name("second")).unwrap();

    open_again();
    std::fs::hard_link(&held, &path).unwrap();
    QuarantineFile.revert(&attempt).await.unwrap();
    assert!(QuarantineFile.is_lifted(&attempt).await.unwrap());
    assert_eq!((owner_and_mode(&path), path.metadata().unwrap().nlink()), ((OTHER, 0o755), 1));
    assert!(bench.inside().is_empty());
}

/// A crash between two steps: the file is taken from its owner and not moved yet, or copied and not removed yet.
#[tokio::test]
async fn a_file_that_a_crash_left_at_its_place_is_not_in_force_and_gets_its_owner_back() {
    for (state, is_copied) in [("/tmp", false), ("/dev/shm", true)] {
        let bench = Bench::between(state, "/tmp");
        let (path, target) = bench.theirs();
        let mut attempt = bench.attempt(&target);
        let undo = QuarantineFile.prepare(&attempt).await.unwrap();
        attempt.undo = Some(&undo);
        let sealed = |path: &Path| {
            std::os::unix::fs::chown(path, Some(0), None).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap();
        };
        if is_copied {
            crate::durable::create_directory(&Store::folder(&bench.host)).unwrap();
            let held = Store::folder(&bench.host).join(undo["name"].as_str().unwrap());
            std::fs::copy(&path, &held).unwrap();
            sealed(&held);
        }
        sealed(&path);
        assert!(!QuarantineFile.is_in_force(&attempt).await.unwrap());
        assert!(!QuarantineFile.is_lifted(&attempt).await.unwrap());
        QuarantineFile.revert(&attempt).await.unwrap();
        assert!(QuarantineFile.is_lifted(&attempt).await.unwrap());
        assert_eq!(owner_and_mode(&path), (OTHER, 0o755));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "#!/bin/sh\n");
        QuarantineFile.apply(&attempt).await.unwrap();
        assert!(QuarantineFile.is_in_force(&attempt).await.unwrap() && !path.exists());
    }
}

/// The inode of the quarantined file is free, and its number is a file of root's, linked to the old place.
#[tokio::test]
async fn another_file_of_the_same_number_never_gets_the_owner_of_a_quarantined_one() {
    let bench = Bench::between("/tmp", "/tmp");
    let (path, target) = bench.theirs();
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    std::fs::hard_link(&path, bench.files.join("roots")).unwrap();
    std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o0)).unwrap();
    QuarantineFile.revert(&attempt).await.unwrap();
    assert_eq!(owner_and_mode(&path), (0, 0));
}

/// The attack: the account that has the file open makes it 8 TiB long, all of it a hole.
#[tokio::test]
async fn a_quarantined_file_that_was_made_huge_is_lifted_without_being_read() {
    let bench = Bench::between("/tmp", "/tmp");
    let (path, target) = bench.theirs();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    let open = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    QuarantineFile.apply(&attempt).await.unwrap();
    open.set_len(8 << 40).unwrap();
    assert!(QuarantineFile.is_in_force(&attempt).await.unwrap(), "it is still out of reach");
    let begun = std::time::Instant::now();
    QuarantineFile.revert(&attempt).await.unwrap();
    assert!(begun.elapsed().as_secs() < 5, "8 TiB were read");
    assert!(QuarantineFile.is_lifted(&attempt).await.unwrap());
    assert_eq!(owner_and_mode(&path), (OTHER, 0o755), "what was written meanwhile runs as no other account");
    let output = bench.transcript.lock().unwrap().output.clone();
    assert!(output.contains("has changed it while it was in quarantine"), "{output}");
}

/// The same where the file has to be copied back: the disk would be filled.
#[tokio::test]
async fn a_quarantined_file_that_was_made_huge_is_not_copied_back_and_stays_out_of_reach() {
    let bench = Bench::between("/dev/shm", "/tmp");
    let (path, target) = bench.theirs();
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    QuarantineFile.apply(&attempt).await.unwrap();
    let held = bench.inside().remove(0);
    let resize = |size| std::fs::OpenOptions::new().write(true).open(&held).unwrap().set_len(size).unwrap();
    resize(8 << 40);
    let begun = std::time::Instant::now();
    let error = QuarantineFile.revert(&attempt).await.unwrap_err().to_string();
    assert!(begun.elapsed().as_secs() < 5, "8 TiB were read");
    assert!(error.contains("more than quarantine_max_file_bytes") && error.contains("by hand"), "{error}");
    assert!(!path.exists() && !QuarantineFile.is_lifted(&attempt).await.unwrap());
    assert_eq!(owner_and_mode(&held), (0, 0));
    // Other contents of a size that may be taken are given back as they are.
    resize(3);
    QuarantineFile.revert(&attempt).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "#!/");
    assert_eq!((owner_and_mode(&path), bench.inside().len()), ((OTHER, 0o755), 0));
}

/// The attack: the account that owns the file holds a lease on it, so that who opens it without waiting is turned away.
#[tokio::test]
async fn a_lease_of_its_owner_does_not_keep_a_file_out_of_quarantine() {
    use crate::platform::guarded::tests::Lease;
    let bench = Bench::between("/tmp", "/tmp");
    let (path, target) = bench.theirs();
    let mut attempt = bench.attempt(&target);
    let lease = Lease::on(&path, Lease::YIELDS);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    drop(lease);
    let _lease = Lease::on(&path, Lease::YIELDS);
    QuarantineFile.apply(&attempt).await.unwrap();
    assert!(QuarantineFile.is_in_force(&attempt).await.unwrap() && !path.exists());
}

#[tokio::test]
async fn a_file_that_was_changed_for_another_is_not_taken_and_an_occupied_place_is_left() {
    let bench = Bench::between("/tmp", "/tmp");
    let (path, target) = (bench.files.join("file"), bench.target("file"));
    std::fs::write(&path, "first").unwrap();
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    std::fs::write(bench.files.join("other"), "second").unwrap();
    std::fs::rename(bench.files.join("other"), &path).unwrap();
    let error = QuarantineFile.apply(&attempt).await.unwrap_err().to_string();
    assert!(error.contains("has changed since"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");

    let undo = QuarantineFile.prepare(&bench.attempt(&target)).await.unwrap();
    attempt.undo = Some(&undo);
    QuarantineFile.apply(&attempt).await.unwrap();
    std::fs::write(&path, "third").unwrap();
    let error = QuarantineFile.revert(&attempt).await.unwrap_err().to_string();
    assert!(error.contains("something else is at"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "third");
    std::fs::remove_file(&path).unwrap();
    QuarantineFile.revert(&attempt).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
    attempt.undo = None;
    QuarantineFile.revert(&attempt).await.unwrap();
    assert!(QuarantineFile.is_lifted(&attempt).await.unwrap(), "nothing is known to be ours");
}

/// Promise 5: the work of a thread after its step was abandoned is reverted too.
#[tokio::test]
async fn promise_5_a_file_that_a_late_thread_is_still_at_is_neither_there_nor_gone() {
    let bench = Bench::between("/tmp", "/tmp");
    std::fs::write(bench.files.join("large"), "x").unwrap();
    let target = bench.target("large");
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (quarantine, kept) = store(&attempt).unwrap().unwrap();
    let taking = blocking(&attempt, move |_| {
        wait.recv().unwrap();
        quarantine.take(&kept, &GivenUp::default())
    });
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), taking).await.is_err(), "it was given up");
    let still = |error: ActionError| assert!(error.to_string().contains("still running"), "{error}");
    still(QuarantineFile.revert(&attempt).await.unwrap_err());
    still(QuarantineFile.is_lifted(&attempt).await.unwrap_err());
    go.send(()).unwrap();
    let begun = std::time::Instant::now();
    while QuarantineFile.revert(&attempt).await.is_err() {
        assert!(begun.elapsed().as_secs() < 10, "the thread is never done");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(QuarantineFile.is_lifted(&attempt).await.unwrap());
    assert_eq!(std::fs::read_to_string(bench.files.join("large")).unwrap(), "x");
}

/// A link that only root could have made is followed; its destination is moved and restored.
#[tokio::test]
async fn a_file_behind_roots_own_link_is_taken_from_its_real_place_and_put_back_there() {
    let bench = Bench::between("/tmp", "/tmp");
    std::fs::create_dir(bench.files.join("real")).unwrap();
    std::fs::write(bench.files.join("real/file"), "x").unwrap();
    std::os::unix::fs::symlink("real", bench.files.join("way")).unwrap();
    std::os::unix::fs::symlink("way/file", bench.files.join("link")).unwrap();
    let target = bench.target("link");
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    QuarantineFile.apply(&attempt).await.unwrap();
    assert!(!bench.files.join("real/file").exists() && bench.files.join("link").is_symlink());
    std::fs::remove_file(bench.files.join("way")).unwrap();
    QuarantineFile.revert(&attempt).await.unwrap();
    assert_eq!(std::fs::read_to_string(bench.files.join("real/file")).unwrap(), "x");
    std::os::unix::fs::symlink("/etc/passwd", bench.files.join("to-passwd")).unwrap();
    assert!(bench.refusal("to-passwd").await.contains("/etc/passwd is protected"));
}

/// The owner of the folder replaces it by a link while the file is away: the file is not restored
/// through the link.
#[tokio::test]
async fn a_link_that_takes_the_place_of_the_folder_leads_a_lift_nowhere() {
    for state in ["/tmp", "/dev/shm"] {
        let bench = Bench::between(state, "/tmp");
        let theirs = bench.files.join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("cron"), "* * * * * root evil").unwrap();
        std::os::unix::fs::chown(&theirs, Some(41_000), None).unwrap();
        let target = bench.target("theirs/cron");
        let mut attempt = bench.attempt(&target);
        let undo = QuarantineFile.prepare(&attempt).await.unwrap();
        attempt.undo = Some(&undo);
        QuarantineFile.apply(&attempt).await.unwrap();
        std::os::unix::fs::chown(&bench.files, Some(41_000), None).unwrap();
        let roots = bench.files.join("roots");
        std::fs::create_dir(&roots).unwrap();
        std::fs::remove_dir(&theirs).unwrap();
        std::os::unix::fs::symlink(&roots, &theirs).unwrap();
        let error = QuarantineFile.revert(&attempt).await.unwrap_err().to_string();
        assert!(error.contains("a symbolic link that another account could have made"), "{error}");
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 0);
        assert!(QuarantineFile.is_in_force(&attempt).await.unwrap(), "it is still held, and tried again");
        std::fs::remove_file(&theirs).unwrap();
        std::fs::create_dir(&theirs).unwrap();
        QuarantineFile.revert(&attempt).await.unwrap();
        assert_eq!(std::fs::read_to_string(theirs.join("cron")).unwrap(), "* * * * * root evil");
    }
}

#[tokio::test]
async fn large_files_holes_and_full_disks_are_refused_with_the_setting_to_change() {
    let mut bench = Bench::between("/dev/shm", "/tmp");
    bench.host.quarantine = Limits { max_file_bytes: 1000, min_free_bytes: u64::MAX };
    std::fs::File::create(bench.files.join("sparse")).unwrap().set_len(1 << 30).unwrap();
    assert!(bench.refusal("sparse").await.contains("more than the 1000 of quarantine_max_file_bytes"));
    std::fs::write(bench.files.join("small"), "x").unwrap();
    let target = bench.target("small");
    let mut attempt = bench.attempt(&target);
    let undo = QuarantineFile.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    let error = QuarantineFile.apply(&attempt).await.unwrap_err().to_string();
    assert!(error.contains("quarantine_min_free_bytes"), "{error}");
    assert!(bench.files.join("small").exists());
}

/// An abandoned step does not go on reading in a thread of its own.
#[tokio::test]
async fn a_thread_ends_with_the_step_that_it_works_for() {
    let bench = Bench::between("/tmp", "/tmp");
    std::fs::File::create(bench.files.join("large")).unwrap().set_len(16 << 30).unwrap();
    let target = bench.target("large");
    let attempt = bench.attempt(&target);
    let place = guarded::place(&bench.files.join("large")).unwrap();
    let limits = Limits { max_file_bytes: u64::MAX, min_free_bytes: 0 };
    let looking = blocking(&attempt, move |given_up| Kept::look(&place, Uuid::nil(), limits, given_up));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), looking).await.is_err(), "it was given up");
    let begun = std::time::Instant::now();
    while bench.host.at_work.begin(attempt.effect).is_err() {
        assert!(begun.elapsed().as_secs() < 5, "the thread reads on");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
