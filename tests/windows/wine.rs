//! The stage: a manager, and agents in one Wine prefix, each with a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/windows").join(name);
    assert!(path.exists(), "{} is not there: run `make windows`", path.display());
    path
}

/// A command of Wine, without settings from the environment.
pub(crate) fn wine() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL", "--", "/usr/lib/wine/wine64"]).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RIPOSTE_") {
            command.env_remove(name);
        }
    }
    let recorders = "netsh.exe,reg.exe,net.exe,powershell.exe,tasklist.exe,taskkill.exe=n";
    command.env("WINEPREFIX", built("prefix")).env("WINEDEBUG", "-all").env("WINEDLLOVERRIDES", recorders);
    command.env_remove("DISPLAY");
    command
}

/// A path in the prefix.
pub(crate) fn in_prefix(path: &str) -> PathBuf {
    built("prefix").join(path)
}

/// The package of the agent.
pub(crate) fn package() -> PathBuf {
    built("bin/riposte-agent.msi")
}

/// A program that is ended with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn kill(&mut self) {
        let _ended_before = self.0.kill();
        self.0.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A manager on loopback.
pub(crate) struct Manager {
    _process: Running,
    data: TempDir,
    base: String,
    key: String,
    http: reqwest::Client,
}

impl Manager {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGKILL", "--"]).arg(env!("CARGO_BIN_EXE_riposte"));
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(data.path());
        let log = std::fs::File::create(data.path().join("manager.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RIPOSTE_") {
                command.env_remove(name);
            }
        }
        let process = Running(command.spawn().unwrap());
        let (base, http) = (format!("http://127.0.0.1:{port}"), reqwest::Client::builder().no_proxy().build().unwrap());
        eventually("the manager is ready", async || {
            let answer = http.get(format!("{base}/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
        let key = std::fs::read_to_string(data.path().join("admin.key")).unwrap().trim().to_owned();
        Self { _process: process, data, base, key, http }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.key).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.key).json(body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    pub(crate) async fn token(&self) -> String {
        let made = self.post("/v1/enrollment-tokens", &json!({"uses": 1, "labels": {"os": "windows"}})).await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// Orders a response on an agent; returns its id.
    pub(crate) async fn order(&self, agent: &str, action: &str, target: Value, more: Value) -> String {
        let mut order = json!({"action": action, "target": target, "agents": [agent], "reason": "a test"});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/v1/responses", &order).await["id"].as_str().unwrap().to_owned()
    }

    /// The results of a response, once there are `count` of them.
    pub(crate) async fn results(&self, response: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} results of {response}"), async || {
            let whole = self.get(&format!("/v1/responses/{response}")).await;
            let results = whole["results"].as_array().unwrap().clone();
            (results.len() >= count).then_some(results)
        })
        .await
    }

    pub(crate) async fn lift(&self, response: &str) {
        self.post(&format!("/v1/responses/{response}/lift"), &json!({"reason": "a test"})).await;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("manager.log")).unwrap()
    }
}

/// An agent in the prefix: `C:\tests\NAME`, with a copy of the program and its state.
pub(crate) struct Agent {
    pub(crate) name: String,
    folder: PathBuf,
}

impl Agent {
    /// A fresh folder. Its name has a blank and an umlaut, as paths of people have.
    pub(crate) fn new(name: &str) -> Self {
        let folder = built("prefix").join("drive_c/tests").join(format!("{name} für alle"));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        std::fs::create_dir_all(folder.join("home/active-response/bin")).unwrap();
        std::fs::copy(built("bin/riposte-agent.exe"), folder.join("riposte-agent.exe")).unwrap();
        Self { name: name.to_owned(), folder }
    }

    /// The path of `file` in its folder, on this host.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The same as Windows has it.
    pub(crate) fn windows_path(&self, file: &str) -> String {
        format!(r"C:\tests\{} für alle\{}", self.name, file.replace('/', r"\"))
    }

    /// The command line of the agent.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = wine();
        command.arg(self.path("riposte-agent.exe")).args(arguments);
        command.args(["--state-dir", &self.windows_path("state")]);
        command
    }

    /// Runs a command to its end; returns whether it succeeded, and its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }

    pub(crate) async fn enrol(&self, manager: &Manager) {
        let token = manager.token().await;
        let home = self.windows_path("home");
        let name = self.name.clone();
        let (is_enrolled, said) = self.run(&[
            "enroll",
            "--manager",
            manager.base(),
            "--token",
            &token,
            "--name",
            &name,
            "--wazuh-home",
            &home,
        ]);
        assert!(is_enrolled, "{said}");
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn start(&self, more: &[&str]) -> Running {
        let mut command = self.command(&["run", "--wazuh-home", &self.windows_path("home")]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("agent.log")).unwrap();
        Running(command.args(more).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Starts it, and waits until the manager sees it.
    pub(crate) async fn connect(&self, manager: &Manager, more: &[&str]) -> Running {
        let running = self.start(more);
        self.is_seen(manager).await;
        running
    }

    /// Waits until the manager sees it.
    pub(crate) async fn is_seen(&self, manager: &Manager) {
        eventually(&format!("{} is connected", self.name), async || {
            let agents = manager.get("/v1/agents").await;
            let agents = agents["items"].as_array().unwrap().clone();
            let own = agents.into_iter().find(|agent| agent["name"] == self.name.as_str())?;
            ["streaming", "polling"].contains(&own["presence"].as_str().unwrap()).then_some(())
        })
        .await;
    }

    /// Puts a recorder into the folder of custom programs.
    pub(crate) fn install(&self, program: &str) {
        let place = self.path("home/active-response/bin").join(program);
        std::fs::copy(built("bin/recorder.exe"), &place).unwrap();
    }

    /// What a recorder there was started with: its arguments, and its input.
    pub(crate) fn recorded(&self, program: &str) -> Vec<(Vec<String>, String)> {
        records(&self.path("home/active-response/bin").join(format!("{program}.log")))
    }

    /// Each end and line of its own log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }
}

/// What a recorder in the folder of Windows was started with.
pub(crate) fn recorded_in_system(program: &str) -> Vec<Vec<String>> {
    let log = in_prefix("drive_c/windows/system32").join(format!("{program}.log"));
    records(&log).into_iter().map(|(arguments, _)| arguments).collect()
}

/// Removes what a recorder in the folder of Windows remembers, such as the rules of a test that failed.
pub(crate) fn forget_in_system(program: &str) {
    let state = built("prefix").join("drive_c/windows/system32").join(format!("{program}.state"));
    if state.exists() {
        std::fs::remove_file(state).unwrap();
    }
}

fn records(log: &Path) -> Vec<(Vec<String>, String)> {
    let text = |hex: &str| {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    };
    let lines = std::fs::read_to_string(log).unwrap_or_default();
    let record = |line: &str| {
        let (arguments, input) = line.split_once('|').unwrap();
        (arguments.split(' ').filter_map(|word| word.strip_prefix('=')).map(text).collect(), text(input))
    };
    lines.lines().map(record).collect()
}

/// Starts a recorder of the prefix by itself.
pub(crate) fn recorder(arguments: &[&str]) -> Running {
    Running(wine().arg(built("bin/recorder.exe")).args(arguments).stdout(Stdio::null()).spawn().unwrap())
}

/// A manager, and an agent that is enrolled there and does not run yet.
pub(crate) async fn stage(name: &str) -> (Manager, Agent) {
    let manager = Manager::start().await;
    let agent = Agent::new(name);
    agent.enrol(&manager).await;
    (manager, agent)
}
