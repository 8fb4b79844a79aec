//! `riposte top`: text elsewhere than at a terminal; at one a screen that q and Ctrl-C end, and that leaves the terminal
//! as it was.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use serde_json::json;

use crate::login_cli::Account;
use crate::processes::{FakeAgent, Manager, PATIENCE, require};

/// Takes the alternate screen, and gives it back.
const SCREEN: [&str; 2] = ["\u{1b}[?1049h", "\u{1b}[?1049l"];

/// A program at a terminal of its own.
struct Terminal {
    child: Child,
    shown: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(account: &Account, arguments: &str) -> Self {
        require(&[("script", "bsdutils")]);
        let mut terminal = Command::new("script");
        let typed = format!("stty rows 30 columns 110; {} {arguments}; stty -a", env!("CARGO_BIN_EXE_riposte"));
        terminal.args(["-qec", &typed, "/dev/null"]).env("TERM", "xterm");
        for (name, value) in account.command(&[]).get_envs() {
            match value {
                Some(value) => terminal.env(name, value),
                None => terminal.env_remove(name),
            };
        }
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, shown) = mpsc::channel();
        let mut output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, shown, seen: String::new() }
    }

    /// Waits until the terminal has shown `words`.
    fn shows(&mut self, words: &str) {
        // The screen goes on changing, so silence is not what is waited for.
        let begun = Instant::now();
        while !self.seen.contains(words) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let bytes = self.shown.recv_timeout(left).unwrap_or_else(|_| panic!("{words}: {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end. The terminal echoes again, on its own screen.
    fn restores_the_terminal(mut self) {
        self.shows(SCREEN[1]);
        self.shows("isig icanon");
        assert!(!self.seen.contains("-icanon") && !self.seen.contains("-echo "), "{:?}", self.seen);
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn account(manager: &Manager) -> Account {
    let account = Account::new();
    let key = account.write("key", &manager.api().key);
    account.done(&["context", "add", "here", "--manager", &manager.base(), "--key-file", &key]);
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_a_screen_that_keys_end_and_text_elsewhere() {
    let manager = Manager::start().await;
    let api = manager.api();
    let _away = FakeAgent::enroll(&manager, "web-01").await;
    let approve = json!({"name": "asks", "mode": "approve", "match": [{"rule_ids": ["5763"]}],
        "respond": {"action": "log-only", "target": "source.ip", "on": "origin", "for": "1h"}});
    api.post("/v1/policies", &approve).await;
    api.post("/v1/alerts", &crate::processes::alert(1, "203.0.113.7", "web-01")).await;
    let account = account(&manager);

    let said = account.done(&["top"]);
    for words in [
        "alerts     1 in 5 min, 1 in 1 h",
        "waiting    1\n  log-only ip 203.0.113.7, by policy asks",
        "away       1 of 1 agents\n  web-01, last here",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "{said:?}");

    for key in ["q", "\u{3}"] {
        let mut terminal = Terminal::start(&account, "top");
        terminal.shows(SCREEN[0]);
        terminal.shows("203.0.113.7");
        terminal.types(key);
        terminal.restores_the_terminal();
    }
    // What is new comes by itself, and a manager that goes away is said.
    let mut terminal = Terminal::start(&account, "top");
    terminal.shows("203.0.113.7");
    api.post("/v1/alerts", &crate::processes::alert(2, "203.0.113.8", "web-01")).await;
    // Only what changed is drawn: the older of both moves into an empty row.
    terminal.seen.clear();
    terminal.shows("203.0.113.7");
    drop(manager);
    terminal.shows("CONNECTION");
    terminal.types("q");
    terminal.restores_the_terminal();
    let said = account.refused(&["top"]);
    assert!(said.contains("nothing listens at"), "{said}");
}
