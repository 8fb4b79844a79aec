//! The crash campaign on real processes. The kernel kills the program at a chosen byte of its
//! journal: a write beyond the limit on a file's size (`RLIMIT_FSIZE`) is cut at exactly that byte,
//! and the next one causes SIGXFSZ. Others die of SIGKILL between two messages. The log lines of
//! `log-only` show what was executed, and when.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use riposte_protocol::command::Op;
use riposte_protocol::message::{FromAgent, ToAgent};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use tokio::process::Child;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::{Manager, PATIENCE, PROMPT, Stream, agent, ids};

/// Duration of the effect with an end.
const LASTS: Duration = Duration::from_millis(1500);
/// Number of processes that run at the same time.
const AT_ONCE: usize = 8;

/// How the first run ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// At this byte of the journal.
    AtByte(u64),
    /// After so many messages to the manager.
    AfterMessages(usize),
}

/// What the manager of a round has learnt.
#[derive(Default)]
struct Known {
    acked: Vec<Uuid>,
    results: Vec<Uuid>,
    ended: bool,
    /// Whether the agent of this connection did not hold the first effect when it connected.
    was_not_held: bool,
}

impl Known {
    fn is_complete(&self) -> bool {
        self.ended && ids(&[1, 2, 3]).iter().all(|id| self.results.contains(id))
    }
}

#[tokio::test]
async fn killed_at_any_byte_of_its_journal_the_program_keeps_its_promises() {
    // The journal of this scenario has about 2,800 bytes; every round crashes at another byte.
    let deaths: Vec<Death> = (0..32).map(|round| Death::AtByte(90 + round * 83)).collect();
    let mut killed = 0;
    for some in deaths.chunks(AT_ONCE) {
        let signals = join_all(some.iter().map(|death| round(*death))).await;
        killed += signals.into_iter().filter(|signal| *signal == Some(Signal::SIGXFSZ as i32)).count();
    }
    assert!(killed >= 24, "the kernel killed {killed} of them: the journal has become shorter");
}

#[tokio::test]
async fn killed_between_two_messages_the_program_keeps_its_promises() {
    let signals = join_all((1..=8).map(|messages| round(Death::AfterMessages(messages)))).await;
    let killed = signals.into_iter().filter(|signal| *signal == Some(Signal::SIGKILL as i32)).count();
    assert!(killed >= 5, "{killed}");
}

/// One round; returns the signal that ended the first run.
async fn round(death: Death) -> Option<i32> {
    let (manager, _) = Manager::with_agent().await;
    let logs = [manager.state.path().join("log-1"), manager.state.path().join("log-2")];
    let until = wall_clock().plus(LASTS);
    let mut known = Known::default();

    let (first, copying) = start(&manager, death, &logs[0]);
    let signal = live(&manager, first, death, until, &mut known).await;
    copying.join().unwrap();
    // The second run is not killed; it completes the work.
    let (second, copying) = start(&manager, Death::AfterMessages(usize::MAX), &logs[1]);
    live(&manager, second, Death::AfterMessages(usize::MAX), until, &mut known).await;
    copying.join().unwrap();

    let log: String = logs.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let times = |what: &str, target: &str| -> Vec<Timestamp> {
        let lines = log.lines().filter(|line| line.contains(what) && line.contains(target));
        lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
    };
    for target in ["203.0.113.1", "203.0.113.2"] {
        let applied = times("log-only: applied", target);
        assert!(applied.len() <= 1, "{death:?}: no command runs twice: {log}");
    }
    let lifted = times("log-only: reverted", "203.0.113.1");
    if !times("log-only: applied", "203.0.113.1").is_empty() {
        assert!(!lifted.is_empty(), "{death:?}: no undo is lost: {log}");
    }
    // An execution that a crash interrupted is found in force, so nothing is ever lifted before its
    // end.
    assert!(lifted.iter().all(|at| *at >= until), "{death:?}: no undo is early: {log}");
    let status = agent(manager.state.path(), &["status", "--json"]).output().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["effects"].as_array().unwrap().len(), 0, "{death:?}: {log}");
    signal
}

