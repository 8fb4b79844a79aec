//! Keeps the connection to the manager open as long as the agent runs: a stream if possible, long
//! polls otherwise. Retries back off with jitter, so that a restarted manager is not overloaded.
//!
//! Execution does not depend on it: commands in the journal are executed and effects are lifted
//! without a connection too.

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
use crate::journal::{Held, JournalState, Record, Released};
use crate::{manager_url, own_key};

/// Identifies this run of the program. It differs from other runs with the same identity, on this
/// host or on a clone of it.
static RUN: LazyLock<Uuid> = LazyLock::new(Uuid::now_v7);

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limit for writing one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause of an agent that the manager does not accept.
const REJECTED_PAUSE: Duration = Duration::from_mins(1);
/// Time limit for resolving the manager's name.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures of streams in a row before polling is tried.
const STREAM_FAILURES: u32 = 2;
/// How long the agent polls before it tries a stream again.
const POLL_PERIOD: Duration = Duration::from_mins(5);
/// The same after the manager was unreachable: it has probably restarted, and the obstacle to
/// streams may be gone.
const POLL_PERIOD_AFTER_OUTAGE: Duration = Duration::from_secs(20);

/// Advice where the manager's time cannot be learnt.
const UNBELIEVED_TIME: &str = "Over plain HTTP its time cannot be believed: set this host's clock, or enrol over https; \
                               effects are still lifted on time";

/// How to talk to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// A stream; long polls if none can be opened.
    Auto,
    /// Only streams.
    Stream,
    /// Only long polls.
    Poll,
}

/// Why a connection ended.
#[derive(Debug)]
enum Ended {
    /// The agent is stopping.
    Stopping,
    /// The next key of this agent was made: it takes the old one's place before the next connection.
    NewKey,
    /// Polling has lasted its period: a stream is tried again.
    BackToStream,
    /// The manager asked the agent to reconnect after this time.
    Bye(Duration),
    /// The manager does not accept this agent; with its reason.
    Rejected(String),
    /// The manager considers the agent's time wrong.
    WrongTime(String),
    /// A server on the network path refuses the connection: which one, and its text.
    Refused(String),
    /// It could not be opened, or broke; with the manager's `Retry-After`, if any.
    Broken {
        reason: String,
        retry_after: Option<Duration>,
        /// Whether the manager had answered before.
        was_open: bool,
    },
}

impl Ended {
    fn broken(reason: impl std::fmt::Display, was_open: bool) -> Self {
        Self::Broken { reason: reason.to_string(), retry_after: None, was_open }
    }
}

/// The agent's side of all its connections.
struct Conversation {
    agent: Arc<Agent>,
    identity: Identity,
    intake: Intake,
    settings: Settings,
    /// Trusts only the authority that was pinned at enrolment, if there is one.
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Conversation {
    fn connector(&self) -> Option<Connector> {
        self.tls.as_ref().map(|config| Connector::Rustls(Arc::clone(config)))
    }

    /// Whether the manager's time can be believed over that transport.
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
                "this host's clock differs: it is {} the manager's; the manager's orders are executed by the manager's \
                 clock. Set this host's clock, by NTP for instance",
                difference(ahead)
            ),
            None => {}
        }
    }

    /// Takes a rotation of the agent's key to its end, and reads the key anew. With `is_first` the
    /// manager was not asked yet. Returns whether it is another key than before.
    async fn renew_key(&mut self, is_first: bool) -> bool {
        match own_key::renew(&mut self.identity, is_first, self.agent.clock.now()).await {
            Ok(is_another) => {
                if is_another {
                    tracing::info!(key = self.identity.key().verifying_key().kid(), "this agent has a new key");
                }
                is_another
            }
            Err(error) => {
                let reason = crate::telemetry::chain(&error);
                tracing::warn!(reason, "this agent keeps its key for now: {reason}");
                false
            }
        }
    }

    /// Takes in new settings.
    ///
    /// # Errors
    /// [`Ended::NewKey`], if they begin a rotation of the agent's key.
    fn set(&mut self, settings: Settings) -> Result<(), Ended> {
        self.settings = settings;
        match own_key::begin(&self.identity, self.settings.rotate_key.as_deref()) {
            Ok(true) => Err(Ended::NewKey),
            Ok(false) => Ok(()),
            Err(error) => {
                let reason = crate::telemetry::chain(&error);
                tracing::error!(
                    reason,
                    "the manager asks for another key of this agent, which cannot be made: {reason}"
                );
                Ok(())
            }
        }
    }

    /// Records that the manager knows of these releases.
    fn told(&self, effects: Vec<Uuid>) {
        if !effects.is_empty() {
            self.agent.note([Record::ReleaseTold { effects }]);
        }
    }
}

