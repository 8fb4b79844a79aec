//! Quarantine on real files, on one file system and across two.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Mutex;

use riposte_protocol::target::Target;
use uuid::Uuid;

use super::*;
use crate::actions::Transcript;
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
    for path in ["/etc/passwd", "/usr/bin/env", "/proc/self/exe", "/dev/null", "/bin/sh", "/lib/x"]
        .map(PathBuf::from)
        .into_iter()
        .chain([journal, own])
    {
        let target = Target::parse(TargetKind::File, path.to_str().unwrap()).unwrap();
        let refusal = QuarantineFile.prepare(&bench.attempt(&target)).await.unwrap_err().to_string();
        assert!(refusal.contains("is protected"), "{refusal}");
    }
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
    let still = |error: ActionError| assert!(error.to_string().contains("still at it"), "{error}");
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
