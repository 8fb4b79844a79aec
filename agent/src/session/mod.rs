//! Keeps the conversation with the manager going, for as long as the agent runs: a stream if it can be had, long
//! polls if not, and pauses that grow and are spread, so that a manager that comes back is not run over.
//!
//! Nothing depends on it: commands in the journal are executed and effects are lifted whether there is a conversation
//! or not.

mod backoff;
mod outgoing;
mod poll;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use riposte_protocol::message::{HeldEffect, MAX_EFFECTS_BYTES, Settings};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::Connector;
use uuid::Uuid;

use self::backoff::Backoff;
use crate::agent::Agent;
use crate::identity::Identity;
use crate::intake::Intake;
use crate::journal::{Held, Ledger, Record, Released};

/// This run of the program: what tells it apart from another one with the same identity, on this host or on a copy of it.
static RUN: LazyLock<Uuid> = LazyLock::new(Uuid::now_v7);

/// How long the network may take to open a conversation.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one message may take to be handed to the network.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent that is not accepted waits before it asks again.
const REJECTED_PAUSE: Duration = Duration::from_mins(1);
/// How long the look-up of the manager's name may take.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// How many streams in a row may fail before polling is tried.
const STREAM_FAILURES: u32 = 2;
/// How long polling goes on before a stream is tried again.
const POLL_PERIOD: Duration = Duration::from_mins(5);

/// How to talk to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// A stream; long polls where none can be had.
    Auto,
    /// Only streams.
    Stream,
    /// Only long polls.
    Poll,
}

/// Why a conversation ended.
#[derive(Debug)]
enum Ended {
    /// The agent is stopping.
    Stopping,
    /// It was polled for long enough: a stream is tried again.
    BackToStream,
    /// The manager asked to come back after this time.
    Bye(Duration),
    /// The manager does not accept this agent.
    Rejected(u16),
    /// It could not be opened, or broke; and how long the manager asks to wait, if it does.
    Broken {
        reason: String,
        retry_after: Option<Duration>,
        /// Whether the manager had been heard before.
        was_open: bool,
    },
}

impl Ended {
    fn broken(reason: impl std::fmt::Display, was_open: bool) -> Self {
        Self::Broken { reason: reason.to_string(), retry_after: None, was_open }
    }
}

/// One agent's side of all its conversations.
struct Conversation {
    agent: Arc<Agent>,
    identity: Identity,
    intake: Intake,
    settings: Settings,
    /// Believes only the authority that was pinned at enrolment, if one was.
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Conversation {
    fn connector(&self) -> Option<Connector> {
        self.tls.as_ref().map(|config| Connector::Rustls(Arc::clone(config)))
    }

    /// The manager knows of these releases.
    fn told(&self, effects: Vec<Uuid>) {
        if !effects.is_empty() {
            self.agent.note([Record::ReleaseTold { effects }]);
        }
    }
}

/// The effects as the manager is told of them: those that were released unbeknown to it, and those that are held; as many
/// as fit into one message beside what surrounds them.
fn reports(ledger: &Ledger) -> Vec<HeldEffect> {
    let mut bytes = 0;
    let all = ledger.released().map(Released::report).chain(ledger.held().map(Held::report));
    let told: Vec<HeldEffect> = all
        .take_while(|effect| {
            bytes += serde_json::to_vec(effect).map_or(0, |json| json.len() + 1);
            bytes <= MAX_EFFECTS_BYTES
        })
        .collect();
    let held = ledger.held().count() + ledger.released().count();
    if held > told.len() {
        tracing::warn!(held, told = told.len(), "more effects are held than one message can name");
    }
    told
}

/// Has the manager's addresses protected, before there is a connection that shows one. Without an answer the
/// addresses that are known stay known.
async fn note_addresses(agent: &Agent, identity: &Identity) {
    let enrolment = &identity.enrolment;
    let urls = [&enrolment.stream_url, &enrolment.poll_url, &enrolment.manager];
    let hosts: BTreeMap<_, _> = urls.into_iter().filter_map(|url| crate::platform::host_and_port(url)).collect();
    for (host, port) in hosts {
        if let Ok(Ok(found)) = timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
            found.for_each(|address| agent.surroundings.note_manager(address.ip()));
        }
    }
    agent.surroundings.manager_is_known();
}

/// Talks to the manager until the agent stops.
pub async fn run(agent: Arc<Agent>, identity: Identity, transport: Transport) {
    let tls = match crate::tls::config(identity.ca()) {
        Ok(tls) => tls,
        Err(error) => {
            // Nothing can be heard any more, but what is in force must still end.
            tracing::error!(%error, "there will be no conversation with the manager; effects are lifted on time");
            crate::service::status("no conversation with the manager: its certificate authority cannot be used");
            return agent.surroundings.manager_is_known();
        }
    };
    let (intake, settings) = (Intake::default(), Settings::default());
    let mut conversation = Conversation { agent, identity, intake, settings, tls };
    let mut backoff = Backoff::default();
    let mut stream_failures = 0;
    let mut poll_until = None;
    while !conversation.agent.tasks.is_stopping() {
        tokio::select! {
            () = note_addresses(&conversation.agent, &conversation.identity) => {}
            () = conversation.agent.tasks.stopped() => break,
        }
        let poll = match transport {
            Transport::Poll => true,
            Transport::Stream => false,
            Transport::Auto => stream_failures >= STREAM_FAILURES,
        };
        let (ended, kind) = if poll {
            // A poll that breaks in between does not bring the stream back: the network has not changed.
            let until = *poll_until.get_or_insert_with(|| Instant::now() + POLL_PERIOD);
            (conversation.poll((transport == Transport::Auto).then_some(until)).await, "poll")
        } else {
            (conversation.stream().await, "stream")
        };
        let spread = Duration::from_secs(conversation.settings.reconnect_spread_seconds.into());
        let pause = match ended {
            Ended::Stopping => break,
            Ended::BackToStream => {
                // One failure is enough to go back to polling.
                (poll_until, stream_failures) = (None, STREAM_FAILURES - 1);
                continue;
            }
            Ended::Bye(pause) => {
                tracing::info!(pause_secs = pause.as_secs(), kind, "the manager is closing the conversation");
                backoff = Backoff::default();
                pause + backoff::at_random(spread)
            }
            Ended::Rejected(status) => {
                tracing::error!(
                    status,
                    kind,
                    "the manager does not accept this agent: was it revoked? effects are still lifted on time"
                );
                REJECTED_PAUSE + backoff::at_random(spread)
            }
            Ended::Broken { reason, retry_after, was_open } => {
                tracing::warn!(reason, kind, "no conversation with the manager");
                if !poll {
                    stream_failures = if was_open { 0 } else { stream_failures + 1 };
                }
                if was_open {
                    backoff = Backoff::default();
                }
                // A conversation that broke probably broke for every agent at once.
                let spread = if was_open { spread } else { Duration::ZERO };
                retry_after.unwrap_or_default() + backoff.pause() + backoff::at_random(spread)
            }
        };
        crate::service::status("not connected to the manager; effects are lifted on time");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = conversation.agent.tasks.stopped() => {}
        }
    }
}

/// A `Retry-After` header in seconds; as a date it is not used by any manager of ours. At most an hour, whatever it says.
fn retry_after(header: Option<&str>) -> Option<Duration> {
    let secs: u64 = header?.trim().parse().ok()?;
    Some(Duration::from_secs(secs.min(3600)))
}

/// 401 and 403 mean that the agent is not accepted; everything else may pass.
fn is_rejection(status: u16) -> bool {
    matches!(status, 401 | 403)
}
