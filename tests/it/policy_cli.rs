//! `riposte policy …` as people and scripts run it: the real program, files in a folder, a real
//! manager.

use std::path::Path;
use std::process::Output;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::processes::{Manager, alert, text, tied};

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Returns stdout; the exit code must be `code`.
    #[track_caller]
    pub(crate) fn gives(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.out
    }

    /// Returns stderr; the exit code must be `code`.
    #[track_caller]
    pub(crate) fn complains(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

/// Runs `riposte` with words that are split at blanks, without a manager.
pub(crate) fn alone(folder: &Path, words: &str) -> Ran {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    Ran::of(&command.args(words.split_whitespace()).current_dir(folder).output().unwrap())
}

/// Runs `riposte` with these words against `manager`.
pub(crate) fn riposte(manager: &Manager, folder: &Path, words: &[&str]) -> Ran {
    let api = manager.api();
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    let command = command.env("RIPOSTE_MANAGER", &api.base).env("RIPOSTE_KEY", &api.key);
    Ran::of(&command.args(words).current_dir(folder).output().unwrap())
}

/// Runs `riposte policy` with words that are split at blanks against `manager`.
pub(crate) fn policy(manager: &Manager, folder: &Path, words: &str) -> Ran {
    let words: Vec<&str> = std::iter::once("policy").chain(words.split_whitespace()).collect();
    riposte(manager, folder, &words)
}

/// Creates a folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

pub(crate) const SSH: &str = r#"name: block-ssh
match:
  - rule_ids: [5763]
respond:
  action: firewall-drop
  for: 10m
tests:
  - name: a guess is answered
    fires: true
    target: 203.0.113.7
    alert: { pipeline: x, id: "1", time: "2026-11-20T10:11:12Z", rule: { id: "5763", level: 10 }, source: { ip: "203.0.113.7" } }
"#;

const SCAN: &str = "name: scan
summary: Scans a file.
executable: scan.sh
target_kinds: [file]
default_target: file.path
---
name: scan-files
mode: observe
match: [{ min_level: 7 }]
respond: { action: scan }
";

#[tokio::test]
async fn a_manager_is_made_like_the_files() {
    let manager = Manager::start().await;
    let files = folder(&[("ssh.yaml", SSH), ("scan.yml", SCAN)]);
    let run = |words: &str| policy(&manager, files.path(), words);

    let complaint = run("apply -f .").complains(2);
    assert!(complaint.contains("add --yes"), "{complaint}");
    let shown = run("apply -f . --dry-run").gives(0);
    for line in ["+ action scan: new", "+ policy block-ssh: new", "    +   for: 10m", "3 new"] {
        assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
    }
    assert_eq!(run("list --json").gives(0), "");
    assert!(run("diff -f .").gives(1).contains("+ policy scan-files: new"));

    let applied = run("apply -f . --yes").gives(0);
    assert!(applied.contains("policy block-ssh: created, version 1"), "{applied}");
    assert!(run("diff -f .").gives(0).contains("policy block-ssh: unchanged"));
    assert!(run("apply -f ssh.yaml --yes").gives(0).contains("1 policy in no file"));

    // Another order and a spelled-out default mean the same; a longer time does not.
    std::fs::write(files.path().join("ssh.yaml"), format!("mode: enforce\n{SSH}")).unwrap();
    run("diff -f .").gives(0);
    std::fs::write(files.path().join("ssh.yaml"), SSH.replace("10m", "1h")).unwrap();
    let shown = run("diff -f .").gives(1);
    for line in ["~ policy block-ssh: changed since version 1", "    -   for: 10m", "    +   for: 1h"] {
        assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
    }
    run("apply -f . --yes").gives(0);
    let history = run("history block-ssh").gives(0);
    assert_eq!(history.lines().count(), 3, "{history}");
    let newest: Value = serde_json::from_str(run("history block-ssh --json").gives(0).lines().next().unwrap()).unwrap();
    assert_eq!((&newest["version"], &newest["document"]["respond"]["for"]), (&json!(2), &json!("1h")));

    // The output of `show` can be applied.
    let copy = run("show block-ssh").gives(0);
    assert!(copy.starts_with("name: block-ssh\nmode: enforce\n") && !copy.contains("version"), "{copy}");
    let copied = folder(&[("copy.yaml", &copy)]);
    policy(&manager, copied.path(), "diff -f copy.yaml").gives(0);
    let listed = run("list").gives(0);
    assert!(listed.starts_with("NAME") && listed.contains("until lifted"), "{listed}");

    let pruned = policy(&manager, copied.path(), "apply -f . --prune --yes").gives(0);
    assert!(pruned.contains("policy scan-files: deleted"), "{pruned}");
    assert!(run("delete block-ssh").complains(2).contains("--yes"));
    run("delete block-ssh --yes").gives(0);
    assert_eq!(run("list --json").gives(0), "");
    assert!(run("history block-ssh").gives(0).contains("deleted"));
    assert!(run("show block-ssh").complains(1).contains("there is no policy called"));
}

#[tokio::test]
async fn protected_entries_are_applied_from_files_and_removed_only_when_asked() {
    let manager = Manager::start().await;
    let list = "- { kind: ip, value: 192.0.2.0/24, reason: office }\n- { kind: user, value: Backup, reason: nightly, policies: [ghost] }\n";
    let files = folder(&[("ssh.yaml", SSH), ("protected.yaml", list)]);
    let run = |words: &str| policy(&manager, files.path(), words);
    let shown = run("apply -f . --dry-run").gives(0);
    for line in ["+ protected ip 192.0.2.0/24: new", "+ protected user backup for ghost: new", "3 new"] {
        assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
    }
    let told = run("apply -f . --yes");
    assert!(told.err.contains("there is no policy called ghost"), "{told:?}");
    told.gives(0);
    let api = manager.api();
    assert_eq!(api.get("/v1/protected").await["items"].as_array().unwrap().len(), 2);
    // A second run changes nothing; another reason is a change; an entry in no file stays.
    run("diff -f .").gives(0);
    std::fs::write(files.path().join("protected.yaml"), "{ kind: ip, value: 192.0.2.0/24, reason: head office }")
        .unwrap();
    let shown = run("apply -f . --prune --yes").gives(0);
    assert!(shown.contains("~ protected ip 192.0.2.0/24: changed") && shown.contains("--prune-protected"), "{shown}");
    let entries = api.get("/v1/protected").await;
    let reasons: Vec<&str> = entries["items"].as_array().unwrap().iter().map(|entry| text(entry, "reason")).collect();
    assert_eq!(reasons, ["nightly", "head office"]);
    let shown = run("apply -f . --prune-protected --yes").gives(0);
    assert!(shown.contains("- protected user backup for ghost: PROTECTED NO MORE"), "{shown}");
    assert_eq!(api.get("/v1/protected").await["items"].as_array().unwrap().len(), 1);
    api.audit_is_intact().await;
}

#[tokio::test]
async fn nothing_is_sent_if_anything_is_wrong() {
    let manager = Manager::start().await;
    let wrong = SSH.replace("for: 10m", "fro: 10m").replace("block-ssh", "other");
    let files = folder(&[("a.yaml", SSH), ("b.yaml", &format!("{SSH}---\n{wrong}")), ("empty.yaml", "")]);
    let run = |words: &str| policy(&manager, files.path(), words);
    let told = run("apply -f . --yes").complains(2);
    assert!(told.contains("b.yaml:2 /respond/fro: is not a known field; did you mean for?"), "{told}");
    assert!(told.contains("b.yaml:1 /name: block-ssh is also in ./a.yaml:1"), "{told}");
    assert!(told.contains("2 faults; nothing was sent"), "{told}");
    run("diff -f .").complains(2);
    assert_eq!(run("list --json").gives(0), "");
    // A folder without policies would prune everything.
    run("apply -f a.yaml --yes").gives(0);
    assert!(run("apply -f empty.yaml --prune --yes").complains(2).contains("no policy, action or protected entry"));
    assert_eq!(run("list --json").gives(0).lines().count(), 1);
    // A usage error has another exit code than a failed operation.
    run("show Not/A/Name").complains(2);
    for words in ["apply -f not-there.yaml --yes", "apply -f not-there.yaml"] {
        let told = run(words).complains(2);
        assert!(told.contains("not-there.yaml: no such file or folder"), "{told}");
    }
    let mut deaf = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    let deaf = deaf.args(["policy", "list", "--manager", "http://127.0.0.1:1"]).env("RIPOSTE_KEY", "rip_x");
    assert!(Ran::of(&deaf.output().unwrap()).complains(1).contains("nothing listens at http://127.0.0.1:1"));
}

#[tokio::test]
async fn a_lost_race_is_reported_and_not_retried() {
    let stored = json!({"name": "block-ssh", "version": 7, "mode": "enforce", "match": [], "warnings": [],
        "respond": {"action": "firewall-drop", "on": "origin"}, "created_at": "2026-11-24T10:00:00.000Z",
        "updated_at": "2026-11-24T10:00:00.000Z"});
    let list = |items: Value| get(async move || axum::Json(json!({"items": items, "next_cursor": null})));
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    let replace = put(async move |headers: axum::http::HeaderMap| {
        assert_eq!(headers["if-match"], "\"7\"");
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (
            StatusCode::PRECONDITION_FAILED,
            axum::Json(
                json!({"type": "urn:riposte:problem:changed", "title": "Changed since it was read", "status": 412,
                "detail": "has another version"}),
            ),
        )
    });
    let router = Router::new()
        .route("/v1/actions", list(json!([])))
        .route("/v1/protected", list(json!([])))
        .route("/v1/agents", list(json!([])))
        .route("/v1/policies", list(json!([stored])))
        .route("/v1/policies/block-ssh", replace);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let manager = format!("http://{}", listener.local_addr().unwrap());
    let files = folder(&[("ssh.yaml", SSH)]);
    let path = files.path().to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
        let command = command.args(["policy", "apply", "-f", ".", "--yes", "--manager", &manager]);
        Ran::of(&command.env("RIPOSTE_KEY", "rip_x").current_dir(path).output().unwrap())
    });
    let ran = tokio::select! {
        served = axum::serve(listener, router) => panic!("the stand-in ended: {served:?}"),
        ran = run => ran.unwrap(),
    };
    let told = ran.complains(1);
    assert!(told.contains("policy block-ssh (./ssh.yaml:1): another change came first"), "{told}");
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn tests_of_policies_run_without_a_manager() {
    let failing = SSH.replace("target: 203.0.113.7", "target: 203.0.113.8").replace("block-ssh", "wrong");
    let files = folder(&[("good.yaml", SSH), ("scan.yaml", SCAN), ("bad.yaml", &failing), ("fault.yaml", "name: x\n")]);
    let run = |words: &str| alone(files.path(), &format!("policy test {words}"));
    let good = run("good.yaml scan.yaml").gives(0);
    for line in ["  ok    a guess is answered", "  no tests", "1 test: 1 passed, 0 failed; 1 policy without tests"] {
        assert!(good.lines().any(|found| found == line), "{line}:\n{good}");
    }
    let bad = run("good.yaml bad.yaml").gives(1);
    assert!(bad.contains("  FAIL  a guess is answered\n        /tests/0/target is \"203.0.113.8\""), "{bad}");
    assert!(run("fault.yaml").complains(2).contains("fault.yaml:1 /match: is missing"));
    // The manager's actions are fetched only if a key is given.
    let uses = SCAN.split("---\n").nth(1).unwrap();
    std::fs::write(files.path().join("uses.yaml"), uses).unwrap();
    assert!(run("uses.yaml").complains(2).contains("/respond/action: is not a known action"));
}