/// Starts the program; the thread ends when all its output is in `log`.
fn start(manager: &Manager, death: Death, log: &Path) -> (Child, JoinHandle<()>) {
    let program = env!("CARGO_BIN_EXE_riposte-agent");
    let mut command = tokio::process::Command::new("prlimit");
    if let Death::AtByte(byte) = death {
        command.arg(format!("--fsize={byte}"));
    }
    command.args(["--core=0", program, "run", "--transport", "stream", "--state-dir"]).arg(manager.state.path());
    command.env("NO_COLOR", "1").stdin(std::process::Stdio::null()).kill_on_drop(true);
    // The limit is on every file, the log too: it goes through a pipe.
    let (reader, writer) = std::io::pipe().unwrap();
    command.stderr(writer);
    let mut log = File::create(log).unwrap();
    let copying = std::thread::spawn(move || {
        let mut reader = reader;
        std::io::copy(&mut reader, &mut log).unwrap();
    });
    (command.spawn().unwrap(), copying)
}

/// One run, until it crashes or the scenario is complete; returns the signal that ended it.
async fn live(manager: &Manager, mut agent: Child, death: Death, until: Timestamp, known: &mut Known) -> Option<i32> {
    let mut messages = 0;
    // An agent that crashes before it has connected leaves nothing to accept.
    let mut stream = tokio::select! {
        stream = manager.accept() => stream,
        status = agent.wait() => return status.unwrap().signal(),
    };
    while let Some(message) = hear(&mut stream).await {
        messages += 1;
        if let Death::AfterMessages(last) = death
            && messages == last
        {
            agent.start_kill().unwrap();
            break;
        }
        match message {
            FromAgent::Hello { effects, .. } => {
                let holds = effects.iter().flatten().any(|effect| effect.effect == effect_of(1));
                known.ended = known.results.contains(&Uuid::from_u128(1)) && !holds;
                known.was_not_held = !holds;
                say(&mut stream, &ToAgent::Settings { settings: PROMPT }).await;
                say(&mut stream, &ToAgent::Commands { commands: owed(manager, until, known) }).await;
            }
            FromAgent::Ack { command_ids } => known.acked.extend(command_ids),
            FromAgent::Result { results } => {
                let ids: Vec<Uuid> = results.iter().map(|result| result.command_id).collect();
                known.results.extend(&ids);
                // A failed apply has no effect that ends.
                known.ended |= results.iter().any(|result| {
                    result.command_id == Uuid::from_u128(1)
                        && result.outcome != riposte_protocol::message::Outcome::Succeeded
                });
                say(&mut stream, &ToAgent::ResultAck { command_ids: ids }).await;
            }
            FromAgent::Effects { ended, .. } => known.ended |= ended.contains(&effect_of(1)),
            // An end before this connection is not told.
            FromAgent::Heartbeat => {
                let is_long_over = until.plus(Duration::from_secs(3)) <= wall_clock();
                known.ended |= known.was_not_held && is_long_over && known.results.contains(&Uuid::from_u128(1));
            }
            FromAgent::Unknown | FromAgent::Clock { .. } | FromAgent::Keys { .. } | FromAgent::Rejected { .. } => {}
        }
        if known.is_complete() && matches!(death, Death::AfterMessages(usize::MAX)) {
            agent.start_kill().unwrap();
            break;
        }
    }
    timeout(PATIENCE, agent.wait()).await.unwrap().unwrap().signal()
}

fn effect_of(seq: u128) -> Uuid {
    Uuid::from_u128(seq << 64)
}

fn owed(manager: &Manager, until: Timestamp, known: &Known) -> Vec<String> {
    let target = |text| Target::parse(TargetKind::Ip, text).unwrap();
    let commands = [
        manager.command(1, |command| (command.target, command.until) = (target("203.0.113.1"), Some(until))),
        manager.command(2, |command| command.target = target("203.0.113.2")),
        manager.command(3, |command| {
            (command.target, command.op, command.effect) = (target("203.0.113.2"), Op::Revert, effect_of(2));
        }),
    ];
    let is_owed = |seq: &usize| !known.acked.contains(&Uuid::from_u128(*seq as u128 + 1));
    commands.into_iter().enumerate().filter(|(seq, _)| is_owed(seq)).map(|(_, command)| command).collect()
}

/// Returns the next message, or `None` if the agent is gone.
async fn hear(stream: &mut Stream) -> Option<FromAgent> {
    loop {
        match timeout(PATIENCE, stream.socket.next()).await.expect("the agent says nothing") {
            Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// Sends it to an agent that may just have crashed.
async fn say(stream: &mut Stream, message: &ToAgent) {
    use futures_util::SinkExt as _;
    let _died = stream.socket.send(Message::text(serde_json::to_string(message).unwrap())).await;
}

fn wall_clock() -> Timestamp {
    Timestamp::from_millis(0).plus(std::time::UNIX_EPOCH.elapsed().unwrap())
}
