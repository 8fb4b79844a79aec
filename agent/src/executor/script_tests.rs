//! Custom programs through the whole executor: a lane for each, real programs, a real clock.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use riposte_protocol::command::{Command, Op, Script, ScriptStyle};
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::tests;
use crate::actions::{self, Host};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::journal::{Journal, Record};
use crate::local_policy::{Allowed, LocalPolicy};
use crate::responses_log::ResponsesLog;
use crate::runner::Runner;
use crate::self_protection::SelfProtection;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);

pub(super) struct Bench {
    pub(super) agent: Arc<Agent>,
    pub(super) folder: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new(programs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("active-response/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for (name, text) in programs {
            std::fs::write(bin.join(name), text).unwrap();
            std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o750)).unwrap();
        }
        Self { agent: Self::start(&folder, &[]), folder }
    }

    fn start(folder: &tempfile::TempDir, records: &[Record]) -> Arc<Agent> {
        Self::start_under(folder, records, LocalPolicy::default())
    }

    pub(super) fn start_under(folder: &tempfile::TempDir, records: &[Record], policy: LocalPolicy) -> Arc<Agent> {
        let mut host = Host::new(Runner::new(), folder.path());
        folder.path().clone_into(&mut host.wazuh_home);
        folder.path().clone_into(&mut host.root);
        host.responses_log = Some(ResponsesLog::at(&folder.path().join("active-responses.log")));
        let mut journal = Journal::open(&folder.path().join("journal")).unwrap();
        for record in records {
            journal.add(record.clone());
        }
        journal.commit().unwrap();
        let agent =
            Arc::new(Agent::new(journal, actions::ALL, Clock::simulated(NOW), host, policy, SelfProtection::default()));
        super::start(&agent);
        agent
    }

    pub(super) fn receive(&self, commands: Vec<Command>) {
        self.agent.record(commands.into_iter().map(|command| Record::Received { command: Box::new(command) })).unwrap();
        self.agent.wake_lanes();
    }

    pub(super) async fn result(&self, seq: u64) -> CommandResult {
        let id = Uuid::from_u128(seq.into());
        loop {
            let found = self.agent.read(|state| state.outbox().iter().find(|it| it.command_id == id).cloned());
            match found {
                Some(result) => return result,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.agent.tasks.stop();
    }
}

pub(super) fn command(seq: u64, op: Op, executable: &str, effect: u128) -> Command {
    Command {
        effect: Uuid::from_u128(effect),
        target: Target::parse(TargetKind::Ip, &format!("203.0.113.{effect}")).unwrap(),
        alert: (op == Op::Apply).then(|| json!({"id": "1.2", "data": {"srcip": format!("203.0.113.{effect}")}})),
        script: Some(Script { executable: executable.into(), style: ScriptStyle::Wazuh, undoable: true }),
        ..tests::command(seq, op, "my-block", "nobody", None)
    }
}

#[tokio::test]
async fn sixty_four_programs_run_side_by_side_and_one_that_hangs_holds_up_none() {
    let names: Vec<String> = (1..=64).map(|number| format!("program-{number}")).collect();
    let mut programs: Vec<_> = names.iter().map(|name| (name.as_str(), "#!/bin/sh\nread -r line\nsleep 1\n")).collect();
    programs.push(("hangs", "#!/bin/sh\nsleep 1000\n"));
    let bench = Bench::new(&programs);
    let begun = Instant::now();
    let mut commands = vec![command(1000, Op::Apply, "hangs", 99)];
    commands.extend(names.iter().zip(1..).map(|(name, seq)| command(seq, Op::Apply, name, seq.into())));
    bench.receive(commands);
    for seq in 1..=64 {
        let result = bench.result(seq).await;
        assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, None), "{}", result.message);
        assert_eq!(result.message, "in force, by the word of what was run");
    }
    // One after the other they would take 64 seconds.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_program_applies_and_lifts_with_the_same_alert_even_after_a_restart() {
    let mut bench = Bench::new(&[("block", "#!/bin/bash\nread -r line\necho \"$line\" >> got\n")]);
    bench.receive(vec![command(1, Op::Apply, "block", 7)]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    bench.agent = Bench::start(&bench.folder, &[]);
    bench.receive(vec![command(2, Op::Revert, "block", 7), command(3, Op::Apply, "../../bin/sh", 8)]);
    let lifted = bench.result(2).await;
    assert_eq!((lifted.verified, lifted.message.as_str()), (None, "lifted, by the word of what was run"));
    let refused = bench.result(3).await;
    assert_eq!(refused.outcome, Outcome::Refused, "{}", refused.message);
    let got = bench.read("got");
    let told: Vec<serde_json::Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["command"], &told[1]["command"]), (&json!("add"), &json!("delete")));
    assert_eq!(told[0]["parameters"]["alert"], told[1]["parameters"]["alert"]);
    let log = bench.read("active-responses.log");
    assert_eq!(log.lines().count(), 2, "what was refused was not done: {log}");
    assert!(log.lines().all(|line| line.contains(" active-response/bin/block: {")), "{log}");
}

