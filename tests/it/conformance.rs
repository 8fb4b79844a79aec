//! The server does what its contract says, and other programs read the contract as intended.
//! schemathesis makes requests from `openapi.yaml`, valid and invalid ones, as every kind of
//! caller, and checks the answers: no server error; no status, media type or field outside the
//! contract; no refusal of input that the contract allows.
//!
//! The requests are always the same, so that only a change makes a test fail. With
//! `CONFORMANCE_SECONDS` other requests are made, for that long. `scripts/test-deps.sh` installs
//! the Python packages from `PyPI` into `target/python`.
//!
//! Published clients of Wazuh's API are run too (`tests/conformance/wazuh_clients.py`), producers
//! of OpenC2, and Prometheus and a collector of OTLP (`telemetry.rs`).
//!
//! Debian's bouncer of `CrowdSec`, nginx and `HAProxy` read feeds in network namespaces (`conformance/consumers.rs`), in
//! `make conformance` only.

mod telemetry;

mod consumers;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use crate::processes::{FakeAgent, Manager, PATIENCE, eventually, tied};
use crate::support::Database;
use crate::support::receiver::{Mood, Receiver};

/// Returns the path of a program in the tests' Python environment.
pub(super) fn python(program: &str) -> PathBuf {
    python_of("python", program)
}

