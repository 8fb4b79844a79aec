//! The programs under test as processes: started, killed at any time, stopped and continued. All
//! are killed when the harness ends, by `setpriv --pdeathsig`. That signal comes when the starting
//! thread ends, so they are started only on the main thread.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::plan::{PROGRAM, PROGRAM_TEXT, Plan};
use crate::sandbox::SlowDisk;

/// Base URL of a collector of traces that is not there: the port that discards, on this host.
const NO_COLLECTOR: &str = "http://127.0.0.1:9";

/// Time limit, on a busy machine, of a step that normally takes moments.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A program that is killed when this one ends, for any reason, and has none of our environment
/// variables.
pub(crate) fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL", "--"]).arg(program).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RIPOSTE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Path of a program of this workspace, in the folder of this one.
///
/// # Errors
/// If it does not exist.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    if !program.is_file() {
        bail!("{name} is not built beside this program: run `cargo build --workspace` first");
    }
    Ok(program)
}

/// Opens a log to append to.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn append(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| path.display().to_string())
}

/// One process, over all its restarts.
#[derive(Debug)]
pub(crate) struct Process {
    child: Option<Child>,
    /// File of its output.
    pub(crate) log: PathBuf,
}

impl Process {
    /// A process that does not run yet.
    pub(crate) fn new(log: PathBuf) -> Self {
        Self { child: None, log }
    }

    /// Starts it.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn start(&mut self, mut command: Command) -> anyhow::Result<()> {
        self.kill9();
        let (out, err) = (append(&self.log)?, append(&self.log)?);
        self.child = Some(command.stdout(out).stderr(err).spawn().context("a program cannot be started")?);
        Ok(())
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&mut self) -> Option<u32> {
        if self.is_running() { self.child.as_ref().map(Child::id) } else { None }
    }

    /// A size from its `/proc/PID/status`, in KiB, while it runs.
    pub(crate) fn kib(&mut self, field: &str) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let rest = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// Number of its open files, while it runs.
    pub(crate) fn open_files(&mut self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.pid()?)).ok()?.count())
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Whether it is a manager that has ended because its database was away when it started. Any other end is one that the report
    /// names.
    pub(crate) fn has_no_database(&mut self) -> bool {
        let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        status.is_some_and(|status| status.code() == Some(1)) && is_about_database(&self.said())
    }

    /// Sends SIGKILL, and reaps it.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Sends `signal` and waits at most `patience` for its end; returns whether it ended.
    pub(crate) async fn end(&mut self, signal: Signal, patience: Duration) -> bool {
        self.signal(signal);
        let deadline = tokio::time::Instant::now() + patience;
        while self.is_running() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child = None;
        true
    }

    /// Its whole output, over all restarts.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// Whether the last line is the error of a manager that cannot open its database.
fn is_about_database(said: &str) -> bool {
    let errors = ["riposte: cannot open the database: ", "riposte: cannot take a lease on the ledger: "];
    said.lines().last().is_some_and(|line| errors.iter().any(|error| line.starts_with(error)))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A free address below the ephemeral ports. While the manager is down, one of hundreds of
/// connections could take an ephemeral port, and the manager could not bind it again.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..100 {
        let random = getrandom::u32().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let port = 10_000 + u16::try_from(random % 20_000)?;
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port is free")
}

/// The manager.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) process: Process,
    /// Address that it listens on.
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
    program: PathBuf,
    database_url: Option<String>,
    slow: Option<SlowDisk>,
}

impl Manager {
    /// A manager with its files in `data`. Its ledger is at `database_url`, or in `data` too.
    ///
    /// # Errors
    /// If the program is not built.
    pub(crate) fn new(
        data: PathBuf,
        log: PathBuf,
        database_url: Option<String>,
        slow: Option<SlowDisk>,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        Ok(Self { process: Process::new(log), address, data, program: beside("riposte")?, database_url, slow })
    }

