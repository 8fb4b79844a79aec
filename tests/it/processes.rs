//! What the tests that run the real programs have in common: a manager and agents as child processes that can be killed
//! at any instant, a client for the manager's API, and a fake agent that says and hears what a test wants.
//!
//! Every child dies with the test that started it, however that ends: it is started through `setpriv --pdeathsig`, whose
//! signal comes when the starting thread is gone. So children are started on the test's own thread.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::{SigningKey, VerifyingKey};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use riposte::clock::Clock;
use riposte_protocol::command::Command as Order;
use riposte_protocol::message::{CommandResult, EnrollResponse, FromAgent, Outcome, ToAgent};
use riposte_protocol::time::Timestamp;
use riposte_protocol::{SUBPROTOCOL, identity, jws};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

/// How long something that takes moments may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The time.
pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// Waits until `look` gives something, and fails with `what` if it does not within `patience`.
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

/// Whether a program that a test needs is installed.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
}

/// Fails if a program is not installed, and says how to get it.
pub(crate) fn require(programs: &[(&str, &str)]) {
    let missing: Vec<String> = programs
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(program, package)| format!("{program} (Debian package {package})"))
        .collect();
    assert!(missing.is_empty(), "this test needs programs that are not installed: {}", missing.join(", "));
}

/// A command that dies with this thread.
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

fn agent_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_riposte")).with_file_name("riposte-agent");
    assert!(program.is_file(), "riposte-agent is not built beside riposte: run `cargo build --workspace` first");
    program
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

/// Waits for a child's end, at most `patience`.
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

/// `kill -9`, and no zombie.
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
    http: reqwest::Client,
}

impl Manager {
    /// Starts one on an empty ledger and a free port of the loopback interface.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut child = Self::spawn(&directory, "127.0.0.1:0".parse().unwrap(), &flags);
        let log = directory.path().join("log");
        let deadline = Instant::now() + PATIENCE;
        let address = loop {
            let text = read(&log);
            let found = text.lines().find_map(|line| line.split_once("Riposte listens on ")).map(|(_, rest)| rest);
            if let Some(address) = found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
                break address;
            }
            let gone = child.try_wait().unwrap();
            assert!(gone.is_none() && Instant::now() < deadline, "the manager did not start ({gone:?}):\n{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        let mut manager = Self { child, address, directory, flags, http };
        manager.is_ready().await;
        manager
    }

    fn spawn(directory: &TempDir, address: SocketAddr, flags: &[String]) -> Child {
        let log = directory.path().join("log");
        tied(Path::new(env!("CARGO_BIN_EXE_riposte")))
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
            let asked = self.http.get(format!("http://{}/readyz", self.address)).send().await;
            if asked.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            // Somebody else's outgoing connection may sit on the port for a moment.
            if self.child.try_wait().unwrap().is_some() {
                self.child = Self::spawn(&self.directory, self.address, &self.flags);
            }
            assert!(Instant::now() < deadline, "the manager is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it with signal 9.
    pub(crate) fn kill9(&mut self) {
        kill9(&mut self.child);
    }

    /// Starts it again, on the same port and the same ledger.
    pub(crate) async fn start_again(&mut self) {
        self.kill9();
        self.child = Self::spawn(&self.directory, self.address, &self.flags);
        self.is_ready().await;
    }

    /// Where its ledger and its keys are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What it has written to its log, in all its lives.
    pub(crate) fn log(&self) -> String {
        read(&self.directory.path().join("log"))
    }

    /// The processor time that it has used so far, by proc(5).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: u64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // USER_HZ is 100 wherever Linux runs.
        Duration::from_millis(ticks * 10)
    }

    /// Its API, as its first administrator.
    pub(crate) fn api(&self) -> Api {
        let key = read(&self.directory.path().join("data/admin.key")).trim().to_owned();
        assert!(key.starts_with("rip_"), "no admin key was written:\n{}", self.log());
        Api { http: self.http.clone(), base: format!("http://{}", self.address), key }
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

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A client of the manager's API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) key: String,
}

impl Api {
    /// A request, without anything.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    /// GET, which must work.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "GET {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// POST, which must work.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.request(Method::POST, path).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "POST {path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The items of a list, newest first, page by page until one of them is in `known` or the list ends.
    pub(crate) async fn newer_than(&self, path: &str, known: impl Fn(&str) -> bool) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}?limit=500{cursor}")).await;
            let found = page["items"].as_array().unwrap();
            items.extend(found.iter().cloned());
            let is_known = found.last().is_some_and(|item| known(text(item, "id")));
            match page["next_cursor"].as_str() {
                Some(next) if !is_known => cursor = format!("&cursor={next}"),
                _ => return items,
            }
        }
    }

    /// A policy that answers rule 5763 with `action` on the agent that the alert comes from.
    pub(crate) async fn make_policy(&self, action: &str, duration: &str) {
        let policy = json!({"name": "answer", "mode": "enforce", "match": [{"rule_ids": ["5763"]}],
            "respond": {"action": action, "target": "source.ip", "on": "origin", "for": duration}});
        self.post("/v1/policies", &policy).await;
    }

    /// An enrolment token.
    pub(crate) async fn make_token(&self) -> String {
        let token = self.post("/v1/enrollment-tokens", &json!({})).await;
        text(&token, "token").to_owned()
    }

    /// Posts an alert, and gives the one response and the one command it must lead to.
    pub(crate) async fn answer_to(&self, alert: &Value) -> (String, Value) {
        let intake = self.post("/v1/alerts", alert).await;
        assert_eq!((&intake["accepted"], &intake["rejected"]), (&json!(1), &json!([])), "{intake}");
        let response = self.response(intake["responses"][0].as_str().unwrap()).await;
        assert_eq!(response["state"], "active", "{response}");
        (text(&response, "id").to_owned(), response["commands"][0].clone())
    }

    pub(crate) async fn response(&self, id: &str) -> Value {
        self.get(&format!("/v1/responses/{id}")).await
    }

    pub(crate) async fn command(&self, id: &str) -> Value {
        self.get(&format!("/v1/commands/{id}")).await
    }

    /// Waits until a command is in `state`.
    pub(crate) async fn command_is(&self, id: &str, state: &str) -> Value {
        eventually(&format!("command {id} is {state}"), PATIENCE, async || {
            let command = self.command(id).await;
            (command["state"] == state).then_some(command)
        })
        .await
    }

    /// Waits until the manager knows of a stream of the agent.
    pub(crate) async fn agent_streams(&self, id: &str) {
        eventually("the agent streams", PATIENCE, async || {
            (self.get(&format!("/v1/agents/{id}")).await["streaming"] == true).then_some(())
        })
        .await;
    }

    /// The audit log must be as it was written.
    pub(crate) async fn audit_is_intact(&self) {
        let proof = self.get("/v1/audit/verify").await;
        assert_eq!(proof["intact"], true, "{proof}");
    }
}

