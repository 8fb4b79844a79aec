//! Kills real processes: the right one, and never another with its number.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use riposte_protocol::command::Command;
use riposte_protocol::message::{CommandResult, MAX_EVIDENCE_BYTES, Outcome};
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::actions::process_stat::ProcessStat;
use crate::actions::{ALL, Transcript, own_namespace};
use crate::actions::{ActionError, evidence};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::executor;
use crate::journal::{Journal, Record};
use crate::local_policy::{LocalPolicy, Protected};
use crate::runner::Runner;
use crate::self_protection::SelfProtection;

async fn kill(pid: u32, arguments: &[&str]) -> Result<bool, ActionError> {
    kill_unless_protected(pid, arguments, &LocalPolicy::default()).await
}

async fn kill_unless_protected(pid: u32, arguments: &[&str], policy: &LocalPolicy) -> Result<bool, ActionError> {
    let host = Host::new(Runner::new(), std::path::Path::new("/nonexistent"));
    let target = Target::parse(TargetKind::Process, &pid.to_string()).unwrap();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let transcript = Mutex::<Transcript>::default();
    let mut attempt = Attempt::new(&host, &transcript, &target);
    (attempt.arguments, attempt.policy) = (&arguments, Some(policy));
    KillProcess.apply(&attempt).await?;
    KillProcess.is_in_force(&attempt).await
}

fn sleeper() -> tokio::process::Child {
    tokio::process::Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn a_real_process_is_killed_and_seen_to_be_gone() {
    let mut process = sleeper();
    let pid = process.id().unwrap();
    let refusal = kill(pid, &["name=cat"]).await.unwrap_err().to_string();
    assert_eq!(refusal, format!("process {pid} is 'sleep', not what was meant"));
    assert_eq!(process.try_wait().unwrap(), None);
    assert_eq!(kill(pid, &["name=sleep"]).await, Ok(true));
    let status = process.wait().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let refusal = kill(pid, &[]).await.unwrap_err();
    assert!(matches!(&refusal, ActionError::Refused(reason) if reason.contains("no process")), "{refusal}");
}

#[tokio::test]
async fn protection_is_checked_on_the_held_process() {
    let mut process = sleeper();
    let protected = Protected { processes: vec!["sleep".into()], ..Protected::default() };
    let policy = LocalPolicy { protected, ..LocalPolicy::default() };
    let refusal = kill_unless_protected(process.id().unwrap(), &[], &policy).await.unwrap_err();
    assert!(matches!(&refusal, ActionError::Refused(reason) if reason.contains("sleep is protected")), "{refusal}");
    assert_eq!(process.try_wait().unwrap(), None);
}

#[tokio::test]
async fn the_agent_its_parent_and_the_kernel_are_refused() {
    let own = std::process::id();
    let parent = nix::unistd::getppid().as_raw().try_into().unwrap();
    for pid in [own, parent] {
        let refusal = kill(pid, &[]).await.unwrap_err();
        assert!(matches!(&refusal, ActionError::Refused(reason) if reason.contains("protected")), "{refusal}");
    }
    // kthreadd, where it is visible.
    if std::fs::read_to_string("/proc/2/stat").is_ok_and(|stat| ProcessStat::parse(&stat).unwrap().is_kernels) {
        assert!(kill(2, &[]).await.unwrap_err().to_string().contains("thread of the kernel"));
    }
}

#[test]
fn a_name_can_hold_anything() {
    let stat = "4711 (a) S (b)) S 1 2 3 4 5 2097152 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
    let stat = ProcessStat::parse(stat).unwrap();
    assert_eq!((stat.name.as_str(), stat.is_kernels, stat.started), ("a) S (b)", true, 4242));
    assert!(ProcessStat::parse("4711 (x) Z 1 2 3 4 5 0 7 8 9 10 11 12 13 14 15 16 17 18 1 20").unwrap().is_dead);
    assert_eq!(ProcessStat::parse("garbage"), None);
}

/// A whole agent, on the system's clocks.
struct Bench {
    agent: Arc<Agent>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(records: Vec<Record>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("journal")).unwrap();
        for record in records {
            journal.add(record);
        }
        journal.commit().unwrap();
        let host = Host::new(Runner::new(), folder.path());
        let agent = Agent::new(journal, ALL, Clock::system(), host, LocalPolicy::default(), SelfProtection::default());
        let agent = Arc::new(agent);
        executor::start(&agent);
        Self { agent, _folder: folder }
    }

    async fn result(&self, command: &Command) -> CommandResult {
        loop {
            let told = self.agent.outbox.notified();
            let found = self.agent.read(|state| state.outbox().iter().find(|it| it.command_id == command.jti).cloned());
            match found {
                Some(result) => return result,
                None => told.await,
            }
        }
    }

    async fn order(&self, command: &Command) -> CommandResult {
        self.agent.record([Record::Received { command: Box::new(command.clone()) }]).unwrap();
        self.agent.wake_lanes();
        tokio::time::timeout(Duration::from_secs(20), self.result(command)).await.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.agent.tasks.stop();
    }
}

fn command(seq: u64, process: u32, as_of: Option<Timestamp>, issued: Timestamp, arguments: &[&str]) -> Command {
    Command {
        iss: riposte_protocol::MANAGER.into(),
        aud: Uuid::nil(),
        jti: Uuid::from_u128(seq.into()),
        seq,
        iat: issued.as_secs(),
        exp: issued.as_secs() + 300,
        op: Op::Apply,
        effect: Uuid::from_u128(u128::from(seq) << 64),
        action: "kill-process".into(),
        target: Target::parse(TargetKind::Process, &process.to_string()).unwrap(),
        arguments: arguments.iter().map(|&argument| argument.into()).collect(),
        until: None,
        response: Uuid::nil(),
        alert: None,
        script: None,
        as_of,
        urgent: false,
    }
}

