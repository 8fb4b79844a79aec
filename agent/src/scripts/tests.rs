//! Programs in the styles that real scripts use, each run as Wazuh runs it; and the names that the
//! manager must not use.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use riposte_protocol::target::{Target, TargetKind};
use uuid::Uuid;

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::actions::Transcript;
use crate::runner::Runner;

/// A home like Wazuh's, with programs in it.
struct Home {
    host: Host,
    folder: tempfile::TempDir,
}

/// Waits until the program has read its input, and stores it.
const READ_ONE_LINE: &str = "#!/bin/bash\nread -r line\nprintf '%s\\n' \"$line\" >> got\n";
const PYTHON_CHECKS_KEYS: &str = r#"#!/usr/bin/python3
import json, os, sys
message = json.loads(sys.stdin.readline())
key = message["parameters"]["alert"]["data"]["srcip"]
def say(text):
    with open("got", "a") as got:
        got.write(text + "\n")
say(sys.argv[0] + " " + os.getcwd() + " " + message["command"] + " " + message["parameters"]["program"])
if message["command"] == "add":
    for _ in range(int(os.environ.get("ASK", "1"))):
        print(json.dumps({"version": 1, "origin": {"name": "x", "module": "active-response"},
                          "command": "check_keys", "parameters": {"keys": [key]}}), flush=True)
        answer = json.loads(sys.stdin.readline())
        say(answer["command"])
"#;

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(FOLDER)).unwrap();
        let mut host = Host::new(Runner::new(), folder.path());
        folder.path().clone_into(&mut host.wazuh_home);
        Self { host, folder }
    }

    fn with(programs: &[(&str, &str)]) -> Self {
        let home = Self::new();
        for (name, text) in programs {
            home.write(name, text, 0o750);
        }
        home
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(&format!("{FOLDER}/{name}"));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn got(&self) -> String {
        std::fs::read_to_string(self.path("got")).unwrap_or_default()
    }

    fn order(&self, executable: &str, effect: u128) -> Order<'_> {
        let script = Script { executable: executable.into(), style: ScriptStyle::Wazuh, undoable: true };
        Order {
            host: &self.host,
            script,
            effect: Uuid::from_u128(effect),
            target: Target::parse(TargetKind::Ip, "203.0.113.7").unwrap(),
            alert: None,
            arguments: vec![],
            transcript: Mutex::default(),
        }
    }
}

struct Order<'a> {
    host: &'a Host,
    script: Script,
    effect: Uuid,
    target: Target,
    alert: Option<Value>,
    arguments: Vec<String>,
    transcript: Mutex<Transcript>,
}

impl Order<'_> {
    fn attempt(&self) -> Attempt<'_> {
        let mut attempt = Attempt::new(self.host, &self.transcript, &self.target);
        (attempt.script, attempt.effect) = (Some(&self.script), self.effect);
        (attempt.alert, attempt.arguments) = (self.alert.as_ref(), &self.arguments);
        attempt
    }

    async fn apply(&self) -> Result<(), ActionError> {
        let attempt = self.attempt();
        SCRIPT.prepare(&attempt).await?;
        SCRIPT.apply(&attempt).await
    }

    async fn revert(&self) {
        SCRIPT.revert(&self.attempt()).await.unwrap();
        assert!(SCRIPT.is_lifted(&self.attempt()).await.unwrap());
    }

    fn output(&self) -> String {
        self.transcript.lock().unwrap().output.clone()
    }
}

#[tokio::test]
async fn a_program_that_reads_one_line_receives_wazuhs_message() {
    let home = Home::with(&[("one-line", READ_ONE_LINE)]);
    let mut order = home.order("one-line", 1);
    order.alert = Some(json!({"rule": {"id": "5712"}, "data": {"srcip": "203.0.113.7"}, "full_log": "a\nb\u{7}"}));
    order.arguments = vec!["-a".into(), "$(id)".into()];
    order.apply().await.unwrap();
    order.revert().await;
    let got = home.got();
    let told: Vec<Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = |command: &str| {
        json!({
            "version": 1, "origin": {"name": "", "module": "wazuh-execd"}, "command": command,
            "parameters": {"extra_args": ["-a", "$(id)"], "alert": order.alert, "program": "active-response/bin/one-line"},
        })
    };
    assert_eq!(told, [expected("add"), expected("delete")]);
    // In Wazuh's order: a program may search the line as text.
    let first = got.lines().next().unwrap();
    let begin =
        r#"{"version":1,"origin":{"name":"","module":"wazuh-execd"},"command":"add","parameters":{"extra_args":["#;
    assert!(first.starts_with(begin), "{first}");
}