#[tokio::test]
async fn an_alert_is_explained() {
    let manager = Manager::start().await;
    let files = folder(&[("ssh.yaml", SSH), ("scan.yaml", SCAN)]);
    let run = |words: &str| policy(&manager, files.path(), words);
    run("apply -f . --yes").gives(0);
    let api = manager.api();
    api.post("/v1/alerts", &alert(1, "203.0.113.7", "web-01")).await;
    let id = text(&api.get("/v1/alerts").await["items"][0], "id").to_owned();
    let told = run(&format!("explain {id}")).gives(0);
    for line in [
        "  block-ssh, version 1: firewall-drop 203.0.113.7, spared (agent_unknown: it selects no enrolled agent)",
        "  block-ssh, version 1: fires; it would be spared: it selects no enrolled agent",
        "    /match/0: holds",
    ] {
        assert!(told.lines().any(|found| found == line), "{line}:\n{told}");
    }
    let one: Value = serde_json::from_str(&run(&format!("explain {id} --policy block-ssh --json")).gives(0)).unwrap();
    assert_eq!(one["now"].as_array().unwrap().len(), 1);
    run(&format!("explain {id} --policy absent")).complains(1);
    run("explain 01980f00-0000-7000-8000-000000000001").complains(1);
    run("explain not-an-id").complains(1);
    api.audit_is_intact().await;
}