#[tokio::test]
async fn field_07_a_late_kill_refuses_the_process_that_was_given_the_number_meanwhile() {
    if own_namespace::is_inside() {
        return late_kill().await;
    }
    let name =
        "actions::kill_process::tests::field_07_a_late_kill_refuses_the_process_that_was_given_the_number_meanwhile";
    own_namespace::run_again(name, &["sleep"], &["--pid", "--fork", "--kill-child", "--mount-proc"], ":").await;
}

async fn late_kill() {
    let (bench, clock) = (Bench::new(vec![]), Clock::system());
    let mut meant = sleeper();
    let number = meant.id().unwrap();
    // Longer than any tolerance between the two.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let alert_at = clock.now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    meant.kill().await.unwrap();
    let mut innocent = loop {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let innocent = tokio::process::Command::new("sleep").arg("2000").kill_on_drop(true).spawn().unwrap();
        if innocent.id() == Some(number) {
            break innocent;
        }
    };
    let name = ["name=sleep"];
    let late = bench.order(&command(1, number, Some(alert_at), clock.now(), &name)).await;
    assert_eq!(late.outcome, Outcome::Refused);
    assert!(late.message.contains("it is another process with the same number"), "{}", late.message);
    // An older manager sends only when it issued the command.
    let earlier = Timestamp::from_millis(alert_at.as_millis() - 2000);
    let old = bench.order(&command(2, number, None, earlier, &name)).await;
    assert!(old.message.contains("it is another process with the same number"), "{}", old.message);
    let start = clock.moment();
    let before_start = start.wall.minus(start.since_boot + Duration::from_mins(10));
    let rebooted = bench.order(&command(3, number, Some(before_start), clock.now(), &name)).await;
    assert!(rebooted.message.contains("process numbers have changed since"), "{}", rebooted.message);
    let unnamed = bench.order(&command(4, number, Some(clock.now()), clock.now(), &[])).await;
    assert!(unnamed.message.contains("a number alone"), "{}", unnamed.message);
    let elsewhere = bench.order(&command(5, number, Some(clock.now()), clock.now(), &["path=/bin/nc"])).await;
    assert!(elsewhere.message.contains("not what was meant"), "{}", elsewhere.message);
    assert_eq!(innocent.try_wait().unwrap(), None, "it is alive after all of this");

    let program = Runner::find("sleep").unwrap().canonicalize().unwrap();
    let path = format!("path={}", program.display());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let done = bench.order(&command(6, number, Some(clock.now()), clock.now(), &[&path, "name=sleep"])).await;
    assert_eq!((done.outcome, done.verified), (Outcome::Succeeded, Some(true)), "{}", done.message);
    innocent.wait().await.unwrap();
    let evidence = done.evidence.unwrap();
    assert_eq!(evidence["arguments"], json!(["sleep", "2000"]));
    assert_eq!(evidence["executable"], program.to_str().unwrap());
    assert_eq!(evidence["sha256"], evidence::hash(&program).unwrap());
    assert_eq!(evidence["parent"]["process"], std::process::id());
    assert_eq!(evidence["account"]["uid"], 0);
    assert!(evidence["control_group"].as_str().unwrap().contains("::/"), "{evidence}");
    assert_eq!(evidence["sockets"], json!([]));
}

#[tokio::test]
async fn connections_of_a_process_are_evidence_and_its_texts_control_no_terminal() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = "import socket, sys, time; s = socket.create_connection(sys.argv[1].rsplit(':', 1)); print(flush=True); time.sleep(1000)";
    let mut process = tokio::process::Command::new("python3")
        .args(["-c", script, &address, "\u{1b}[2J"])
        .args(vec!["\u{7}".repeat(3000); 20])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut connected = [0];
    tokio::io::AsyncReadExt::read_exact(&mut process.stdout.take().unwrap(), &mut connected).await.unwrap();
    let bench = Bench::new(vec![]);
    let clock = Clock::system();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let name = format!("name={}", crate::platform::processes::names(&process.id().unwrap().to_string())[0]);
    let done = bench.order(&command(1, process.id().unwrap(), Some(clock.now()), clock.now(), &[&name])).await;
    assert_eq!(done.outcome, Outcome::Succeeded, "{}", done.message);
    let evidence = done.evidence.unwrap();
    assert_eq!(evidence["sockets"][0]["remote"], address.as_str(), "{evidence}");
    assert_eq!(
        (&evidence["sockets"][0]["protocol"], &evidence["sockets"][0]["state"]),
        (&json!("tcp"), &json!("established"))
    );
    assert_eq!(evidence["arguments"][4], "\\u{1b}[2J");
    assert!(evidence.to_string().len() <= MAX_EVIDENCE_BYTES);
    assert!(!evidence.to_string().contains("\\u001b"));
}

#[tokio::test]
async fn evidence_survives_a_crash_and_identifies_the_killed_process() {
    let mut later = sleeper();
    let clock = Clock::system();
    let begun = command(1, later.id().unwrap(), Some(clock.now()), clock.now(), &["name=sleep"]);
    let evidence = Box::new(json!({"kind": "process", "started_ticks": 1, "arguments": ["evil"]}));
    let records = vec![
        Record::Received { command: Box::new(begun.clone()) },
        Record::Started { id: begun.jti, at: clock.now(), evidence: Some(evidence.clone()) },
    ];
    let result = Bench::new(records).result(&begun).await;
    assert_eq!(result.evidence, Some(evidence));
    assert_eq!((result.outcome, result.verified), (Outcome::Succeeded, Some(true)), "{}", result.message);
    assert_eq!(later.try_wait().unwrap(), None);
}
