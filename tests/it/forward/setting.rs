//! The forwarder as a process, between a writer and a manager.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::writer::Writer;
use crate::processes::{Manager, PATIENCE, ended, eventually, manager_program, signal, tied};

/// The forwarder, as a process.
pub(super) struct Forwarder {
    pub(super) child: Child,
    pub(super) log: PathBuf,
}

pub(super) struct Setting {
    pub(super) manager: Manager,
    pub(super) writer: Writer,
    pub(super) state: TempDir,
    pub(super) key: PathBuf,
}

impl Setting {
    pub(super) async fn new() -> Self {
        let manager = Manager::start().await;
        let state = TempDir::new().unwrap();
        let key = state.path().join("ingest.key");
        let made =
            manager.api().post("/v1/api-keys", &json!({"name": "wazuh", "role": "ingest", "pipeline": "wazuh"})).await;
        fs::write(&key, made["key"].as_str().unwrap()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self { manager, writer: Writer::new(), state, key }
    }

    pub(super) fn command(&self, flags: &[&str]) -> (Command, PathBuf) {
        let log = self.state.path().join("log");
        let out = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = tied(&manager_program());
        command.arg("forward");
        for (flag, path) in [("--alerts", self.writer.main()), ("--state-dir", self.state.path().join("state"))] {
            if !flags.contains(&flag) {
                command.arg(flag).arg(path);
            }
        }
        command.args(["--manager", &self.manager.base(), "--key-file"]).arg(&self.key).args(flags);
        command.stdout(Stdio::null()).stderr(out);
        (command, log)
    }

    pub(super) fn start(&self, flags: &[&str]) -> Forwarder {
        let (mut command, log) = self.command(flags);
        Forwarder { child: command.spawn().unwrap(), log }
    }

    /// Runs a forwarder that must fail. Returns what it says.
    pub(super) async fn refused(&self, flags: &[&str]) -> String {
        let mut forwarder = self.start(flags);
        let status = ended(&mut forwarder.child, PATIENCE).await.expect("it ends");
        assert_eq!(status.code(), Some(1));
        forwarder.log()
    }

    /// The numbers of the alerts that the manager has.
    pub(super) async fn received(&self) -> BTreeSet<u64> {
        let (mut numbers, mut cursor) = (BTreeSet::new(), String::new());
        loop {
            let page = self.manager.api().get(&format!("/v1/alerts?limit=500{cursor}")).await;
            for alert in page["items"].as_array().unwrap() {
                let id = alert["pipeline_id"].as_str().unwrap();
                assert!(numbers.insert(id.split_once('.').unwrap().1.parse().unwrap()), "twice: {id}");
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return numbers,
            }
        }
    }

    pub(super) async fn has(&self, count: u64) {
        eventually(&format!("{count} alerts"), PATIENCE * 2, || async {
            let counted = self.manager.api().get("/v1/alerts?limit=500").await;
            let most = counted["items"].as_array().unwrap().len() as u64;
            (most >= count.min(500)).then_some(())?;
            (self.received().await.len() as u64 >= count).then_some(())
        })
        .await;
        assert_eq!(self.received().await, (1..=count).collect(), "none is lost, and none invented");
    }
}

impl Setting {
    /// Waits until the cursor is at the end of the present file.
    pub(super) async fn is_caught_up(&self, patience: Duration) {
        let cursor = self.state.path().join("state/cursor.json");
        eventually("the end of the file", patience, || async {
            let stored: Value = serde_json::from_slice(&fs::read(&cursor).ok()?).ok()?;
            let main = fs::metadata(self.writer.main()).ok()?;
            let is_there =
                stored["position"]["file"]["inode"] == main.ino() && stored["position"]["offset"] == main.len();
            is_there.then_some(())
        })
        .await;
    }
}

impl Forwarder {
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(super) async fn says(&self, what: &str) {
        eventually(what, PATIENCE, || async { self.log().contains(what).then_some(()) }).await;
    }

    pub(super) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) async fn stop(mut self) {
        signal(&self.child, "TERM");
        let status = ended(&mut self.child, PATIENCE).await.expect("it ends");
        assert!(status.success(), "{}", self.log());
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the forwarder's log ---\n{}", self.log());
        }
    }
}