#[tokio::test]
async fn a_response_by_hand_gets_the_least_of_an_alert_and_a_later_delete_the_same_alert() {
    let home = Home::with(&[("one-line", READ_ONE_LINE)]);
    let order = home.order("one-line", 1);
    order.apply().await.unwrap();
    let told: Value = serde_json::from_str(&home.got()).unwrap();
    assert_eq!(told.pointer("/parameters/alert/data/srcip"), Some(&json!("203.0.113.7")));
    assert_eq!(told.pointer("/parameters/alert/rule/id"), Some(&json!("0")));

    // The alert is in the journal, not in the command that lifts.
    let mut order = home.order("one-line", 2);
    order.alert = Some(json!({"id": "1.2", "data": {"dstuser": "alice"}}));
    let undo = SCRIPT.prepare(&order.attempt()).await.unwrap();
    order.alert = None;
    let mut attempt = order.attempt();
    attempt.undo = Some(&undo);
    SCRIPT.revert(&attempt).await.unwrap();
    let told: Value = serde_json::from_str(home.got().lines().last().unwrap()).unwrap();
    assert_eq!(told.pointer("/parameters/alert/id"), Some(&json!("1.2")));
}

#[tokio::test]
async fn a_repeated_key_is_answered_with_abort_and_only_the_last_effect_is_deleted() {
    let home = Home::with(&[("block.py", PYTHON_CHECKS_KEYS)]);
    let (first, second) = (home.order("block.py", 1), home.order("block.py", 2));
    first.apply().await.unwrap();
    second.apply().await.unwrap();
    let here = home.folder.path().canonicalize().unwrap();
    let begins = |command: &str| {
        format!("active-response/bin/block.py {} {command} active-response/bin/block.py", here.display())
    };
    let lines = |got: &str| got.lines().map(str::to_owned).collect::<Vec<_>>();
    let (add, delete) = (begins("add"), begins("delete"));
    assert_eq!(lines(&home.got()), [&add, "continue", &add, "abort"]);
    first.revert().await;
    assert_eq!(home.got().lines().count(), 4, "the second still holds it");
    second.revert().await;
    assert_eq!(home.got().lines().last(), Some(delete.as_str()));
    // A program that cannot undo never sees a repeated alert.
    let mut once = [home.order("block.py", 3), home.order("block.py", 4)];
    for order in &mut once {
        order.script.undoable = false;
        order.apply().await.unwrap();
        assert_eq!(home.got().lines().last(), Some("continue"));
    }
}

#[tokio::test]
async fn a_program_that_asks_twice_is_answered_the_same() {
    let twice = PYTHON_CHECKS_KEYS.replace("os.environ.get(\"ASK\", \"1\")", "2");
    let home = Home::with(&[("twice.py", &twice)]);
    home.order("twice.py", 1).apply().await.unwrap();
    home.order("twice.py", 2).apply().await.unwrap();
    let got = home.got();
    let answers: Vec<_> = got.lines().filter(|line| !line.contains('/')).collect();
    assert_eq!(answers, ["continue", "continue", "abort", "abort"]);
}