#[tokio::test]
async fn a_failed_program_is_run_with_delete_and_nothing_is_held() {
    let bench = Bench::new(&[("fails", "#!/bin/bash\nread -r line\necho \"$line\" >> got\n[[ $line == *delete* ]]\n")]);
    bench.receive(vec![command(1, Op::Apply, "fails", 7)]);
    let result = bench.result(1).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(1)), "{}", result.message);
    assert!(result.message.contains("ended with 1"), "{}", result.message);
    assert_eq!(bench.read("got").lines().count(), 2);
    assert_eq!(bench.agent.read(|state| state.held().count()), 0);
}

#[tokio::test]
async fn a_custom_action_cannot_take_the_name_of_a_built_in_one() {
    let bench = Bench::new(&[("block", "#!/bin/sh\n")]);
    bench.receive(vec![Command { action: "firewall-drop".into(), ..command(1, Op::Apply, "block", 7) }]);
    let result = bench.result(1).await;
    assert_eq!(result.outcome, Outcome::Refused);
    assert!(result.message.contains("action of this agent's own"), "{}", result.message);
}

#[tokio::test]
async fn a_program_that_was_running_when_the_agent_was_killed_is_not_run_again_but_cleaned_up() {
    let bench = Bench::new(&[("block", "#!/bin/bash\nread -r line\necho \"$line\" >> got\n")]);
    let mut begun = command(1, Op::Apply, "block", 7);
    begun.until = Some(NOW.plus(Duration::from_hours(1)));
    let held = crate::journal::Held {
        effect: begun.effect,
        action: begun.action.clone(),
        target: begun.target.clone(),
        arguments: vec![],
        until: begun.until,
        term: None,
        undo: json!({"alert": null}),
        script: begun.script.clone(),
        actual: None,
        drifts: 0,
        failing: None,
        in_log: true,
    };
    let records = [
        Record::Received { command: Box::new(begun.clone()) },
        Record::Held { held: Box::new(held) },
        Record::Started { id: begun.jti, at: NOW, evidence: None },
    ];
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    let mut bench = bench;
    bench.agent = Bench::start(&bench.folder, &records);
    let result = bench.result(1).await;
    assert_eq!((result.outcome, result.verified), (Outcome::Failed, None), "{}", result.message);
    let got = bench.read("got");
    assert!(got.lines().count() == 1 && got.contains("delete"), "{got}");
}

