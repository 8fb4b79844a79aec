//! `active-responses.log`: what was done on this host, in the format of Wazuh's own programs, so
//! that its decoder and its rules 650 to 657 read it. A line reports what *was* done; Wazuh's own
//! reports what was started.
//!
//! The content of an alert is hostile. A line is JSON, which escapes every control character, and
//! one write, so that two writers never mix. The file is rotated, so its size is bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use riposte_protocol::command::Op;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::conventions;
use crate::platform::guarded::{self, Folder, Mode, OFlags, PathError};

/// Size at which the file is rotated; one older file is kept.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// Longest line. A longer line is cut down to its essentials: Wazuh reads no line over 64 KiB.
const MAX_LINE_BYTES: usize = 60 * 1024;

/// Free space below which the log is not written, in bytes.
const MIN_FREE_BYTES: u64 = 1024 * 1024;
/// How much waits for a file on which another process holds a lease, in bytes; later lines are lost.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// One line: what was done.
#[derive(Debug)]
pub struct Note<'a> {
    op: Op,
    program: &'a str,
    arguments: &'a [String],
    alert: Value,
    essentials: Value,
}

impl<'a> Note<'a> {
    /// The line of what `program` did. Without an alert it gets the `essentials` of one.
    pub fn new(op: Op, program: &'a str, arguments: &'a [String], alert: Option<&Value>, essentials: Value) -> Self {
        let alert = alert.cloned().unwrap_or_else(|| essentials.clone());
        Self { op, program, arguments, alert, essentials }
    }

    fn line(&self, now: Timestamp) -> String {
        let whole = self.line_with(now, &self.alert);
        if whole.len() <= MAX_LINE_BYTES { whole } else { self.line_with(now, &self.essentials) }
    }

    fn line_with(&self, now: Timestamp, alert: &Value) -> String {
        let program = format!("active-response/bin/{}", self.program);
        let message = json!({
            "version": 1,
            // What Wazuh's rules do not read tells the line from one of Wazuh's own.
            "origin": { "name": "riposte", "module": "wazuh-execd" },
            "command": conventions::verb(self.op),
            "parameters": { "extra_args": self.arguments, "alert": alert, "program": program },
        });
        // `2026-11-24T10:00:00.000Z` in the format of the log.
        let time = now.to_string().get(..19).unwrap_or_default().replace('-', "/").replace('T', " ");
        format!("{time} {program}: {message}\n")
    }
}

/// The log file.
#[derive(Debug)]
pub struct ResponsesLog {
    path: PathBuf,
    waiting: Arc<Mutex<Waiting>>,
}

/// Lines that wait for the file.
#[derive(Debug, Default)]
struct Waiting {
    lines: String,
    /// Whether a thread waits for it, and writes them then.
    is_awaited: bool,
}