/// The report of effects: those that were released locally and not yet reported, and those that are
/// held. As many as fit into one message beside the rest.
fn reports(state: &JournalState) -> Vec<HeldEffect> {
    let mut bytes = 0;
    let all = state.released().map(Released::report).chain(state.held().map(Held::report));
    let told: Vec<HeldEffect> = all
        .take_while(|effect| {
            bytes += serde_json::to_vec(effect).map_or(0, |json| json.len() + 1);
            bytes <= MAX_EFFECTS_BYTES
        })
        .collect();
    let held = state.held().count() + state.released().count();
    if held > told.len() {
        tracing::warn!(held, told = told.len(), "more effects are held than one message can report");
    }
    told
}

/// Protects the manager's addresses before a connection shows one. If the name cannot be resolved,
/// the addresses that are known stay.
async fn note_addresses(agent: &Agent, identity: &Identity) {
    let enrolment = &identity.enrolment;
    let urls = [&enrolment.stream_url, &enrolment.poll_url, &enrolment.manager];
    let hosts: BTreeMap<_, _> = urls.into_iter().filter_map(|url| crate::manager_url::host_and_port(url)).collect();
    for (host, port) in hosts {
        if let Ok(Ok(found)) = timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
            found.for_each(|address| agent.self_protection.note_manager(address.ip()));
        }
    }
    agent.self_protection.manager_is_known();
}

/// Which transport has its turn when both may be used: the stream, until it fails; then polls for a while.
struct Turns {
    /// How many streams in a row have failed.
    stream_failures: u32,
    /// Until when polls go on.
    poll_until: Option<Instant>,
    /// How long they will. Streams that broke may have met a manager that was restarting; those that are refused, or break
    /// again, go on doing so.
    poll_period: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self { stream_failures: 0, poll_until: None, poll_period: POLL_PERIOD_AFTER_OUTAGE }
    }
}

impl Turns {
    fn is_poll(&self) -> bool {
        self.stream_failures >= STREAM_FAILURES
    }

    /// When a stream is tried again. A poll that breaks in between does not bring it back: the network has not changed.
    fn poll_until(&mut self) -> Instant {
        let period = self.poll_period;
        *self.poll_until.get_or_insert_with(|| Instant::now() + period)
    }

    fn back_to_stream(&mut self) {
        // One failure is enough to return to polling.
        *self = Self { poll_until: None, stream_failures: STREAM_FAILURES - 1, poll_period: POLL_PERIOD };
    }

    /// A server on the way refuses streams.
    fn refused(&mut self) {
        (self.stream_failures, self.poll_period) = (STREAM_FAILURES, POLL_PERIOD);
    }

    /// A stream or a poll broke, or could not be opened.
    fn broke(&mut self, poll: bool, was_open: bool) {
        match (poll, was_open) {
            (false, true) => (self.stream_failures, self.poll_period) = (0, POLL_PERIOD_AFTER_OUTAGE),
            (false, false) => self.stream_failures += 1,
            (true, true) => {}
            // The manager could not be reached at all.
            (true, false) => {
                self.poll_period = POLL_PERIOD_AFTER_OUTAGE;
                let soon = Instant::now() + POLL_PERIOD_AFTER_OUTAGE;
                self.poll_until = self.poll_until.map(|until| until.min(soon));
            }
        }
    }
}