/// The same in another environment, whose packages are needed rarely or contradict those of the other tests.
///
/// # Panics
/// If it is not installed, saying how to install it.
pub(super) fn python_of(environment: &str, program: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_riposte")).ancestors().nth(2).unwrap();
    let program = target.join(environment).join("bin").join(program);
    let install = if environment == "clients" { "scripts/test-deps.sh clients" } else { "scripts/test-deps.sh" };
    assert!(program.is_file(), "{} is missing: run {install}", program.display());
    program
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn say(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn openapi_yaml_is_read_alike_by_yaml_1_1_and_by_json() {
    const READ: &str = "import json, sys, yaml\n\
                        json.dump(yaml.safe_load(open(sys.argv[1], encoding='utf-8')), sys.stdout)";
    let output =
        Command::new(python("python")).args(["-c", READ, "openapi.yaml"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", say(&output));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let contract = riposte::api::contract();
    for (key, value) in contract.as_object().unwrap() {
        assert_eq!(&read[key], value, "{key}");
    }
    assert_eq!(read, contract);
}

#[test]
fn openapi_yaml_is_a_valid_description() {
    let output = Command::new(python("openapi-spec-validator"))
        .args(["--schema", "3.1", "openapi.yaml"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", say(&output));
}

/// Hands out a fresh token of the agent to each connection, as long as the test runs: each is good for
/// one request. Returns the address.
fn tokens_of(agent: FakeAgent) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            connection.unwrap().write_all(agent.token().as_bytes()).unwrap();
        }
    });
    address
}

/// A caller, its share of the time in percent, the phases that always run, and the operations that
/// it calls: all, if the list is empty.
const CALLERS: [(&str, u64, &str, &[&str]); 5] = [
    // Each bound of each field takes four minutes of a processor: `make conformance` tries them.
    ("admin", 50, "fuzzing", &[]),
    ("viewer", 15, "fuzzing", &[]),
    ("ingest", 15, "fuzzing", &[]),
    ("anonymous", 10, "fuzzing", &[]),
    // A stream is no request with an answer: `delivery.rs` and `real_agent.rs` test it.
    ("agent", 10, "coverage,fuzzing", &["--include-path", "/v1/agent/poll"]),
];

/// Callers that mostly get 403. `make conformance` tries them; otherwise `matrix.rs` and `auth.rs` do.
const BY_CONFORMANCE_ONLY: [&str; 2] = ["viewer", "ingest"];

/// A manager with one agent, which Wazuh knows as 005.
async fn with_agent(database: &Database) -> (Manager, FakeAgent) {
    let url = database.url();
    let flags = if url.is_empty() { Vec::new() } else { vec!["--database-url", &*url] };
    let manager = Manager::start_with(&flags).await;
    let agent = FakeAgent::enroll(&manager, "web-01").await;
    let labels = json!({"labels": {"wazuh_id": "005"}});
    let path = format!("/v1/agents/{}", agent.id);
    let labelled = manager.api().request(Method::PATCH, &path).json(&labels).send().await;
    assert!(labelled.unwrap().status().is_success());
    (manager, agent)
}

#[test]
fn every_event_is_one_of_ocsf_as_its_published_schema_says() {
    use riposte::domain::audit::AuditEvent;
    use riposte::domain::event::EventType;
    let targets = [
        ("ip", "203.0.113.7"),
        ("ip", "2001:db8::/32"),
        ("user", "CORP\\älice"),
        ("file", "/tmp/a b"),
        ("process", "42"),
    ];
    let targets = targets.into_iter().chain([("process", "web"), ("host", ""), ("none", "")]);
    let mut events = Vec::new();
    for (target_kind, target_value) in targets {
        for kind in EventType::ALL {
            let noun = AuditEvent::ALL
                .iter()
                .find(|entry| EventType::of(**entry).contains(kind))
                .map_or("effect", |entry| entry.noun());
            let data = json!({
                "actor": "user:alice", "detail": "why", "response_id": "r", "agent_id": "a", "agent": "web-01", "policy": "ssh",
                "action": "firewall-drop", "target_kind": target_kind, "target_value": target_value, "case": "17",
                "mitre": ["T1110", "T1110.001"], "d3fend": ["D3-NTF"],
            });
            let cloud = json!({
                "specversion": "1.0", "id": "7", "source": "/riposte", "type": EventType::cloud_type(kind.as_str()),
                "subject": format!("{noun}/x"), "time": "2026-11-24T10:00:00.000Z", "data": data,
            });
            let bare = json!({"type": cloud["type"], "subject": cloud["subject"], "time": cloud["time"], "data": {"actor": "riposte"}});
            for event in [&cloud, &bare] {
                events.push(riposte::domain::ocsf::event(event).to_string());
            }
        }
    }
    events.push(
        riposte::domain::ocsf::event(&json!({"type": "riposte.withheld", "data": {"withheld": "x"}})).to_string(),
    );
    let given = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(given.path(), events.join("\n")).unwrap();
    let mut library = tied(&python("python"));
    library.arg(root().join("tests/conformance/ocsf_events.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = library.stdin(std::fs::File::open(given.path()).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", say(&output));
    let mut classes: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(classes.len(), events.len());
    classes.sort_unstable();
    classes.dedup();
    let expected = [
        "application_lifecycle",
        "authentication",
        "base_event",
        "detection_finding",
        "entity_management",
        "file_remediation_activity",
        "network_remediation_activity",
        "process_remediation_activity",
        "remediation_activity",
    ];
    assert_eq!(classes, expected);
}

on_both_databases! {
    async fn published_clients_of_wazuhs_api_log_in_and_run_an_active_response(database: Database) {
        let (manager, agent) = with_agent(&database).await;
        let api = manager.api();
        let made = api.post("/v1/api-keys", &json!({"name": "soar", "role": "analyst"})).await;
        let password = "correct horse battery";
        api.post("/v1/users", &json!({"name": "alice", "role": "analyst", "password": password})).await;
        let mut clients = tied(&python("python"));
        clients.arg(root().join("tests/conformance/wazuh_clients.py")).env("PYTHONDONTWRITEBYTECODE", "1");
        clients.env("NO_PROXY", "*").env("WAZUH_URL", format!("{}/wazuh", api.base));
        clients.env("RIPOSTE_KEY", made["key"].as_str().unwrap());
        clients.env("WAZUH_USERNAME", "alice").env("WAZUH_PASSWORD", password);
        let output = clients.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}\nthe manager's log:\n{}", say(&output), manager.log());
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let read = &said["wazuh-api-client"];
        assert_eq!(read["agents"]["data"]["affected_items"][0]["id"], "005", "{said}");
        assert_eq!(read["summary"]["data"]["connection"]["total"], 1, "{said}");
        for ran in [&read["ran"], &said["pyzuh"]["ran"]] {
            assert_eq!((&ran["error"], &ran["data"]["affected_items"]), (&json!(0), &json!(["005"])), "{said}");
        }
        assert!(said["pyzuh"]["refused"].as_str().unwrap().contains("not specified"), "{said}");
        let owed = agent.poll(json!({"cursor": 0, "max": 10, "wait_seconds": 0})).await;
        let targets: Vec<&str> = owed.iter().map(|command| command.target.value()).collect();
        // Both clients asked for one effect, which one command brings about.
        assert_eq!(targets, ["203.0.113.7"]);
    }

    async fn the_library_of_standard_webhooks_takes_our_messages_and_no_others(database: Database) {
        let url = database.url();
        let mut flags = vec!["--egress-allow", "127.0.0.0/8"];
        if !url.is_empty() {
            flags.extend(["--database-url", &url]);
        }
        let manager = Manager::start_with(&flags).await;
        let (api, receiver) = (manager.api(), Receiver::start(Mood::Answers(200)).await);
        let asked = json!({"name": "a", "url": receiver.url("/"), "settings": {"types": ["protected.created"]}});
        let secret = api.post("/v1/webhooks", &asked).await["secret"].clone();
        let entry = json!({"kind": "user", "value": "ümläut", "reason": "a test"});
        api.post("/v1/protected", &entry).await;
        let message = eventually("a message", PATIENCE, async || receiver.taken().first().cloned()).await;
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: std::collections::BTreeMap<_, _> = names.map(|name| (name, message.header(name))).into();
        let given = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(given.path(), json!({"secret": secret, "headers": headers, "body": message.body}).to_string()).unwrap();
        let mut library = tied(&python("python"));
        library.arg(root().join("tests/conformance/webhook_receiver.py")).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = library.stdin(std::fs::File::open(given.path()).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", say(&output));
        let event: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(event["type"], "riposte.protected.created", "{event}");
    }

    async fn a_published_client_of_taxii_reads_what_is_blocked_and_what_was_lifted(database: Database) {
        let (manager, agent) = with_agent(&database).await;
        let api = manager.api();
        api.post("/v1/feeds", &json!({"name": "edge", "form": "taxii"})).await;
        let scope = json!({"rights": ["pull_feeds"], "feeds": ["edge"]});
        let made = api.post("/v1/api-keys", &json!({"name": "tip", "role": "viewer", "scope": scope})).await;
        let mut blocked = Vec::new();
        for target in ["203.0.113.7", "2001:db8::7", "198.51.100.0/24"] {
            let asked = json!({"action": "firewall-drop", "target": target, "agents": [agent.id], "for": "1h", "reason": "seen"});
            blocked.push(api.post("/v1/responses", &asked).await["id"].as_str().unwrap().to_owned());
        }
        let url = format!("http://{}/taxii2/", manager.address);
        let read = |since: &str| {
            let mut client = tied(&python("python"));
            client.arg(root().join("tests/conformance/taxii_client.py")).env("PYTHONDONTWRITEBYTECODE", "1");
            client.args([&url, made["key"].as_str().unwrap(), since]).env("NO_PROXY", "*");
            let output = client.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{}\nthe manager's log:\n{}", say(&output), manager.log());
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let all = read("");
        let patterns = json!([
            "[ipv4-addr:value = '203.0.113.7']",
            "[ipv4-addr:value ISSUBSET '198.51.100.0/24']",
            "[ipv6-addr:value = '2001:db8::7']",
        ]);
        assert_eq!((&all["valid"], &all["ended"], &all["manifest"]), (&patterns, &json!([]), &json!(3)), "{all}");
        api.post(&format!("/v1/responses/{}/lift", blocked[0]), &json!({"reason": "over"})).await;
        let changed = read(all["last"].as_str().unwrap());
        assert_eq!((&changed["valid"], &changed["ended"]), (&json!([]), &json!(["[ipv4-addr:value = '203.0.113.7']"])), "{changed}");
        let shown = api.get("/v1/feeds/edge").await;
        assert_eq!(shown["consumers"][0]["owed_removed"], 0, "{shown}");
    }

    async fn published_producers_of_openc2_block_an_address_and_take_it_back(database: Database) {
        let (manager, _agent) = with_agent(&database).await;
        let api = manager.api();
        let netrc = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(netrc.path(), format!("machine 127.0.0.1 login any password {}\n", api.key)).unwrap();
        let mut producers = tied(&python_of("openc2", "python"));
        producers.arg(root().join("tests/conformance/openc2_producers.py")).env("PYTHONDONTWRITEBYTECODE", "1");
        producers.env("NO_PROXY", "*").env("NETRC", netrc.path()).env("RIPOSTE_ADDRESS", manager.address.to_string());
        let output = producers.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}\nthe manager's log:\n{}", say(&output), manager.log());
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["otupy"]["query"]["profiles"], json!(["slpf"]), "{said}");
        for (producer, command) in [("otupy", "deny"), ("otupy", "delete"), ("openc2", "deny"), ("openc2", "delete")] {
            assert_eq!(said[producer][command]["status"], 200, "{producer} {command}: {said}");
        }
        let made = api.get("/v1/responses").await["items"].as_array().unwrap().clone();
        let of = |response: &Value| (response["target_value"].clone(), response["state"].clone());
        let ended = |address: &str| (json!(address), json!("ended"));
        assert_eq!(made.iter().map(of).collect::<Vec<_>>(), [ended("203.0.113.8"), ended("203.0.113.7")]);
    }

    async fn the_server_does_what_its_contract_says(database: Database) {
        let said = std::env::var("CONFORMANCE_SECONDS").ok();
        let seconds: Option<u64> = said.map(|seconds| seconds.parse().unwrap());
        let url = database.url();
        // Each caller has an address of its own: together they fail more than 600 times in a minute.
        let settings = tempfile::NamedTempFile::new().unwrap();
        let proxied = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\npublic_url = \"http://127.0.0.1:1\"\n";
        std::fs::write(settings.path(), proxied).unwrap();
        let mut flags = vec!["--config", settings.path().to_str().unwrap()];
        if !url.is_empty() {
            flags.extend(["--database-url", &url]);
        }
        let manager = Manager::start_with(&flags).await;
        let api = manager.api();
        let agent = FakeAgent::enroll(&manager, "web-01").await;
        let tokens = tokens_of(agent);
        api.make_policy("firewall-drop", "10m").await;
        api.post("/v1/responses", &json!({"action": "log-only", "agents": ["web-01"], "reason": "why"})).await;
        let mut keys = vec![("anonymous", None), ("agent", None), ("admin", Some(api.key.clone()))];
        for role in ["viewer", "ingest"] {
            let made = api.post("/v1/api-keys", &json!({"name": role, "role": role})).await;
            keys.push((role, Some(made["key"].as_str().unwrap().to_owned())));
        }
        let contract = riposte::api::contract();
        let items = contract["paths"].as_object().unwrap().values();
        let operations: usize = items.map(|item| item.as_object().unwrap().len()).sum();
        // schemathesis writes its notes into the current directory.
        let notes = tempfile::tempdir().unwrap();
        for (nth, (caller, share, phases, only)) in CALLERS.into_iter().enumerate() {
            if seconds.is_none() && BY_CONFORMANCE_ONLY.contains(&caller) {
                continue;
            }
            let (_, key) = keys.iter().find(|(name, _)| *name == caller).unwrap();
            let tokens = if caller == "agent" { tokens.as_str() } else { "" };
            let mut command = tied(&python("st"));
            command.arg("--config-file").arg(root().join("tests/conformance/schemathesis.toml")).arg("run");
            command.arg(format!("{}/openapi.json", api.base));
            command.args(["--no-color", "--continue-on-failure", "--suppress-health-check", "all"]);
            match seconds {
                Some(seconds) => command.args(["--max-time", &(seconds * share / 100).max(5).to_string()]),
                None => {
                    let phases = if url.is_empty() { phases } else { "fuzzing" };
                    command.args(["--phases", phases, "--max-examples", "2", "--seed", "14"])
                }
            };
            command.args(only).args(["--header", &format!("X-Forwarded-For: 203.0.113.{nth}")]);
            if let Some(secret) = key {
                command.args(["--header", &format!("Authorization: Bearer {secret}")]);
            }
            command.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", root().join("tests/conformance"));
            command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "*");
            command.env("CONFORMANCE_TOKENS", tokens);
            command.env("CONFORMANCE_URL", &api.base).env("CONFORMANCE_ADMIN_KEY", &api.key);
            let output = command.current_dir(notes.path()).stdin(Stdio::null()).output().unwrap();
            let text = say(&output);
            assert!(output.status.success(), "as {caller}:\n{text}\nthe manager's log:\n{}", manager.log());
            let number = |word: &str| -> usize {
                let line = text.lines().find_map(|line| line.trim().strip_prefix(word)).unwrap_or_default();
                line.split('/').next().unwrap().trim().parse().unwrap_or(0)
            };
            let (selected, tested) = (number("Selected:"), number("Tested:"));
            // schemathesis skips the address that it read the contract from.
            let all = if only.is_empty() { operations - 1 } else { 1 };
            assert!((selected, tested) == (all, all), "as {caller} not every operation was called:\n{text}");
        }
    }
}
