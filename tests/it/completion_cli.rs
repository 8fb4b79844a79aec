//! The completion of a shell: real bash, the script that is packaged, and a real manager.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::login_cli::Account;
use crate::processes::{FakeAgent, Manager, require, text};

/// An account whose current context is the manager.
fn account(manager: &Manager) -> Account {
    let account = Account::new();
    let key = account.write("key", &manager.api().key);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    account.done(&["context", "add", "here", "--manager", &manager.base(), "--key-file", &key]);
    account
}

/// What bash has typed after `line` and a TAB, or after two what it lists; on a terminal of its own.
fn after_tab(account: &Account, line: &str) -> String {
    require(&[("script", "bsdutils"), ("bash", "bash")]);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_riposte"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", "bash --noprofile --norc -i", "/dev/null"]);
    for (name, value) in account.command(&[]).get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    terminal.env("PATH", path).env("PS1", "$ ").env("TERM", "dumb");
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // The line is commented out before it runs: what is seen is what was typed.
    let typed =
        format!("bind 'set enable-bracketed-paste off'; . <(riposte completions bash)\n{line}\t\t\u{1}#\nexit\n");
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The candidates that the script of bash gets for the last of `words`.
fn candidates(account: &Account, words: &[&str]) -> Vec<String> {
    let index = (words.len() - 1).to_string();
    let mut command = account.command(&["--"]);
    command.args(words).env("RIPOSTE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_shell_completes_agents_policies_targets_and_responses_of_the_current_context() {
    let manager = Manager::start().await;
    let api = manager.api();
    api.make_policy("log-only", "10m").await;
    for name in ["web-01", "web-02", "db-01"] {
        FakeAgent::enroll(&manager, name).await;
    }
    let block = |kind: &str, value: &str| {
        json!({"action": "log-only", "target": {"kind": kind, "value": value}, "agents": ["web-01"],
        "for": "1h", "reason": "looks odd"})
    };
    let made = api.post("/v1/responses", &block("ip", "203.0.113.7")).await;
    // A name that an attacker chose, and that a shell would run.
    api.post("/v1/responses", &block("file", "/tmp/$(reboot)")).await;
    let account = account(&manager);
    let words = |line: &[&str]| candidates(&account, &[&["riposte"], line].concat());

    assert_eq!(words(&["agent", "show", "we"]), ["web-01", "web-02"]);
    assert_eq!(words(&["policy", "show", "a"]), ["answer"]);
    assert_eq!(words(&["unblock", "2"]), ["203.0.113.7"]);
    assert_eq!(words(&["unblock", "/tmp"]), Vec::<String>::new());
    let id = text(&made, "id");
    assert_eq!(words(&["response", "lift", &id[..30]]), [id]);
    assert_eq!(words(&["response", "lift", &id[..6]]).len(), 2, "both ids begin alike");
    assert_eq!(words(&["approve", ""]).iter().filter(|word| !word.starts_with('-')).count(), 0);
    assert!(words(&["blo"]).contains(&"blocked".to_owned()));
    // A manager that does not answer holds up no line, and says nothing in the middle of it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let key = account.write("key", &api.key);
    let begun = Instant::now();
    let found = words(&["agent", "show", "--manager", &address, "--key-file", &key, "we"]);
    assert!(found.is_empty() && begun.elapsed().as_secs() < 5, "{found:?} after {:?}", begun.elapsed());

    let shown = after_tab(&account, "riposte agent show d");
    assert!(shown.contains("riposte agent show db-01"), "{shown}");
    let shown = after_tab(&account, "riposte agent show web-0");
    assert!(shown.contains("web-01") && shown.contains("web-02"), "{shown}");
}