#[tokio::test]
async fn programs_that_read_to_the_end_or_print_nothing_do_not_hang() {
    let home = Home::with(&[
        ("to-end", "#!/bin/sh\ncat > got\n"),
        ("to-end.py", "#!/usr/bin/python3\nimport sys\nprint(len(sys.stdin.read()) > 100)\n"),
        ("silent", "#!/bin/sh\nexit 0\n"),
        // Without a `#!` line, `execvp` has a shell read it.
        ("bare", "exit 0\n"),
    ]);
    let begun = Instant::now();
    let orders = ["to-end", "to-end.py", "silent", "bare"].map(|name| home.order(name, 1));
    for applied in join_all(orders.iter().map(Order::apply)).await {
        applied.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(home.got().contains("\"add\""));
    assert_eq!(orders[1].output().trim(), "True");
}

#[tokio::test]
async fn megabytes_of_output_are_drained_and_cut() {
    let script = "#!/bin/bash\nread -r l\nhead -c 3000000 /dev/zero | tr '\\0' x\nhead -c 3000000 /dev/zero >&2\n";
    let home = Home::with(&[("loud", script)]);
    let order = home.order("loud", 1);
    order.apply().await.unwrap();
    assert!(order.output().len() <= riposte_protocol::message::MAX_OUTPUT_BYTES && order.output().contains("[cut:"));
}

#[tokio::test]
async fn a_daemon_that_is_left_behind_neither_hangs_nor_is_ended() {
    // It keeps the pipes open; the program itself ends at once.
    let home = Home::with(&[("daemon", "#!/bin/bash\nread -r l\nsleep 1000 &\necho $! > pid\nexit 0\n")]);
    let begun = Instant::now();
    home.order("daemon", 1).apply().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let pid: i32 = std::fs::read_to_string(home.path("pid")).unwrap().trim().parse().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn an_endless_program_is_killed_and_others_continue() {
    let stubborn = "#!/bin/bash\ntrap '' TERM\nwhile true; do sleep 1000; done\n";
    let home = Home::with(&[
        ("stubborn", stubborn),
        ("polite", "#!/bin/bash\ntrap 'echo bye; exit 1' TERM\nsleep 1000 & wait\n"),
    ]);
    let order = home.order("stubborn", 1);
    for (name, said) in [("stubborn", ""), ("polite", "")] {
        let program = Program::new(&format!("{FOLDER}/{name}"), []).stdin("{}\n").directory(home.folder.path());
        let begun = Instant::now();
        let mut answer = |_: &str| None;
        let error =
            home.host.runner.converse(&program.timeout(Duration::from_millis(300)), &mut answer).await.unwrap_err();
        assert!(error.to_string().contains("did not end within 0.3 s and was killed"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{name}: {:?} {said}", begun.elapsed());
    }
    drop(order);
}

#[tokio::test]
async fn a_failure_is_read_and_reported() {
    let home = Home::with(&[("fails", "#!/bin/sh\necho 'no such thing' >&2\nexit 1\n")]);
    let order = home.order("fails", 1);
    let error = order.apply().await.unwrap_err().to_string();
    assert_eq!(error, "active-response/bin/fails ended with 1: no such thing");
    assert_eq!(order.transcript.lock().unwrap().exit_code, Some(1));
    assert!(!home.host.keys.knows(order.effect), "nothing is held");
}

#[tokio::test]
async fn a_program_from_before_4_2_gets_everything_in_its_arguments() {
    let home = Home::with(&[("old.sh", "#!/bin/sh\nprintf '%s|' \"$@\" >> got\necho >> got\n")]);
    let mut order = home.order("old.sh", 1);
    order.script.style = ScriptStyle::Argv;
    order.apply().await.unwrap();
    order.alert = Some(json!({
        "id": "1787220930.4711001", "rule": {"id": "5763"}, "location": "/var/log/auth.log\n; id",
        "data": {"dstuser": "alice", "srcip": "198.51.100.1"},
    }));
    order.arguments = vec!["extra one".into()];
    order.revert().await;
    assert_eq!(
        home.got().lines().collect::<Vec<_>>(),
        [
            "add|-|203.0.113.7|(from_the_server)|(no_rule_id)|-|-|",
            "delete|alice|203.0.113.7|1787220930.4711001|5763|/var/log/auth.log_; id|-|extra one|",
        ]
    );
}

#[tokio::test]
async fn a_program_of_wazuh_5_gets_its_finding_flat() {
    let home = Home::with(&[("five", READ_ONE_LINE)]);
    let mut order = home.order("five", 1);
    order.script.style = ScriptStyle::Wazuh5;
    order.apply().await.unwrap();
    order.alert = Some(json!({"source": {"ip": "203.0.113.7"}, "wazuh": {"active_response": {"name": "x"}}}));
    order.revert().await;
    let got = home.got();
    let told: Vec<Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told[0], json!({"command": "enable", "source": {"ip": "203.0.113.7"}}));
    assert_eq!(
        told[1],
        json!({"command": "disable", "source": {"ip": "203.0.113.7"}, "wazuh": {"active_response": {"name": "x"}}})
    );
}

#[tokio::test]
async fn the_manager_can_name_nothing_but_a_plain_file_of_the_folder() {
    let home = Home::with(&[("good", "#!/bin/sh\n")]);
    home.write("not-executable", "#!/bin/sh\n", 0o640);
    home.write("open-to-all", "#!/bin/sh\n", 0o757);
    home.write("foreign", "#!/bin/sh\n", 0o755);
    std::os::unix::fs::chown(home.path(&format!("{FOLDER}/foreign")), Some(41_000), None).unwrap();
    home.write("groups", "#!/bin/sh\n", 0o770);
    home.write("privileged", "#!/bin/sh\n", 0o4755);
    std::os::unix::fs::symlink("/bin/sh", home.path(&format!("{FOLDER}/link"))).unwrap();
    std::fs::create_dir(home.path(&format!("{FOLDER}/folder"))).unwrap();
    for (name, reason) in [
        ("../../bin/sh", "is not the name of a program"),
        ("/bin/sh", "is not the name of a program"),
        ("", "is not the name of a program"),
        (".", "is not the name of a program"),
        ("..", "is not the name of a program"),
        ("good\0", "is not the name of a program"),
        ("good x", "is not the name of a program"),
        ("$(id)", "is not the name of a program"),
        ("-x", "is not the name of a program"),
        ("missing", "cannot be run"),
        ("link", "is not a regular file"),
        ("folder", "is not a regular file"),
        ("not-executable", "is not executable"),
        ("open-to-all", "chmod go-w "),
        ("groups", "chmod go-w "),
        ("privileged", "chmod u-s,g-s "),
        ("foreign", "chown root "),
    ] {
        let refusal = home.order(name, 1).apply().await.unwrap_err();
        assert!(matches!(&refusal, ActionError::Refused(said) if said.contains(reason)), "{name}: {refusal}");
    }
    for number in 0..300 {
        home.write(&format!("many-{number:03}"), "#!/bin/sh\n", 0o750);
    }
    home.write(&"l".repeat(58), "#!/bin/sh\n", 0o750);
    let told = crate::actions::capabilities(crate::actions::ALL, &home.host, false);
    assert!(told.len() <= 256 && told.iter().all(|it| (1..=64).contains(&it.action.len())), "{}", told.len());
    for number in 0..300 {
        std::fs::remove_file(home.path(&format!("{FOLDER}/many-{number:03}"))).unwrap();
    }
    let told: Vec<_> = capabilities(&home.host).into_iter().map(|capability| capability.action).collect();
    assert_eq!(told, ["script:good"]);
    // Any part of the path: an account that can change it can put another program there.
    for part in [FOLDER, "active-response", ""] {
        let folder = home.path(part);
        let folder = if part.is_empty() { home.folder.path().to_owned() } else { folder };
        for (mode, owner, mend) in [(0o777, 0, "chmod go-w"), (0o770, 0, "chmod go-w"), (0o755, 41_000, "chown root")] {
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&folder, Some(owner), None).unwrap();
            let refusal = home.order("good", 1).apply().await.unwrap_err().to_string();
            assert!(refusal.contains(&format!("{mend} {}", folder.display())), "{refusal}");
            assert!(capabilities(&home.host).is_empty());
            std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o750)).unwrap();
    }
    home.order("good", 1).apply().await.unwrap();
}
