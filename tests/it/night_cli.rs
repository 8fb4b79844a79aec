//! A night shift at the command line: nine jobs, typed at a terminal, against a real manager and real agents.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use riposte_protocol::message::Outcome;
use serde_json::{Value, json};

use crate::login_cli::Account;
use crate::processes::{Agent, FakeAgent, Manager, PATIENCE, alert, eventually, require, succeeded, text};

/// Most keystrokes of the nine commands and their confirmations.
const MOST: usize = 150;

/// What a person has typed.
struct Night {
    account: Account,
    keystrokes: usize,
}

impl Night {
    /// Types a command at a terminal and confirms its plan with `y`, if it has one. Returns what the terminal shows.
    fn types(&mut self, line: &str, confirms: bool) -> String {
        require(&[("script", "bsdutils")]);
        self.keystrokes += line.chars().count() + usize::from(confirms);
        let typed = line.replacen("riposte", env!("CARGO_BIN_EXE_riposte"), 1);
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &typed, "/dev/null"]).env("NO_COLOR", "1");
        // The environment of the account, which hides that of the test.
        for (name, value) in self.account.command(&[]).get_envs() {
            match value {
                Some(value) => terminal.env(name, value),
                None => terminal.env_remove(name),
            };
        }
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(if confirms { b"y\n" } else { b"" }).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{line}: {shown}");
        assert!(!confirms || shown.contains("[y/N]"), "{line} changes something and does not ask: {shown}");
        shown
    }
}

/// The command line of a person who is called alice, in whose context are the manager and the key.
async fn alice(manager: &Manager) -> (Night, tempfile::TempDir) {
    let api = manager.api();
    let password = "correct horse battery staple";
    api.post("/v1/users", &json!({"name": "alice", "role": "admin", "password": password})).await;
    let tokens = api.post("/v1/auth/token", &json!({"username": "alice", "password": password})).await;
    let session = api.with_key(text(&tokens, "access_token"));
    let key = session.post("/v1/api-keys", &json!({"name": "night", "kind": "personal", "role": "admin"})).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, text(&key, "key")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let account = Account::new();
    account.done(&["context", "add", "night", "--manager", &manager.base(), "--key-file", file.to_str().unwrap()]);
    (Night { account, keystrokes: 0 }, directory)
}