#[tokio::test]
async fn a_policy_is_tried_counted_rolled_back_and_reset() {
    let manager = Manager::start().await;
    let files = folder(&[("ssh.yaml", SSH)]);
    let run = |words: &str| policy(&manager, files.path(), words);
    let api = manager.api();
    run("apply -f . --yes").gives(0);
    for number in 0..3 {
        api.post("/v1/alerts", &alert(number, "203.0.113.7", "web-01")).await;
    }
    let report: Value = serde_json::from_str(&run("backtest -f ssh.yaml --since 3650d --json").gives(0)).unwrap();
    assert_eq!((&report["alerts_scanned"], &report["matched"]), (&json!(3), &json!(3)), "{report}");
    let told = run("backtest -f ssh.yaml --samples 2").gives(0);
    assert!(told.contains("block-ssh over 3 alerts: 3 matched") && told.contains("spared: agent_unknown"), "{told}");
    run("backtest -f ssh.yaml --since yesterday").complains(2);

    let counts: Value = serde_json::from_str(&run("counts block-ssh --json").gives(0)).unwrap();
    assert_eq!(counts["spared"]["agent_unknown"], 3, "{counts}");
    assert!(run("counts block-ssh --within 1h").gives(0).contains("agent_unknown"));

    std::fs::write(files.path().join("ssh.yaml"), SSH.replace("10m", "1h")).unwrap();
    run("apply -f . --yes").gives(0);
    assert!(run("rollback block-ssh --to 1").gives(0).contains("version 3 now"));
    assert!(run("show block-ssh").gives(0).contains("for: 10m"));
    assert!(run("rollback block-ssh --to 9").complains(1).contains("/version"));
    assert!(run("rollback absent --to 1").complains(1).contains("no policy called"));

    let words = ["policy", "reset", "block-ssh", "--reason", "the agents are well again"];
    assert!(riposte(&manager, files.path(), &words).complains(1).contains("409"));
    run("reset block-ssh").complains(2);
}