#[tokio::test]
async fn a_lifting_that_was_interrupted_is_done_again_because_nothing_shows_it() {
    let mut bench = Bench::new(&[("block", "#!/bin/bash\nread -r line\necho \"$line\" >> got\n")]);
    bench.receive(vec![command(1, Op::Apply, "block", 7)]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    let begun = command(2, Op::Revert, "block", 7);
    let records = [
        Record::Received { command: Box::new(begun.clone()) },
        Record::Started { id: begun.jti, at: NOW, evidence: None },
    ];
    bench.agent = Bench::start(&bench.folder, &records);
    assert_eq!(bench.result(2).await.message, "lifted, by the word of what was run");
    let got = bench.read("got");
    assert!(got.lines().count() == 2 && got.contains("delete"), "{got}");
    assert_eq!(bench.agent.read(|state| state.held().count()), 0);
}

#[tokio::test]
async fn an_unverifiable_program_is_never_rerun_and_an_observing_agent_runs_none() {
    let mut bench = Bench::new(&[("block", "#!/bin/bash\nread -r line\necho \"$line\" >> got\n")]);
    bench.receive(vec![command(1, Op::Apply, "block", 7)]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    // Even the agent's own record of the keys that programs hold is lost.
    std::fs::remove_file(bench.folder.path().join("script-keys.json")).unwrap();
    let policy = |observe| LocalPolicy { observe, verify_every: Duration::from_millis(10), ..LocalPolicy::default() };
    bench.agent = Bench::start_under(&bench.folder, &[], policy(false));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.read("got").lines().count(), 1);
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    bench.agent = Bench::start_under(&bench.folder, &[], policy(true));
    let mut once = command(3, Op::Apply, "block", 9);
    once.script.as_mut().unwrap().undoable = false;
    bench.receive(vec![command(2, Op::Apply, "block", 8), once, command(4, Op::Revert, "block", 7)]);
    for seq in [2, 3] {
        let told = bench.result(seq).await.message;
        assert!(told.starts_with("the agent only observes; it would have run: active-response/bin/block"), "{told}");
    }
    assert_eq!(bench.result(4).await.message, "lifted, by the word of what was run", "that only ever restores");
    let got = bench.read("got");
    assert!(got.lines().count() == 2 && got.contains("delete"), "{got}");
}

#[tokio::test]
async fn the_local_policy_holds_for_custom_actions_and_their_programs() {
    let mut bench = Bench::new(&[("block", "#!/bin/sh\ntouch ran\n"), ("other", "#!/bin/sh\ntouch ran\n")]);
    bench.receive(vec![command(1, Op::Apply, "block", 7)]);
    assert_eq!(bench.result(1).await.outcome, Outcome::Succeeded);
    bench.agent.tasks.stop();
    assert!(bench.agent.tasks.finish(Duration::from_secs(10)).await);
    std::fs::remove_file(bench.folder.path().join("ran")).unwrap();
    let mut policy = LocalPolicy {
        allowed_actions: Some(vec![
            Allowed::Custom { action: "my-block".into(), executable: "block".into() },
            Allowed::Custom { action: "my-block".into(), executable: "other".into() },
        ]),
        denied_actions: vec!["script:other".into()],
        ..LocalPolicy::default()
    };
    policy.protected.addresses = vec!["203.0.113.9/32".parse().unwrap()];
    bench.agent = Bench::start_under(&bench.folder, &[], policy);
    let mut network = command(5, Op::Apply, "block", 10);
    network.target = Target::parse_network("203.0.113.0/24").unwrap();
    bench.receive(vec![
        Command { action: "your-block".into(), ..command(2, Op::Apply, "block", 8) },
        command(3, Op::Apply, "other", 8),
        command(4, Op::Apply, "block", 9),
        network,
    ]);
    for (seq, reason) in
        [(2, "does not allow your-block"), (3, "does not allow script:other"), (4, "protected"), (5, "protected")]
    {
        let result = bench.result(seq).await;
        assert_eq!(result.outcome, Outcome::Refused);
        assert!(result.message.contains(reason), "{}", result.message);
    }
    assert!(!bench.folder.path().join("ran").exists());
    let available = |action: &str| {
        bench.agent.capabilities().into_iter().find(|it| it.action == action).map(|it| (it.available, it.reason))
    };
    assert_eq!(available("script:block"), Some((true, None)));
    let forbidden = |name: &str| Some((false, Some(format!("the local policy of this host does not allow {name}"))));
    assert_eq!(available("script:other"), forbidden("script:other"));
    assert_eq!(available("log-only"), forbidden("log-only"));
    bench.receive(vec![command(6, Op::Revert, "block", 7)]);
    assert_eq!(bench.result(6).await.outcome, Outcome::Succeeded, "lifting is always allowed");
}

#[tokio::test]
async fn programs_of_another_folder_run_there_under_their_whole_name() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("block");
    std::fs::write(&path, "#!/bin/sh\necho \"$0\" > got\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
    let mut host = Host::new(Runner::new(), state.path());
    host.scripts_dir = Some(folder.path().into());
    let journal = Journal::open(&state.path().join("journal")).unwrap();
    let (policy, self_protection) = (LocalPolicy::default(), SelfProtection::default());
    let agent = Arc::new(Agent::new(journal, actions::ALL, Clock::simulated(NOW), host, policy, self_protection));
    super::start(&agent);
    assert!(agent.capabilities().iter().any(|capability| capability.action == "script:block"));
    let bench = Bench { agent, folder };
    bench.receive(vec![command(1, Op::Apply, "block", 7)]);
    let result = bench.result(1).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{}", result.message);
    assert_eq!(bench.read("got").trim_end(), path.to_str().unwrap());
}

/// Wazuh's handshake, after some seconds of computing; an empty read is retried, as in the
/// published template.
const SLOW_ASKER: &str = r#"#!/usr/bin/python3
import json, sys, time
told = json.loads(sys.stdin.readline())
if told["command"] == "add":
    time.sleep(3)
    print(json.dumps({"version": 1, "origin": {"name": "x", "module": "active-response"}, "command": "check_keys",
                      "parameters": {"keys": ["203.0.113.9"]}}), flush=True)
    answer = ""
    while not answer:
        answer = sys.stdin.readline()
    open("slow.log", "a").write(json.loads(answer)["command"] + "\n")
"#;

#[tokio::test]
async fn field_02_a_program_that_thinks_before_it_asks_gets_its_answer_and_a_reader_to_the_end_does_not_hang() {
    let bench = Bench::new(&[("slow", SLOW_ASKER), ("to-end", "#!/bin/sh\ncat > to-end.log\n")]);
    let begun = Instant::now();
    bench.receive(vec![command(1, Op::Apply, "slow", 9), command(2, Op::Apply, "to-end", 10)]);
    assert_eq!(bench.result(2).await.outcome, Outcome::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(bench.read("to-end.log").contains("203.0.113.10"));
    let result = bench.result(1).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(bench.read("slow.log"), "continue\n");
    assert_eq!(bench.agent.read(|state| state.held().count()), 2, "the response is in force");
}