/// A field that must be a text.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// A Wazuh 4.x alert of rule 5763: somebody at `source` tries passwords on the host that `agent` watches.
pub(crate) fn alert(number: u64, source: &str, agent: &str) -> Value {
    json!({
        "timestamp": "2026-11-24T10:00:00.000+0000",
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
    /// Enrols one at `manager` with `token`, and does not start it.
    pub(crate) fn enroll(manager: &str, token: &str, name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mut enrolling = tied(&agent_program())
            .args(["enroll", "--manager", manager, "--token-file", "-", "--name", name, "--state-dir"])
            .arg(directory.path().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        enrolling.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let done = enrolling.wait_with_output().unwrap();
        assert!(done.status.success(), "the agent was not enrolled: {}", String::from_utf8_lossy(&done.stderr));
        let identity: Value =
            serde_json::from_slice(&std::fs::read(directory.path().join("state/agent.json")).unwrap()).unwrap();
        Self { id: text(&identity, "agent_id").into(), name: name.into(), child: None, directory, flags: Vec::new() }
    }

    /// Enrols and starts one, and waits until it streams.
    pub(crate) async fn start(manager: &Manager, name: &str) -> Self {
        let api = manager.api();
        let mut agent = Self::enroll(&api.base, &api.make_token().await, name);
        agent.run(&[]);
        api.agent_streams(&agent.id).await;
        agent
    }

    /// Changes what the manager has told it, while it does not run.
    pub(crate) fn change_identity(&self, field: &str, value: &str) {
        let path = self.directory.path().join("state/agent.json");
        let mut identity: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        identity[field] = value.into();
        std::fs::write(path, identity.to_string()).unwrap();
    }

    /// Runs it.
    pub(crate) fn run(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.run_again();
    }

    /// Kills it with signal 9, if it runs.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill9(&mut child);
        }
    }

    /// Runs it again as before.
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

    /// What it has written to its log, in all its lives.
    pub(crate) fn log(&self) -> String {
        read(&self.directory.path().join("log"))
    }

    /// Waits until its log holds `word`, as often as `times`.
    pub(crate) async fn has_logged(&self, word: &str, times: usize) {
        eventually(&format!("the agent logs {word:?} {times} times"), PATIENCE, async || {
            (self.log().matches(word).count() >= times).then_some(())
        })
        .await;
    }

    /// What `riposte-agent status` says about it, running or not.
    pub(crate) fn status(&self) -> Value {
        let status = tied(&agent_program())
            .args(["status", "--json", "--state-dir"])
            .arg(self.directory.path().join("state"))
            .output()
            .unwrap();
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

/// An agent that has an identity and no will of its own.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    /// The manager's keys.
    pub(crate) pinned: Vec<(String, VerifyingKey)>,
    key: SigningKey,
    http: reqwest::Client,
    poll_url: String,
    stream_url: String,
}

impl FakeAgent {
    /// Enrols one.
    pub(crate) async fn enroll(manager: &Manager, name: &str) -> Self {
        let api = manager.api();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let key = SigningKey::from_bytes(&seed);
        let asked = json!({"token": api.make_token().await, "name": name,
            "public_key": jws::public_key_text(&key.verifying_key()), "version": "0"});
        let enrolled: EnrollResponse =
            serde_json::from_value(api.post("/v1/agents/enroll", &asked).await).expect("an enrolment");
        let pinned = enrolled.manager_keys.iter();
        let pinned = pinned.map(|key| (key.kid.clone(), jws::parse_public_key(&key.public_key).unwrap())).collect();
        let EnrollResponse { agent_id: id, poll_url, stream_url, .. } = enrolled;
        Self { id, name: name.into(), pinned, key, http: api.http, poll_url, stream_url }
    }

    /// A token of its own.
    pub(crate) fn token(&self) -> String {
        identity::issue(&self.key, self.id, Uuid::now_v7(), now(), identity::MAX_LIFETIME).unwrap()
    }

    /// Reads commands as an agent has to: signed by a pinned key and addressed to it.
    pub(crate) fn open(&self, tokens: &[String]) -> Vec<Order> {
        tokens.iter().map(|token| Order::open(token, &self.pinned, self.id).expect("a command to obey")).collect()
    }

    /// One exchange by poll, whatever comes of it.
    pub(crate) async fn exchange(&self, body: &Value) -> (StatusCode, Value) {
        let answer = self.http.post(&self.poll_url).bearer_auth(self.token()).json(body).send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or_default())
    }

    /// One exchange by poll; gives the commands it brings.
    pub(crate) async fn poll(&self, body: Value) -> Vec<Order> {
        let (status, answer) = self.exchange(&body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        self.open(&serde_json::from_value::<Vec<String>>(answer["commands"].clone()).unwrap())
    }

    /// Tries to open a stream.
    pub(crate) async fn try_connect(&self) -> Result<Stream<'_>, tungstenite::Error> {
        let mut request = self.stream_url.as_str().into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {}", self.token()).parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Stream { agent: self, socket })
    }

    /// Opens a stream and says hello.
    pub(crate) async fn connect(&self, cursor: u64) -> Stream<'_> {
        let mut stream = self.try_connect().await.expect("a stream");
        stream.say(&FromAgent::Hello { cursor, capabilities: vec![], effects: None, run: None }).await;
        match stream.hear().await {
            Heard::Message(ToAgent::Settings { .. }) => stream,
            other => panic!("expected settings, not {other:?}"),
        }
    }
}