/// Typical mistakes of a tired administrator, and what the answer must name.
#[tokio::test]
async fn a_mistyped_command_is_answered_with_what_to_do() {
    let manager = Manager::start().await;
    let api = manager.api();
    let files = folder(&[
        ("tab.yaml", "name: a\nmatch:\n\t- min_level: 3\n"),
        ("ossec.conf", "<ossec_config></ossec_config>"),
        ("latin1.yaml", "name: a"),
        ("ssh.yaml", SSH),
        ("empty.key", "\n"),
        ("cut.key", &api.key[..api.key.len() - 12]),
        ("other.key", "secret"),
        ("two.key", &format!("{0}\n{0}", api.key)),
    ]);
    std::fs::write(files.path().join("latin1.yaml"), b"name: a\nnote: caf\xe9\n").unwrap();
    let key = |file: &str| format!("policy list --manager {} --key-file {file}", api.base);
    let table: [(String, i32, &str); 12] = [
        ("policy apply -f nosuch.yaml".into(), 2, "nosuch.yaml: no such file or folder"),
        ("policy apply -f tab.yaml".into(), 2, "tab.yaml:1: is not YAML: a tab in line 3; indent with spaces"),
        ("policy apply -f ossec.conf".into(), 2, "riposte policy import"),
        ("policy apply -f latin1.yaml".into(), 2, "line 2 contains bytes that are not UTF-8"),
        ("policy apply -f ssh.yaml".into(), 2, "add --yes, or --dry-run to look"),
        ("policy import nosuch.conf".into(), 2, "nosuch.conf: no such file or folder"),
        (key("nosuch.key"), 1, "the manager makes DATA_DIR/admin.key"),
        (key("."), 1, "is a folder; name the file in it"),
        (key("empty.key"), 1, "empty.key: the key is empty"),
        (key("cut.key"), 1, "the key has 31 of 43 characters"),
        (key("other.key"), 1, "a key begins with rip_"),
        (key("two.key"), 1, "copy one key, and nothing else"),
    ];
    for (words, code, told) in table {
        let complaint = alone(files.path(), &words).complains(code);
        assert!(complaint.contains(told), "{words}: {complaint}");
    }
}

#[test]
fn shells_and_man_know_the_commands() {
    let dir = folder(&[]);
    assert!(alone(dir.path(), "completions bash").gives(0).contains("RIPOSTE_COMPLETE"));
    alone(dir.path(), "man pages").gives(0);
    let page = std::fs::read_to_string(dir.path().join("pages/riposte-policy-apply.1")).unwrap();
    assert!(page.contains("prune"), "{page}");
    alone(dir.path(), "policy").complains(2);
}

#[tokio::test]
async fn the_admin_key_can_be_named_by_its_file() {
    let manager = Manager::start().await;
    let api = manager.api();
    let files = folder(&[("key", &api.key)]);
    let words = format!("policy list --manager {} --key-file key", api.base);
    alone(files.path(), &words).gives(0);
}
