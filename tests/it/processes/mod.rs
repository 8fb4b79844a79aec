//! What the tests with real programs share: a manager and agents as child processes that can be
//! killed at any instant, a client for the manager's API, and a fake agent that sends and receives
//! what a test wants.
//!
//! Every child dies with the test that started it, however the test ends. It is started through
//! `setpriv --pdeathsig`, whose signal comes when the starting thread is gone. So children are
//! started on the test's own thread.

mod api;
mod fake_agent;
mod programs;

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use riposte::clock::Clock;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use api::Api;
pub(crate) use fake_agent::{FakeAgent, Heard, Stream, succeeded};
pub(crate) use programs::{agent_program, manager_program, require, tied};

/// Deadline of fast operations on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// Waits until `look` returns a value; fails with `what` after `patience`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Sends a signal to a child, by its id.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "cannot send {name} to {}", child.id());
}

/// Waits until a child exits, at most `patience`.
pub(crate) async fn ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends SIGKILL and reaps the child.
fn kill9(child: &mut Child) {
    // An error means that it has ended already.
    let _ = child.kill();
    child.wait().unwrap();
}

/// The manager, as a process.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    directory: TempDir,
    flags: Vec<String>,
    /// The wrapper program; it must end in an exec of the manager.
    wrapper: Vec<String>,
    http: reqwest::Client,
}