/// A fake agent's stream.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    pub(crate) agent: &'a FakeAgent,
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What came over a stream.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(ToAgent),
    /// It was closed, with a reason if one was given.
    Closed(Option<CloseFrame>),
    /// It broke.
    Broken(String),
}

impl Stream<'_> {
    pub(crate) async fn say(&mut self, message: &FromAgent) {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    /// The next message, or the end, within the usual patience.
    pub(crate) async fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).await.expect("something comes over the stream")
    }

    /// The next message, or the end, if one comes in time.
    pub(crate) async fn hear_within(&mut self, patience: Duration) -> Option<Heard> {
        let heard = async {
            loop {
                return match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => Heard::Message(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(frame))) => Heard::Closed(frame),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => Heard::Broken(error.to_string()),
                    None => Heard::Closed(None),
                };
            }
        };
        tokio::time::timeout(patience, heard).await.ok()
    }

    /// The next commands, within `patience`.
    pub(crate) async fn commands_within(&mut self, patience: Duration) -> Vec<Order> {
        match self.hear_within(patience).await {
            Some(Heard::Message(ToAgent::Commands { commands })) => self.agent.open(&commands),
            other => panic!("expected commands within {patience:?}, not {other:?}"),
        }
    }

    /// How the manager closes the stream; what it says before is passed over.
    pub(crate) async fn end(&mut self) -> Option<CloseFrame> {
        loop {
            match self.hear().await {
                Heard::Message(_) => {}
                Heard::Closed(frame) => return frame,
                Heard::Broken(why) => {
                    eprintln!("the stream broke: {why}");
                    return None;
                }
            }
        }
    }
}

/// The result of a command that worked.
pub(crate) fn succeeded(command_id: Uuid) -> CommandResult {
    CommandResult {
        command_id,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        output: String::new(),
        verified: Some(true),
        message: "in force".into(),
        started_at: now(),
        finished_at: now(),
    }
}

/// A number below `bound`, at random.
pub(crate) fn random_below(bound: u64) -> u64 {
    getrandom::u64().unwrap() % bound
}