/// An agent that answers every command it gets with a failure.
async fn fails(agent: &FakeAgent) {
    eventually("the agent gets a command", PATIENCE, || async {
        let commands = agent.poll(json!({"cursor": 0, "wait_seconds": 0})).await;
        let failed = commands.iter().map(|command| {
            let mut result = succeeded(command.jti);
            (result.outcome, result.message, result.verified) =
                (Outcome::Failed, "nft: \u{1b}[2J denied".to_owned(), None);
            result
        });
        let results: Vec<_> = failed.collect();
        let (status, answer) = agent.exchange(&json!({"cursor": 0, "wait_seconds": 0, "results": results})).await;
        assert!(status.is_success(), "{answer}");
        (!results.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nine_jobs_of_a_night_shift_take_fewer_than_150_keystrokes() {
    let manager = Manager::start().await;
    let api = manager.api();
    // They drop nothing on the host of the test.
    let (directory, mut agents) = (tempfile::tempdir().unwrap(), Vec::new());
    let policy = directory.path().join("policy.toml");
    std::fs::write(&policy, "denied_actions = [\"firewall-drop\"]\n").unwrap();
    for name in ["web-01", "web-02"] {
        let mut agent = Agent::enroll(&api.base, &api.make_token().await, name);
        agent.run(&["--policy", policy.to_str().unwrap()]);
        api.agent_streams(&agent.id).await;
        agents.push(agent);
    }
    let broken = FakeAgent::enroll(&manager, "db-01").await;
    let policy = |name: &str, mode: &str| {
        json!({"name": name, "mode": mode, "match": [{"rule_ids": ["5763"]}],
            "respond": {"action": "log-only", "target": "source.ip", "on": "origin", "for": "1h"}})
    };
    api.post("/v1/policies", &policy("ssh", "enforce")).await;
    for (number, source) in [(1, "10.0.0.7"), (2, "10.0.0.8"), (3, "10.0.0.6")] {
        api.answer_to(&alert(number, source, "web-01")).await;
    }
    api.post("/v1/policies", &policy("asks", "approve")).await;
    api.post("/v1/alerts", &alert(4, "10.0.0.5", "web-01")).await;
    let (mut night, _key) = alice(&manager).await;

    let shown = night.types("riposte ls", false);
    assert!(shown.contains("10.0.0.7") && shown.contains("policy ssh") && shown.contains("rule 5763"), "{shown}");
    let shown = night.types("riposte un 10.0.0.7", true);
    assert!(shown.contains("lifts 1 response") && shown.contains("lifted 1 response"), "{shown}");
    let shown = night.types("riposte un -p ssh", true);
    assert!(shown.contains("lifts 3 responses"), "{shown}");
    let shown = night.types("riposte fr on", true);
    assert!(shown.contains("frozen: nothing but reverts"), "{shown}");
    night.types("riposte freeze off", true);
    night.keystrokes -= "riposte freeze offy".len();
    let shown = night.types("riposte pr 10.0.0.9", true);
    assert!(shown.contains("ip 10.0.0.9 is protected"), "{shown}");
    let shown = night.types("riposte ap", true);
    assert!(shown.contains("log-only ip 10.0.0.5 on 1 agent, by policy asks"), "{shown}");
    let shown = night.types("riposte ban 10.1.1.1", true);
    assert!(shown.contains("firewall-drop 10.1.1.1 on 1 of 3 agents (33 %)"), "{shown}");
    assert!(shown.contains("unable     web-01: "), "{shown}");
    let shown = night.types("riposte ag li -a", false);
    assert!(
        shown.contains("db-01") && !shown.contains("web-01") && shown.contains("2 hidden by the filter"),
        "{shown}"
    );
    fails(&broken).await;
    let shown = night.types("riposte comm l -f", false);
    assert!(shown.contains("db-01") && shown.contains("apply firewall-drop 10.1.1.1"), "{shown}");
    assert!(night.keystrokes < MOST, "{} keystrokes", night.keystrokes);
}

#[tokio::test]
async fn without_a_terminal_a_change_is_refused_with_the_command_to_type() {
    let manager = Manager::start().await;
    let _away = FakeAgent::enroll(&manager, "web-01").await;
    let (is_done, said) = manager.command(&["block", "203.0.113.7", "--for", "1h", "--reason", "it's odd"]);
    assert!(!is_done && said.contains("firewall-drop 203.0.113.7 on 1 of 1 agent (100 %), for 1h"), "{said}");
    assert!(said.contains(r"riposte block 203.0.113.7 --for 1h --reason 'it'\''s odd' --yes"), "{said}");
    assert_eq!(manager.api().get("/v1/responses").await["items"], json!([]));
    let (is_done, said) = manager.command(&["block", "203.0.113.7", "--dry-run"]);
    assert!(is_done && said.contains("a dry run: nothing was changed"), "{said}");
    let (is_done, said) = manager.command(&["block", "203.0.113.7", "--yes"]);
    assert!(is_done && said.contains("`riposte blocked 203.0.113.7`"), "{said}");
    let (_, said) = manager.command(&["blocked"]);
    assert!(said.contains("0 of 1 in force, 1 pending") && said.contains("by hand"), "{said}");
    for (form, is_it) in
        [("json", "["), ("jsonl", "{"), ("yaml", "- actions:"), ("name", "203.0.113.7"), ("wide", "TARGET")]
    {
        let (is_done, said) = manager.command(&["blocked", "-o", form]);
        assert!(is_done && said.starts_with(is_it), "{form}: {said}");
    }
    let (_, said) = manager.command(&["target", "show", "203.0.113.7", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["target"]["agents"], 1, "{said}");
    let (is_done, said) = manager.command(&["unblock", "203.0.113.9", "--yes"]);
    assert!(!is_done && said.contains("`riposte blocked` lists what is blocked"), "{said}");
    let (is_done, said) = manager.command(&["approve", "--yes"]);
    assert!(!is_done && said.contains("nothing waits for approval"), "{said}");
    let (is_done, said) = manager.command(&["freeze", "status"]);
    assert!(is_done && said.contains("not frozen"), "{said}");
    let (is_done, said) = manager.command(&["protect", "203.0.113.0/24", "--yes"]);
    assert!(is_done && said.contains("ip 203.0.113.0/24 is protected"), "{said}");
    let (is_protected, said) = manager.command(&["protect", "check", "203.0.113.7"]);
    assert!(is_protected && said.contains("203.0.113.0/24"), "{said}");
    let (is_done, said) = manager.command(&["block", "203.0.113.7", "--yes"]);
    assert!(!is_done && said.contains("/target"), "{said}");
    let (is_done, said) = manager.command(&["protect", "remove", "203.0.113.0/24", "--yes"]);
    assert!(is_done && said.contains("removed"), "{said}");
    let (is_protected, _) = manager.command(&["protect", "check", "203.0.113.7"]);
    assert!(!is_protected);
    let (is_done, said) = manager.command(&["effect", "list", "--agent", "web-01"]);
    assert!(is_done && said.contains("web-01"), "{said}");
    let (is_done, said) = manager.command(&["agent", "drift"]);
    assert!(is_done && said.contains("no effects"), "{said}");
}
