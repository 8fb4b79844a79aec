//! The programs that the tests start: a manager with its data directory, agents, and their ends. The
//! programs are real, the directories temporary, and everything listens on loopback.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    in_time(look).await.unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// The same, but returns `None` when the patience ends.
pub(crate) async fn in_time<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look().await;
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Fails if a program is not installed, and says how to install it.
pub(crate) fn require(programs: &[(&str, &str)]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let places: Vec<PathBuf> = std::env::split_paths(&path).chain(usual).collect();
    for (program, package) in programs {
        let is_there = places.iter().any(|place| place.join(program).is_file());
        assert!(is_there, "this test needs {program}, which is not installed: apt-get install {package}");
    }
}

/// Returns a command that dies with this thread, without settings from the environment.
pub(crate) fn tied(program: &Path) -> Command {
    require(&[("setpriv", "util-linux")]);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL", "--"]).arg(program).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RIPOSTE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A port of loopback that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn agent_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_riposte")).with_file_name("riposte-agent");
    assert!(program.is_file(), "riposte-agent is not built beside riposte: run `cargo build --workspace` first");
    program
}

fn log_in(dir: &Path, name: &str) -> File {
    OpenOptions::new().create(true).append(true).open(dir.join(name)).unwrap()
}

/// A manager, and the agents that the test has started for it.
pub(crate) struct Manager {
    process: Child,
    arguments: Vec<String>,
    pub(crate) base: String,
    pub(crate) api: Api,
    pub(crate) dir: TempDir,
    agents: Vec<Child>,
}

impl Manager {
    /// Starts a manager on SQLite and waits until it is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("riposte-browser-").tempdir().unwrap();
        Self::start_in(dir, more).await
    }

    /// Starts another manager on the database of `first`, with the same signing key.
    pub(crate) async fn beside(first: &Self, more: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("riposte-browser-").tempdir().unwrap();
        let data = dir.path().join("manager");
        std::fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
        std::fs::copy(first.dir.path().join("manager/signing.key"), data.join("signing.key")).unwrap();
        let mut second = Self::start_in(dir, more).await;
        second.api = Api::new(&second.base, first.api.key());
        second
    }

    async fn start_in(dir: TempDir, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let data = dir.path().join("manager").display().to_string();
        let mut arguments: Vec<String> = ["serve", "--data-dir", &data, "--listen", &address].map(str::to_owned).into();
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let process = spawn(&arguments, dir.path());
        let base = format!("http://{address}");
        let mut started = Self { process, arguments, api: Api::new(&base, ""), base, dir, agents: Vec::new() };
        started.is_ready().await;
        let key = std::fs::read_to_string(Path::new(&data).join("admin.key")).unwrap_or_default();
        started.api = Api::new(&started.base, key.trim());
        started
    }

    /// Waits until it is ready.
    async fn is_ready(&mut self) {
        let log = self.dir.path().join("manager.log");
        let (process, api) = (&mut self.process, &self.api);
        eventually("the manager is ready", async || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "the manager ended: {}", std::fs::read_to_string(&log).unwrap());
            api.is_ready().await.then_some(())
        })
        .await;
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(&self.arguments, self.dir.path());
        self.is_ready().await;
    }

    /// Creates `NAME:ROLE` people; each has the password of `password`.
    pub(crate) async fn people(&self, people: &[&str]) {
        for person in people {
            let (name, role) = person.split_once(':').unwrap();
            self.api.post("/v1/users", &json!({"name": name, "role": role, "password": password(name)})).await;
        }
    }

    /// Enrols an agent and lets it run; returns its id.
    pub(crate) async fn agent(&mut self, name: &str, labels: Value) -> String {
        let token = self.api.post("/v1/enrollment-tokens", &json!({"labels": labels})).await;
        self.enrol(name, token["token"].as_str().unwrap());
        self.run_agent(name).await
    }

    /// Enrols an agent by a token.
    pub(crate) fn enrol(&self, name: &str, token: &str) {
        let mut enrol = tied(&agent_program());
        enrol.env("RIPOSTE_TOKEN", token).args(["enroll", "--manager", &self.base, "--name", name, "--state-dir"]);
        let enrolled = enrol.arg(self.dir.path().join(name)).output().unwrap();
        assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    }

    /// Lets an agent run that is enrolled; returns its id when the manager sees it.
    pub(crate) async fn run_agent(&mut self, name: &str) -> String {
        self.run_agent_with(name, &[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn run_agent_with(&mut self, name: &str, more: &[&str]) -> String {
        let mut run = tied(&agent_program());
        let log = log_in(self.dir.path(), "agents.log");
        run.args(["run", "--state-dir"]).arg(self.dir.path().join(name)).args(more);
        self.agents.push(run.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        eventually("the agent is present", async || {
            let agents = self.api.get("/v1/agents?limit=500").await;
            let mut agents = agents["items"].as_array().unwrap().iter();
            let agent = agents.find(|agent| agent["name"] == name && agent["presence"] != "away")?;
            Some(agent["id"].as_str().unwrap().to_owned())
        })
        .await
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        for process in self.agents.iter_mut().chain([&mut self.process]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn spawn(arguments: &[String], dir: &Path) -> Child {
    let log = log_in(dir, "manager.log");
    let mut serve = tied(env!("CARGO_BIN_EXE_riposte").as_ref());
    serve.args(arguments).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// The password of a person of the tests.
pub(crate) fn password(name: &str) -> String {
    format!("correct-horse-{name}")
}
