//! `riposte forward` between the files of alerts and the managers, over the pipeline's network. Its
//! cursor is on a disk of its own.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::alert_files::{AlertFiles, Rotation};
use crate::api::Api;
use crate::faults::{Fault, FaultKind};
use crate::plan::Plan;
use crate::programs::{PATIENCE, Process, beside, last_lines, tied};
use crate::sandbox::Disk;

/// Size of the disk with the cursor, in bytes.
const DISK_BYTES: u64 = 1 << 20;
/// What it says when lines are lost. It must never come to that: no file is removed before it is
/// read.
const LOSSES: [&str; 4] = ["is lost", "is left out", "the manager rejects", "reading it from its beginning"];

/// The forwarder, over all its restarts.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(crate) process: Process,
    files: Arc<Mutex<AlertFiles>>,
    program: PathBuf,
    arguments: Vec<OsString>,
    cursor: PathBuf,
    disk: Disk,
}

impl Forwarder {
    /// Starts it in `home`, with a key of its own of the manager behind `api`; it sends to `base`.
    /// Returns once it is stored where it begins.
    ///
    /// # Errors
    /// If it cannot be started, or does not begin.
    pub(crate) async fn begin_in(home: &Path, plan: &Plan, api: &Api, base: &str) -> anyhow::Result<Self> {
        let asked = json!({"name": "forwarder", "role": "ingest", "pipeline": "wazuh"});
        let made = api.post("/v1/api-keys", &asked).await?;
        let key = home.join("forwarder.key");
        std::fs::write(&key, made["key"].as_str().context("no key")?)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
        let files = AlertFiles::create(home.join("alerts"), plan.clone())?;
        let disk = Disk::mount(&home.join("forwarder"), DISK_BYTES)?;
        let named = [("--alerts", files.main()), ("--state-dir", disk.path.clone()), ("--key-file", key)];
        let mut arguments: Vec<OsString> = vec!["forward".into(), "--manager".into(), base.into()];
        arguments.extend(named.into_iter().flat_map(|(flag, path)| [flag.into(), path.into_os_string()]));
        let process = Process::new(home.join("forwarder.log"));
        let (files, cursor) = (Arc::new(Mutex::new(files)), disk.path.join("cursor.json"));
        let mut forwarder = Self { process, files, program: beside("riposte")?, arguments, cursor, disk };
        forwarder.spawn(&["--from", "beginning"])?;
        let deadline = Instant::now() + PATIENCE;
        while !forwarder.cursor.exists() {
            if Instant::now() > deadline {
                bail!("the forwarder does not begin:\n{}", last_lines(&forwarder.process.said()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(forwarder)
    }

    /// Starts it again: it goes on at its cursor.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.spawn(&[])
    }

    fn spawn(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let mut command = tied(&self.program);
        command.args(&self.arguments).args(more);
        self.process.start(command)
    }

    /// The files that it reads.
    pub(crate) fn files(&self) -> Arc<Mutex<AlertFiles>> {
        Arc::clone(&self.files)
    }

    fn lock(&self) -> MutexGuard<'_, AlertFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a fault.
    ///
    /// # Errors
    /// If it cannot be injected.
    pub(crate) fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            FaultKind::ForwarderPaused => self.process.signal(Signal::SIGSTOP),
            FaultKind::ForwarderDiskFull => self.disk.fill()?,
            FaultKind::ForwarderKilledAtRotation => {
                self.lock().begin_line()?;
                self.process.kill9();
                let mut files = self.lock();
                files.rotate(Rotation::of(fault.amount))?;
                files.line()?;
                files.begin_line()?;
                files.rotate(Rotation::of(fault.percent))?;
            }
            _ => self.process.kill9(),
        }
        Ok(())
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// If it cannot be repaired.
    pub(crate) fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            FaultKind::ForwarderPaused => self.process.signal(Signal::SIGCONT),
            FaultKind::ForwarderDiskFull => self.disk.free()?,
            _ => self.start()?,
        }
        Ok(())
    }

    /// Waits until its cursor is at the end of the newest file; returns what is wrong with it.
    pub(crate) async fn finish(&self, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut wrong = Vec::new();
        while !self.is_caught_up() {
            if Instant::now() > deadline {
                let cursor = std::fs::read_to_string(&self.cursor).unwrap_or_default();
                wrong.push(format!("the forwarder has not caught up within {} s: {cursor}", patience.as_secs()));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let said = self.process.said();
        let lost = said.lines().filter(|line| LOSSES.iter().any(|word| line.contains(word)));
        wrong.extend(lost.map(|line| format!("the forwarder says: {line}")));
        wrong
    }

    fn is_caught_up(&self) -> bool {
        let files = self.lock();
        let stored = std::fs::read(&self.cursor).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let main = std::fs::metadata(files.main());
        stored.zip(main.ok()).is_some_and(|(stored, main)| {
            let position = &stored["position"];
            position["file"]["inode"] == main.ino() && position["offset"] == main.len()
        })
    }
}