/// Does what comes before a connection: what must never be blocked is noted, and the key is replaced where
/// that is due. Returns false if the agent stops meanwhile.
async fn is_prepared(conversation: &mut Conversation, is_new_key: bool) -> bool {
    let agent = Arc::clone(&conversation.agent);
    tokio::select! {
        () = note_addresses(&agent, &conversation.identity) => {}
        () = agent.tasks.stopped() => return false,
    }
    tokio::select! {
        _ = conversation.renew_key(is_new_key) => true,
        () = agent.tasks.stopped() => false,
    }
}

/// Talks to the manager until the agent stops.
pub async fn run(agent: Arc<Agent>, identity: Identity, transport: Transport) {
    let tls = match crate::tls::config(identity.trust()) {
        Ok(tls) => tls,
        Err(error) => {
            // No order can be received any more, but effects in force must still end.
            tracing::error!(%error, "the manager cannot be connected to; effects are lifted on time");
            crate::platform::service::status("not connected to the manager: a certificate cannot be used");
            return agent.self_protection.manager_is_known();
        }
    };
    let (intake, settings) = (Intake::default(), Settings::default());
    let mut conversation = Conversation { agent, identity, intake, settings, tls };
    let mut backoff = Backoff::default();
    // The server that refused the last stream, if nothing has got through since.
    let mut stream_refused: Option<String> = None;
    let mut turns = Turns::default();
    // Whether the next key of this agent has just been made.
    let mut is_new_key = false;
    while !conversation.agent.tasks.is_stopping() {
        if !is_prepared(&mut conversation, std::mem::take(&mut is_new_key)).await {
            break;
        }
        let poll = match transport {
            Transport::Poll => true,
            Transport::Stream => false,
            Transport::Auto => turns.is_poll(),
        };
        let (ended, kind) = if poll {
            let until = turns.poll_until();
            (conversation.poll((transport == Transport::Auto).then_some(until)).await, "poll")
        } else {
            (conversation.stream().await, "stream")
        };
        let spread = Duration::from_secs(conversation.settings.reconnect_spread_seconds.into());
        let pause = match ended {
            Ended::Stopping => break,
            Ended::NewKey => {
                is_new_key = true;
                continue;
            }
            Ended::BackToStream => {
                turns.back_to_stream();
                continue;
            }
            Ended::Bye(pause) => {
                tracing::info!(pause_secs = pause.as_secs(), kind, "the manager is closing the connection");
                backoff = Backoff::default();
                pause + backoff::at_random(spread)
            }
            // The command line may have replaced the key meanwhile.
            Ended::Rejected(_) if conversation.renew_key(false).await => continue,
            Ended::Rejected(reason) => {
                tracing::error!(
                    reason,
                    kind,
                    "the manager does not accept this agent: {reason}; effects are still lifted on time"
                );
                REJECTED_PAUSE + backoff::at_random(spread)
            }
            Ended::WrongTime(reason) if conversation.believes_time(poll) => {
                // The manager's time was learnt from the same answer: the next token carries it.
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
                    "a server between this agent and the manager blocks both transports. The poll got: {who}. The stream: {stream}"
                );
                backoff.pause()
            }
            Ended::Refused(who) => {
                tracing::warn!(who, kind, "a server between this agent and the manager refuses the stream: {who}");
                stream_refused = Some(who);
                // Retrying does not help: a server that refuses streams keeps refusing them.
                turns.refused();
                if transport == Transport::Auto { Duration::ZERO } else { backoff.pause() }
            }
            Ended::Broken { reason, retry_after, was_open } => {
                tracing::warn!(reason, kind, "no connection to the manager");
                if was_open {
                    stream_refused = None;
                    backoff = Backoff::default();
                } else if !poll {
                    stream_refused = Some(reason);
                }
                turns.broke(poll, was_open);
                // A connection that broke probably broke for all agents at once.
                let spread = if was_open { spread } else { Duration::ZERO };
                retry_after.unwrap_or_default() + backoff.pause() + backoff::at_random(spread)
            }
        };
        crate::platform::service::status("not connected to the manager; effects are lifted on time");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = conversation.agent.tasks.stopped() => {}
        }
    }
}

/// 401 and 403 are refusals, from any server; every other failure may be temporary.
fn is_refusal(status: reqwest::StatusCode) -> bool {
    matches!(status, reqwest::StatusCode::UNAUTHORIZED | reqwest::StatusCode::FORBIDDEN)
}