impl ResponsesLog {
    /// A log at `path`; the file is created by the first line.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), waiting: Arc::default() }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line. If another process holds a lease on the file, a thread does it once the kernel has taken the lease: the
    /// agent's one thread does not wait.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, note: &Note<'_>, now: Timestamp) -> io::Result<()> {
        let line = note.line(now);
        let mut waiting = lock(&self.waiting);
        if !waiting.is_awaited {
            match open(&self.path, |folder, name, flags, mode| folder.open(name, flags, mode)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(&mut waiting)?,
                opened => return opened?.write_all(line.as_bytes()),
            }
        }
        if waiting.lines.len() + line.len() > MAX_WAITING_BYTES {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds a lease on it"));
        }
        waiting.lines.push_str(&line);
        Ok(())
    }

    fn wait(&self, waiting: &mut Waiting) -> io::Result<()> {
        let (path, lines) = (self.path.clone(), self.waiting.clone());
        let work = move || {
            let opened = open(&path, |folder, name, flags, mode| folder.open_waiting(name, flags, mode));
            let mut waiting = lock(&lines);
            waiting.is_awaited = false;
            let lines = std::mem::take(&mut waiting.lines);
            if let Err(error) = opened.and_then(|mut file| file.write_all(lines.as_bytes())) {
                tracing::warn!(path = %path.display(), %error, "the log of responses cannot be written");
            }
        };
        std::thread::Builder::new().name("responses-log".into()).spawn(work)?;
        waiting.is_awaited = true;
        Ok(())
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the log to append to it, as `open_file` does; an older one that is full is put aside.
fn open(path: &Path, open_file: impl Fn(&Folder, &OsStr, OFlags, Mode) -> Result<File, PathError>) -> io::Result<File> {
    // Wazuh's folder of logs belongs to Wazuh's account, which must not choose what root writes to.
    let place = guarded::place(path)?;
    let open = || {
        // Readable by the group that collects logs, as Wazuh's is.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        open_file(&place.folder, &place.name, flags, Mode::from(0o640))
    };
    let mut file = open()?;
    if file.metadata()?.len() > MAX_BYTES {
        let mut older = place.name.clone();
        older.push(".1");
        match place.folder.rename(&place.name, &older) {
            Ok(()) => file = open()?,
            // A file that is a mount keeps its name: it is copied and emptied.
            Err(PathError::System { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
                let mut copy = open_file(&place.folder, &older, flags, Mode::from(0o640))?;
                let mut full = open_file(&place.folder, &place.name, OFlags::RDONLY, Mode::empty())?;
                io::copy(&mut full, &mut copy)?;
                file.set_len(0)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What little room is left is the journal's, without which nothing is blocked and nothing lifted.
    if place.folder.free_bytes()? < MIN_FREE_BYTES {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is nearly full"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use riposte_protocol::target::{Target, TargetKind};

    use super::*;
    use crate::actions::{About, Attempt, Host, Transcript, own_namespace};
    use crate::runner::Runner;

    const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);

    #[test]
    fn a_line_has_the_format_of_wazuhs_decoder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("active-responses.log");
        let host = Host::new(Runner::new(), directory.path());
        let (target, transcript) =
            (Target::parse(TargetKind::Ip, "203.0.113.7").unwrap(), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&host, &transcript, &target);
        let log = ResponsesLog::at(&path);
        log.write(&attempt.log_line(Op::Apply, "firewall-drop", &About::DEFAULT), NOW).unwrap();
        let alert =
            json!({"full_log": "a\n2026/11/24 10:00:00 active-response/bin/firewall-drop: {\"x\"\u{7}\u{2028}"});
        attempt.alert = Some(&alert);
        log.write(&attempt.log_line(Op::Revert, "firewall-drop", &About::DEFAULT), NOW).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "whatever is in an alert stays in its line");
        for (line, command) in lines.iter().zip(["add", "delete"]) {
            let message = line.strip_prefix("2026/11/24 10:00:00 active-response/bin/firewall-drop: ").unwrap();
            assert!(!message.chars().any(char::is_control));
            let message: Value = serde_json::from_str(message).unwrap();
            assert_eq!(message["command"], command);
            assert_eq!(message["parameters"]["program"], "active-response/bin/firewall-drop");
        }
        assert!(lines[0].contains(r#""srcip":"203.0.113.7""#), "{}", lines[0]);
    }

    /// An attack by the owner of the folder: root must not be made to write to another file.
    #[test]
    fn a_folder_of_another_account_leads_into_no_file_of_roots() {
        use std::os::unix::fs::{chown, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (secret, logs) = (directory.path().join("secret"), directory.path().join("logs"));
        std::fs::write(&secret, "root's").unwrap();
        std::fs::create_dir(&logs).unwrap();
        chown(&logs, Some(41_000), Some(41_000)).unwrap();
        let host = Host::new(Runner::new(), directory.path());
        let (target, transcript) = (Target::host(), Mutex::<Transcript>::default());
        let attempt = Attempt::new(&host, &transcript, &target);
        let log = ResponsesLog::at(&logs.join("active-responses.log"));
        let write = || log.write(&attempt.log_line(Op::Apply, "isolate-host", &About::DEFAULT), NOW);
        write().unwrap();
        let make: [fn(&Path, &Path); 3] = [
            |secret, path| symlink(secret, path).unwrap(),
            |secret, path| std::fs::hard_link(secret, path).unwrap(),
            |_, path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        ];
        for make in make {
            std::fs::remove_file(log.path()).unwrap();
            make(&secret, log.path());
            write().unwrap_err();
            assert_eq!(std::fs::read_to_string(&secret).unwrap(), "root's");
        }
        // Nor by the older file, which rotation replaces.
        std::fs::remove_file(log.path()).unwrap();
        std::fs::File::create(log.path()).unwrap().set_len(MAX_BYTES + 1).unwrap();
        symlink(&secret, logs.join("active-responses.log.1")).unwrap();
        write().unwrap();
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "root's");
        assert_eq!(logs.join("active-responses.log.1").metadata().unwrap().len(), MAX_BYTES + 1);
    }

    /// An attack of the account that owns the log: while it holds a lease, what opens the file is turned away.
    #[test]
    fn a_lease_on_the_log_delays_its_lines_and_loses_none() {
        use crate::platform::guarded::tests::Lease;
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(Runner::new(), directory.path());
        let (target, transcript) = (Target::host(), Mutex::<Transcript>::default());
        let attempt = Attempt::new(&host, &transcript, &target);
        let log = ResponsesLog::at(&directory.path().join("active-responses.log"));
        let write = |op| log.write(&attempt.log_line(op, "isolate-host", &About::DEFAULT), NOW);
        std::fs::write(log.path(), "").unwrap();
        let _lease = Lease::on(log.path(), Lease::YIELDS);
        let begun = std::time::Instant::now();
        write(Op::Apply).unwrap();
        write(Op::Revert).unwrap();
        assert!(begun.elapsed().as_millis() < 250, "the agent's one thread waited");
        while lock(&log.waiting).is_awaited {
            assert!(begun.elapsed().as_secs() < 30, "the lines are never written");
            std::thread::yield_now();
        }
        let text = std::fs::read_to_string(log.path()).unwrap();
        let verbs = [r#""command":"add""#, r#""command":"delete""#];
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().zip(verbs).all(|(line, verb)| line.contains(verb)), "{text}");
    }

    #[test]
    fn the_log_is_bounded_in_its_lines_and_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("active-responses.log");
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let host = Host::new(Runner::new(), directory.path());
        let (target, transcript) = (Target::host(), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&host, &transcript, &target);
        let alert = json!({"full_log": "x".repeat(1_000_000)});
        attempt.alert = Some(&alert);
        ResponsesLog::at(&path).write(&attempt.log_line(Op::Apply, "isolate-host", &About::DEFAULT), NOW).unwrap();
        assert!(path.metadata().unwrap().len() < 1000);
        assert_eq!(directory.path().join("active-responses.log.1").metadata().unwrap().len(), MAX_BYTES + 1);
    }

    #[tokio::test]
    async fn field_16_a_log_that_is_a_mount_is_bounded_too() {
        if !own_namespace::is_inside() {
            let name = "responses_log::tests::field_16_a_log_that_is_a_mount_is_bounded_too";
            return own_namespace::run_again(name, &[], &[], ":").await;
        }
        let directory = tempfile::tempdir().unwrap();
        let (path, below) = (directory.path().join("active-responses.log"), directory.path().join("below"));
        std::fs::File::create(&path).unwrap();
        std::fs::File::create(&below).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let mounted = std::process::Command::new("mount").arg("--bind").args([&below, &path]).status().unwrap();
        assert!(mounted.success());
        let host = Host::new(Runner::new(), directory.path());
        let (target, transcript) = (Target::host(), Mutex::<Transcript>::default());
        let attempt = Attempt::new(&host, &transcript, &target);
        ResponsesLog::at(&path).write(&attempt.log_line(Op::Apply, "isolate-host", &About::DEFAULT), NOW).unwrap();
        assert!((1..1000).contains(&below.metadata().unwrap().len()), "its reader follows the same file");
        assert_eq!(directory.path().join("active-responses.log.1").metadata().unwrap().len(), MAX_BYTES + 1);
    }
}