impl Manager {
    /// Starts a manager on an empty ledger and a free port of the loopback interface.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), flags, |_| Vec::new()).await
    }

    /// The same, on the folder `data` in a directory.
    pub(crate) async fn start_on(directory: TempDir, flags: &[&str]) -> Self {
        Self::start_in(directory, flags, |_| Vec::new()).await
    }

    /// Starts a manager by a program that starts it.
    pub(crate) async fn start_by(wrapper: &[&str], flags: &[&str]) -> Self {
        let wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        Self::start_in(TempDir::new().unwrap(), flags, |_| wrapper).await
    }

    /// Starts another manager with a copy of this one's data directory.
    pub(crate) async fn start_copy(&self) -> Self {
        self.start_copy_in(&[]).await
    }

    /// The same, by a program that starts it.
    pub(crate) async fn start_copy_in(&self, wrapper: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        copy_keys(&self.data_dir(), &directory.path().join("data"));
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        Self::start_in(directory, &flags, |_| wrapper).await
    }

    /// Starts a manager whose data directory is a file system of its own, of `mib` MiB.
    pub(crate) async fn start_on_small_disk(mib: u32) -> Self {
        require(&[("unshare", "util-linux"), ("mount", "mount")]);
        let mount = format!(r#"mkdir "$0" && mount -t tmpfs -o size={mib}m,mode=700 none "$0" && exec "$@""#);
        Self::start_in(TempDir::new().unwrap(), &[], |data| {
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", &mount, data].map(str::to_owned).to_vec()
        })
        .await
    }

    async fn start_in(directory: TempDir, flags: &[&str], wrap: impl FnOnce(&str) -> Vec<String>) -> Self {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let wrapper = wrap(directory.path().join("data").to_str().unwrap());
        let mut child = Self::spawn(&directory, "127.0.0.1:0".parse().unwrap(), &flags, &wrapper);
        let log = directory.path().join("log");
        let deadline = Instant::now() + PATIENCE;
        let address = loop {
            let text = read(&log);
            let found = text.lines().find_map(|line| line.split_once("Riposte listens on ")).map(|(_, rest)| rest);
            if let Some(address) = found.and_then(|rest| rest.split(['"', ' ']).next()?.parse().ok()) {
                break address;
            }
            let gone = child.try_wait().unwrap();
            assert!(gone.is_none() && Instant::now() < deadline, "the manager did not start ({gone:?}):\n{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90));
        let http = match authority(&flags) {
            Some(path) => {
                http.tls_certs_only(reqwest::Certificate::from_pem_bundle(&std::fs::read(path).unwrap()).unwrap())
            }
            None => http,
        };
        let http = http.build().unwrap();
        let mut manager = Self { child, address, directory, flags, wrapper, http };
        manager.is_ready().await;
        manager
    }

    fn spawn(directory: &TempDir, address: SocketAddr, flags: &[String], wrapper: &[String]) -> Child {
        let log = directory.path().join("log");
        let program: Vec<PathBuf> = wrapper.iter().map(PathBuf::from).chain([manager_program()]).collect();
        tied(&program[0])
            .args(&program[1..])
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(directory.path().join("data"))
            .args(flags)
            .stdout(append(&log))
            .stderr(append(&log))
            .spawn()
            .unwrap()
    }

    async fn is_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = self.http.get(format!("{}/readyz", self.base())).send().await;
            if asked.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            // An outgoing connection of another program may hold the port for a moment.
            if self.child.try_wait().unwrap().is_some() {
                self.child = Self::spawn(&self.directory, self.address, &self.flags, &self.wrapper);
            }
            assert!(Instant::now() < deadline, "the manager is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        kill9(&mut self.child);
    }

    /// Adds a flag, from its next start on.
    pub(crate) fn add_flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// Starts it again, on the same port and the same ledger.
    pub(crate) async fn start_again(&mut self) {
        self.kill9();
        self.child = Self::spawn(&self.directory, self.address, &self.flags, &self.wrapper);
        self.is_ready().await;
    }

    /// Returns the directory of its ledger and its keys, as the manager sees it.
    pub(crate) fn data_dir(&self) -> PathBuf {
        let path = self.directory.path().join("data");
        if self.wrapper.is_empty() {
            return path;
        }
        Path::new(&format!("/proc/{}/root", self.child.id())).join(path.strip_prefix("/").unwrap())
    }

    /// Returns the URL under which it is reached.
    pub(crate) fn base(&self) -> String {
        let scheme = if authority(&self.flags).is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Sends a request, and measures how long the answer takes.
    pub(crate) async fn ask(&self, path: &str) -> (StatusCode, String, Duration) {
        let begun = Instant::now();
        let answer = self.http.get(format!("{}{path}", self.base())).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        (status, text, begun.elapsed())
    }

    /// Runs the command line with this manager's key; returns whether it succeeded, and its output.
    pub(crate) fn command(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = tied(&manager_program());
        command.args(arguments).env("RIPOSTE_MANAGER", self.base());
        if let Some(path) = authority(&self.flags) {
            command.env("RIPOSTE_CA", path);
        }
        command.env("RIPOSTE_KEY_FILE", self.data_dir().join("admin.key"));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// Returns its log, over all restarts.
    pub(crate) fn log(&self) -> String {
        read(&self.directory.path().join("log"))
    }

    /// Returns the CPU time used so far, by proc(5).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // USER_HZ is 100 wherever Linux runs.
        Duration::from_millis(ticks * 10)
    }

    /// Returns a client with the first administrator's key.
    pub(crate) fn api(&self) -> Api {
        let key = read(&self.data_dir().join("admin.key")).trim().to_owned();
        assert!(key.starts_with("rip_"), "no admin key was written:\n{}", self.log());
        Api { http: self.http.clone(), base: self.base(), key }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the manager's log ---\n{}", last_lines(&self.log()));
        }
    }
}

/// The authority of a manager's certificate, where `riposte tls self-signed` puts it, if the flags
/// name a certificate.
fn authority(flags: &[String]) -> Option<PathBuf> {
    let at = flags.iter().position(|flag| flag == "--tls-cert")?;
    Some(Path::new(&flags[at + 1]).with_file_name("ca.pem"))
}

/// Copies a manager's keys into a new data directory.
pub(crate) fn copy_keys(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in ["signing.key", "admin.key"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Returns a field that must be a string.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// A Wazuh 4.x alert of rule 5763: a client at `source` guesses passwords on the host of `agent`.
pub(crate) fn alert(number: u64, source: &str, agent: &str) -> Value {
    json!({
        "timestamp": riposte::clock::Clock::system().now(),
        "rule": {"level": 10, "id": "5763", "description": "sshd: brute force trying to get access to the system.",
            "groups": ["syslog", "sshd", "authentication_failures"]},
        "agent": {"id": "005", "name": agent, "ip": "198.51.100.5"},
        "manager": {"name": "wazuh-manager"},
        "id": format!("1795514400.{number}"),
        "full_log": format!("sshd[1]: Failed password for invalid user from {source} port 4711 ssh2"),
        "decoder": {"parent": "sshd", "name": "sshd"},
        "data": {"srcip": source, "srcport": "4711"},
        "location": "journald",
    })
}

/// The real agent, as a process.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) child: Option<Child>,
    directory: TempDir,
    flags: Vec<String>,
}

impl Agent {
    /// Enrols an agent at `manager` with `token`, and does not start it.
    pub(crate) fn enroll(manager: &str, token: &str, name: &str) -> Self {
        Self::try_enroll(manager, token, name, &[]).unwrap_or_else(|why| panic!("the agent was not enrolled: {why}"))
    }

    /// The same, with more flags; what it says if it fails.
    pub(crate) fn try_enroll(manager: &str, token: &str, name: &str, flags: &[&str]) -> Result<Self, String> {
        let directory = TempDir::new().unwrap();
        let mut enrolling = tied(&agent_program())
            .args(["enroll", "--manager", manager, "--token-file", "-", "--name", name, "--state-dir"])
            .arg(directory.path().join("state"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        enrolling.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let done = enrolling.wait_with_output().unwrap();
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        let identity: Value =
            serde_json::from_slice(&std::fs::read(directory.path().join("state/agent.json")).unwrap()).unwrap();
        let id = text(&identity, "agent_id").into();
        Ok(Self { id, name: name.into(), child: None, directory, flags: Vec::new() })
    }

    /// Enrols and starts an agent, and waits until it streams.
    pub(crate) async fn start(manager: &Manager, name: &str) -> Self {
        let api = manager.api();
        let mut agent = Self::enroll(&api.base, &api.make_token().await, name);
        agent.run(&[]);
        api.agent_streams(&agent.id).await;
        agent
    }

    /// Changes a field of its stored identity, while it does not run.
    pub(crate) fn change_identity(&self, field: &str, value: &str) {
        let mut identity = self.identity();
        identity[field] = value.into();
        std::fs::write(self.directory.path().join("state/agent.json"), identity.to_string()).unwrap();
    }

    /// Replaces its stored identity, while it does not run.
    pub(crate) fn set_identity(&self, identity: &Value) {
        std::fs::write(self.directory.path().join("state/agent.json"), identity.to_string()).unwrap();
    }

    /// Returns its stored identity.
    pub(crate) fn identity(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.directory.path().join("state/agent.json")).unwrap()).unwrap()
    }

    pub(crate) fn run(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.run_again();
    }

    /// Kills it with SIGKILL, if it runs.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill9(&mut child);
        }
    }

    /// Runs it again with the same flags.
    pub(crate) fn run_again(&mut self) {
        self.kill9();
        let log = self.directory.path().join("log");
        let child = tied(&agent_program())
            .args(["run", "--state-dir"])
            .arg(self.directory.path().join("state"))
            .args(&self.flags)
            .stdout(append(&log))
            .stderr(append(&log))
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Returns the path of a file in its state directory.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    /// Returns its log, over all restarts.
    pub(crate) fn log(&self) -> String {
        read(&self.directory.path().join("log"))
    }

    /// Waits until its log holds `word`, `times` times.
    pub(crate) async fn has_logged(&self, word: &str, times: usize) {
        eventually(&format!("the agent logs {word:?} {times} times"), PATIENCE, async || {
            (self.log().matches(word).count() >= times).then_some(())
        })
        .await;
    }

    /// Runs another `riposte-agent` command on its state.
    pub(crate) fn order(&self, arguments: &[&str]) -> std::process::Output {
        let state = self.directory.path().join("state");
        tied(&agent_program()).args(arguments).arg("--state-dir").arg(state).output().unwrap()
    }

    /// Returns the output of `riposte-agent status`, whether it runs or not.
    pub(crate) fn status(&self) -> Value {
        let status = self.order(&["status", "--json"]);
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        serde_json::from_slice(&status.stdout).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the log of agent {} ---\n{}", self.name, last_lines(&self.log()));
        }
    }
}

/// Returns a random number below `bound`.
pub(crate) fn random_below(bound: u64) -> u64 {
    getrandom::u64().unwrap() % bound
}
