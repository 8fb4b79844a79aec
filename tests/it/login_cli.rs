//! A person at the command line: login, sessions in contexts, keys of one's own, logout.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{Manager, tied};

#[tokio::test]
async fn a_key_needs_neither_a_home_nor_readable_contexts() {
    let manager = Manager::start().await;
    let (account, base, key) = (Account::new(), manager.base(), admin_key(&manager));
    let by_key = ["whoami", "--manager", &base, "--key-file", &key];
    let mut homeless = account.command(&by_key);
    assert!(homeless.env_remove("XDG_CONFIG_HOME").env_remove("HOME").status().unwrap().success());
    let mut homeless = account.command(&["status", "--manager", &base]);
    assert!(homeless.env_remove("XDG_CONFIG_HOME").env_remove("HOME").status().unwrap().success());
    let mut homeless = account.command(&["context", "add", "here", "--manager", &base]);
    let said = homeless.env_remove("XDG_CONFIG_HOME").env_remove("HOME").output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("neither XDG_CONFIG_HOME nor HOME"), "{said:?}");
    std::fs::create_dir(account.0.path().join("riposte")).unwrap();
    std::fs::write(account.contexts(), "{").unwrap();
    std::fs::set_permissions(account.contexts(), Permissions::from_mode(0o600)).unwrap();
    account.done(&by_key);
    let said = account.refused(&["whoami"]);
    assert!(said.contains("contexts.json holds no contexts"), "{said}");
}

/// The command line of an account with its own home.
pub(crate) struct Account(TempDir);

impl Account {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
        command.args(arguments).env("XDG_CONFIG_HOME", self.0.path()).stdin(Stdio::null());
        for name in ["RIPOSTE_MANAGER", "RIPOSTE_KEY", "RIPOSTE_KEY_FILE", "RIPOSTE_CONTEXT", "RIPOSTE_CA"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command; returns whether it succeeded, and its output.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let (is_done, text) = self.run(arguments);
        assert!(is_done, "{arguments:?}: {text}");
        text
    }

    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let (is_done, text) = self.run(arguments);
        assert!(!is_done, "{arguments:?}: {text}");
        text
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(crate) fn contexts(&self) -> std::path::PathBuf {
        self.0.path().join("riposte").join("contexts.json")
    }
}

/// A manager, and an account whose person alice has logged in there.
async fn alice() -> (Manager, Account) {
    let manager = Manager::start().await;
    let (is_made, password) = manager.command(&["user", "add", "alice", "--role", "analyst"]);
    assert!(is_made, "{password}");
    let account = Account::new();
    let temporary = account.write("temporary", password.lines().next().unwrap());
    let new = account.write("new", "correct horse battery\n");
    let base = manager.base();
    let login = ["login", "--manager", &base, "--username", "alice", "--password-file"];
    let first = account.refused(&[&login[..], &[&temporary]].concat());
    assert!(first.contains("--new-password-file"), "{first}");
    let said = account.done(&[&login[..], &[&temporary, "--new-password-file", &new]].concat());
    assert!(said.contains("as alice"), "{said}");
    (manager, account)
}

