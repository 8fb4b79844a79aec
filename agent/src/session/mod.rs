//! Keeps the conversation with the manager going, for as long as the agent runs: a stream if it can be had, long
//! polls if not, and pauses that grow and are spread, so that a manager that comes back is not run over.
//!
//! Nothing depends on it: commands in the journal are executed and effects are lifted whether there is a conversation
//! or not.

mod answer;
mod backoff;
mod outgoing;
mod poll;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::header::HeaderMap;
use riposte_protocol::TIME_HEADER;
use riposte_protocol::message::{HeldEffect, MAX_EFFECTS_BYTES, Settings};
use riposte_protocol::time::difference;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::Connector;
use uuid::Uuid;

use self::backoff::Backoff;
use crate::agent::Agent;
use crate::identity::Identity;
use crate::intake::Intake;
use crate::journal::{Held, Ledger, Record, Released};
use crate::manager_url;

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
/// The same after the manager could not be reached at all: it has probably restarted, and what kept streams from opening went
/// with it.
const POLL_PERIOD_AFTER_OUTAGE: Duration = Duration::from_secs(20);

/// What helps where the manager's time cannot be learnt.
const UNBELIEVED_TIME: &str = "Over plain HTTP its time cannot be believed: set this host's clock, or enrol over https; \
                               effects are still lifted on time";

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
    /// The manager does not accept this agent, and says why.
    Rejected(String),
    /// The manager takes the agent's time for a wrong one.
    WrongTime(String),
    /// Something on the way refuses to let the conversation through: who, and what it said.
    Refused(String),
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

    /// Whether the manager's time can be believed as it comes over that transport.
    fn believes_time(&self, poll: bool) -> bool {
        let enrolment = &self.identity.enrolment;
        manager_url::is_protected(if poll { &enrolment.poll_url } else { &enrolment.stream_url })
    }

    /// Learns the manager's time from an answer, if the connection to `url` is private.
    fn learn_time(&self, url: &str, headers: &HeaderMap) {
        let told = headers.get(TIME_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(time) = told.filter(|_| manager_url::is_protected(url)) else { return };
        let clock = &self.agent.clock;
        match clock.manager().learn(time, &clock.host()) {
            Some(0) => tracing::info!("this host's clock agrees with the manager's again"),
            Some(ahead) => tracing::warn!(
                "this host's clock differs: it is {} the manager's; what the manager orders is served by the manager's \
                 clock. Set this host's clock, by NTP for instance",
                difference(ahead)
            ),
            None => {}
        }
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
    // Who refused the last stream, while nothing has come through since.
    let mut stream_refused: Option<String> = None;
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
            // A poll that breaks in between does not bring the stream back at once: the network has not changed.
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
            Ended::Rejected(reason) => {
                tracing::error!(
                    reason,
                    kind,
                    "the manager does not accept this agent: {reason}; effects are still lifted on time"
                );
                REJECTED_PAUSE + backoff::at_random(spread)
            }
            Ended::WrongTime(reason) if conversation.believes_time(poll) => {
                // Its time was learnt from the same answer: the next token carries that.
                tracing::warn!(reason, kind, "the manager says that the clocks differ: {reason}");
                backoff.pause()
            }
            Ended::WrongTime(reason) => {
                tracing::error!(reason, kind, "the manager says that the clocks differ: {reason}. {UNBELIEVED_TIME}");
                REJECTED_PAUSE + backoff::at_random(spread)
            }
            Ended::Refused(who) if poll => {
                let stream = stream_refused.as_deref().unwrap_or("not tried");
                tracing::error!(
                    poll = who,
                    stream,
                    "something between this agent and the manager lets nothing through. The poll got: {who}. The stream: {stream}"
                );
                backoff.pause()
            }
            Ended::Refused(who) => {
                tracing::warn!(who, kind, "something between this agent and the manager refuses the stream: {who}");
                stream_refused = Some(who);
                // It is no matter of trying again: what refuses streams goes on refusing them.
                stream_failures = STREAM_FAILURES;
                if transport == Transport::Auto { Duration::ZERO } else { backoff.pause() }
            }
            Ended::Broken { reason, retry_after, was_open } => {
                tracing::warn!(reason, kind, "no conversation with the manager");
                if was_open {
                    stream_refused = None;
                } else if !poll {
                    stream_refused = Some(reason);
                }
                if !poll {
                    stream_failures = if was_open { 0 } else { stream_failures + 1 };
                }
                if was_open {
                    backoff = Backoff::default();
                } else if poll {
                    poll_until = poll_until.map(|until| until.min(Instant::now() + POLL_PERIOD_AFTER_OUTAGE));
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

/// 401 and 403 are refusals, by whomever; everything else may pass.
fn is_refusal(status: reqwest::StatusCode) -> bool {
    matches!(status, reqwest::StatusCode::UNAUTHORIZED | reqwest::StatusCode::FORBIDDEN)
}