    /// Starts it, again or for the first time.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let mut command = tied(&self.program);
        command.args(["serve", "--listen", &self.address.to_string(), "--data-dir"]).arg(&self.data);
        // The plan's alerts are the same in every run, with the same timestamps.
        command.args(["--max-age", "none"]);
        // The receiver of the webhook is on this host.
        command.args(["--egress-allow", "127.0.0.0/8"]);
        // Where no collector listens: that costs nothing else, and is said.
        command.args(["--otlp-endpoint", NO_COLLECTOR, "--otlp-interval", "1s"]);
        if let Some(url) = &self.database_url {
            command.args(["--database-url", url]);
        } else if let Some(slow) = &self.slow {
            slow.attach(&mut command, "store");
        }
        self.process.start(command)
    }

    /// Waits until it is ready, and restarts it if it ends meanwhile.
    ///
    /// # Errors
    /// If it is not ready within [`PATIENCE`].
    pub(crate) async fn is_ready(&mut self, http: &reqwest::Client) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let asked =
                http.get(format!("http://{}/readyz", self.address)).timeout(Duration::from_secs(2)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                bail!("the manager is not ready:\n{}", last_lines(&self.process.said()));
            }
            if !self.process.is_running() {
                self.start()?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The findings of its doctor about the ledger, while it runs.
    ///
    /// # Errors
    /// If the doctor fails.
    pub(crate) fn findings(&self) -> anyhow::Result<Vec<String>> {
        let mut command = tied(&self.program);
        command.args(["doctor", "--json", "--data-dir"]).arg(&self.data);
        if let Some(url) = &self.database_url {
            command.args(["--database-url", url]);
        }
        let asked = command.output()?;
        let report: serde_json::Value = serde_json::from_slice(&asked.stdout)
            .with_context(|| String::from_utf8_lossy(&asked.stderr).into_owned())?;
        Ok(report["findings"].as_array().into_iter().flatten().map(ToString::to_string).collect())
    }

    /// The first admin key.
    ///
    /// # Errors
    /// If it was not written.
    pub(crate) fn key(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.data.join("admin.key"))?.trim().to_owned())
    }
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) name: String,
    /// Its id, assigned by the manager.
    pub(crate) id: String,
    /// Its state directory.
    pub(crate) state: PathBuf,
    /// Folder in place of a Wazuh agent's home.
    pub(crate) home: PathBuf,
    program: PathBuf,
    slow: Option<SlowDisk>,
}

impl Agent {
    /// Enrols an agent through `manager`; its programs are in `home`.
    ///
    /// # Errors
    /// If the enrolment fails.
    pub(crate) fn enroll(
        manager: &str,
        token: &Path,
        name: &str,
        (state, home): (PathBuf, PathBuf),
        log: PathBuf,
        slow: Option<SlowDisk>,
    ) -> anyhow::Result<Self> {
        let program = beside("riposte-agent")?;
        let programs = home.join("active-response/bin");
        std::fs::create_dir_all(&programs)?;
        std::fs::write(programs.join(PROGRAM), PROGRAM_TEXT)?;
        std::fs::set_permissions(programs.join(PROGRAM), std::os::unix::fs::PermissionsExt::from_mode(0o750))?;
        let mut enrolling = tied(&program);
        enrolling.args(["enroll", "--manager", manager, "--name", name, "--token-file"]).arg(token);
        let done = enrolling.arg("--state-dir").arg(&state).output()?;
        if !done.status.success() {
            bail!("{name} was not enrolled: {}", String::from_utf8_lossy(&done.stderr));
        }
        std::fs::write(state.join("agent.toml"), Plan::local_policy())?;
        let identity: serde_json::Value = serde_json::from_slice(&std::fs::read(state.join("agent.json"))?)?;
        let id = identity["agent_id"].as_str().context("an enrolment without an id")?.to_owned();
        Ok(Self { process: Process::new(log), name: name.into(), id, state, home, program, slow })
    }

    /// Starts it, again or for the first time.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let mut command = tied(&self.program);
        command.args(["run", "--state-dir"]).arg(&self.state).arg("--wazuh-home").arg(&self.home);
        if let Some(slow) = &self.slow {
            slow.attach(&mut command, "agents");
        }
        self.process.start(command)
    }

    /// Output of its `status` command.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(crate) fn status(&self) -> anyhow::Result<serde_json::Value> {
        let asked = tied(&self.program).args(["status", "--json", "--state-dir"]).arg(&self.state).output()?;
        if !asked.status.success() {
            bail!("{}: {}", self.name, String::from_utf8_lossy(&asked.stderr));
        }
        Ok(serde_json::from_slice(&asked.stdout)?)
    }
}

/// The end of a log.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_for_want_of_the_database_is_no_surprise() {
        let said = "INFO Riposte listens on 127.0.0.1:1\nriposte: cannot open the database: the database cannot be reached (x)\n";
        assert!(is_about_database(said) && is_about_database("riposte: cannot take a lease on the ledger: away\n"));
        let panicked = format!("{said}thread 'main' panicked at src/main.rs:1:1\n");
        for other in ["", "riposte: cannot listen on 127.0.0.1:1\n", "cannot open the database: x\n", &panicked] {
            assert!(!is_about_database(other), "{other}");
        }
    }
}