#[tokio::test]
async fn a_person_logs_in_works_by_a_session_and_logs_out() {
    let (manager, account) = alice().await;
    let mode = std::fs::metadata(account.contexts()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let who: Value = serde_json::from_str(&account.done(&["whoami", "--json"])).unwrap();
    assert_eq!((&who["principal"], &who["via"]), (&"user:alice".into(), &"session".into()));
    assert!(account.done(&["whoami"]).contains("role analyst, by a session"));
    // A key of one's own acts as the person, and lists beside no other.
    let key = account.done(&["key", "add", "laptop", "--role", "analyst", "--personal"]);
    let key = account.write("key", key.lines().next().unwrap());
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let base = manager.base();
    let by_key = account.done(&["whoami", "--manager", &base, "--key-file", &key]);
    assert!(by_key.contains("user:alice") && by_key.contains("by the key"), "{by_key}");
    let keys = account.done(&["key", "list"]);
    assert!(keys.contains("laptop") && !keys.contains("first admin key"), "{keys}");
    let refused = account.refused(&["user", "list"]);
    assert!(refused.contains("403"), "{refused}");
    // The administrator sees both; revoking the person stops the session and the key at once.
    let (_, users) = manager.command(&["user", "list"]);
    assert!(users.contains("alice") && users.contains("enabled"), "{users}");
    let stored = std::fs::read_to_string(account.contexts()).unwrap();
    account.done(&["logout"]);
    let after = account.refused(&["whoami"]);
    assert!(after.contains("riposte login"), "{after}");
    // What was stored before is good for nothing any more.
    let old: Value = serde_json::from_str(&stored).unwrap();
    let session = &old["contexts"].as_object().unwrap().values().next().unwrap()["session"];
    let token = session["access_token"].as_str().unwrap();
    let answer = reqwest::Client::new().get(format!("{base}/v1/whoami")).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(manager.command(&["user", "set", "alice", "--disable"]).0);
    let stopped = account.refused(&["whoami", "--manager", &base, "--key-file", &key]);
    assert!(stopped.contains("401"), "{stopped}");
}

#[tokio::test]
async fn commands_at_the_same_time_share_one_refresh() {
    let (_manager, account) = alice().await;
    let path = account.contexts();
    let mut stored: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for context in stored["contexts"].as_object_mut().unwrap().values_mut() {
        context["session"]["access_expires_at"] = "2026-01-01T00:00:00.000Z".into();
    }
    std::fs::write(&path, stored.to_string()).unwrap();
    let started: Vec<_> = (0..4)
        .map(|_| account.command(&["whoami"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in started {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let fresh: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_ne!(fresh, stored);
}

#[tokio::test]
async fn a_session_is_sent_to_its_own_manager_only() {
    let (manager, account) = alice().await;
    let other = "http://127.0.0.1:1";
    let said = account.refused(&["whoami", "--manager", other]);
    assert!(said.contains("no credential for http://127.0.0.1:1"), "{said}");
    let name = manager.base().split_once("://").unwrap().1.to_owned();
    let said = account.refused(&["whoami", "--manager", other, "--context", &name]);
    assert!(said.contains("its session is not sent there"), "{said}");
    let said = account.refused(&["whoami", "--context", "elsewhere"]);
    assert!(said.contains("there is no context elsewhere") && said.contains(&name), "{said}");
    // A file that other accounts can read is not used.
    std::fs::set_permissions(account.contexts(), Permissions::from_mode(0o644)).unwrap();
    let said = account.refused(&["whoami"]);
    assert!(said.contains("chmod 600"), "{said}");
    assert!(
        account.done(&["whoami", "--manager", &manager.base(), "--key-file", &admin_key(&manager)]).contains("key:")
    );
}

pub(crate) fn admin_key(manager: &Manager) -> String {
    manager.data_dir().join("admin.key").display().to_string()
}

#[tokio::test]
async fn contexts_name_managers_and_their_keys() {
    let manager = Manager::start().await;
    let account = Account::new();
    let (base, key) = (manager.base(), admin_key(&manager));
    account.done(&["context", "add", "here", "--manager", &base, "--key-file", &key]);
    account.done(&["context", "add", "there", "--manager", "https://manager.example:8480"]);
    assert!(account.done(&["whoami"]).contains("role admin"));
    account.done(&["context", "use", "there"]);
    let list = account.done(&["context", "list"]);
    let current: Vec<&str> = list.lines().filter(|line| line.contains('*')).collect();
    assert!(current.len() == 1 && current[0].contains("there") && list.contains("here"), "{list}");
    assert!(account.done(&["whoami", "--context", "here"]).contains("role admin"));
    assert!(account.refused(&["context", "add", "bad", "--manager", "manager:8480"]).contains("http://"));
    // A key that is given is not sent to the manager of the current context.
    let local = account.refused(&["whoami", "--key-file", &key]);
    assert!(!local.contains("manager.example"), "{local}");
    account.done(&["context", "remove", "there"]);
    assert!(account.refused(&["context", "use", "there"]).contains("there is no context there"));
}
