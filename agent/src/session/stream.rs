//! The connection over a WebSocket. It ends when the manager closes it, when the network breaks, or
//! when nothing was received for three heartbeats, not even a pong.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use riposte_protocol::SUBPROTOCOL;
use riposte_protocol::identity::LEEWAY;
use riposte_protocol::message::{FromAgent, MAX_FRAME_BYTES, MAX_ITEMS, ToAgent};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use uuid::Uuid;

use super::outgoing::Outgoing;
use super::{CONNECT_TIMEOUT, Conversation, Ended, RUN, SEND_TIMEOUT, answer, is_refusal, reports};
use crate::intake::Intake;
use crate::journal::{Held, Record, Released};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Most memory of an idle agent is buffers, so they start small and grow on demand.
const BUFFER_BYTES: usize = 4 * 1024;

impl Conversation {
    /// Runs one stream from its opening to its end.
    pub(super) async fn stream(&mut self) -> Ended {
        let mut socket = tokio::select! {
            connected = self.connect() => match connected {
                Ok(socket) => socket,
                Err(ended) => return ended,
            },
            () = self.agent.tasks.stopped() => return Ended::Stopping,
        };
        let ended = match self.converse(&mut socket).await {
            Err(ended) => ended,
            Ok(never) => match never {},
        };
        // The close frame tells the manager at once that the agent is gone, if the network still
        // works.
        let _closed = timeout(Duration::from_secs(1), socket.close(None)).await;
        ended
    }

    async fn connect(&self) -> Result<Socket, Ended> {
        let request = self.request()?;
        let url = self.identity.enrolment.stream_url.as_str();
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * MAX_FRAME_BYTES)
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        match timeout(CONNECT_TIMEOUT, connect_async_tls_with_config(request, Some(config), true, self.connector()))
            .await
        {
            Ok(Ok((socket, response))) => {
                self.learn_time(url, response.headers());
                if let Some(peer) = tcp(socket.get_ref()).and_then(|tcp| tcp.peer_addr().ok()) {
                    self.agent.self_protection.note_manager(peer.ip());
                }
                Ok(socket)
            }
            Ok(Err(tungstenite::Error::Http(response))) => {
                self.learn_time(url, response.headers());
                // The body that came with the head; an incomplete problem is left to the poll.
                let body = response.body().as_deref().unwrap_or_default();
                if is_refusal(response.status()) {
                    return Err(answer::refused(response.status(), response.headers(), body));
                }
                Err(Ended::Broken {
                    reason: answer::who(response.status(), response.headers(), body),
                    retry_after: answer::retry_after(response.headers()),
                    was_open: false,
                })
            }
            Ok(Err(error)) => Err(Ended::broken(crate::telemetry::chain(&error), false)),
            Err(_) => Err(Ended::broken("the manager did not answer in time", false)),
        }
    }

    fn request(&self) -> Result<Request, Ended> {
        let bearer = self.identity.bearer(self.agent.clock.now()).map_err(|error| Ended::broken(error, false))?;
        let mut request = self
            .identity
            .enrolment
            .stream_url
            .as_str()
            .into_client_request()
            .map_err(|error| Ended::broken(error, false))?;
        let bearer = HeaderValue::from_str(&bearer).map_err(|error| Ended::broken(error, false))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(crate::tls::USER_AGENT));
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        Ok(request)
    }

    async fn converse(&mut self, socket: &mut Socket) -> Result<std::convert::Infallible, Ended> {
        let agent = std::sync::Arc::clone(&self.agent);
        let mut outgoing = Outgoing::default();
        let (hello, released) = self.hello(&mut outgoing);
        send(socket, &hello).await?;
        let mut told_ahead = self.tell_clock(socket).await?;
        let mut untold_releases = Some(released);
        tracing::info!(url = self.identity.enrolment.stream_url, "streaming");
        crate::platform::service::status("connected to the manager");
        let mut heard_at = Instant::now();
        let mut heartbeat = self.heartbeat();
        loop {
            self.send_results(socket, &mut outgoing).await?;
            self.send_news(socket, &mut outgoing).await?;
            let orders = self.intake.take_rejected();
            if !orders.is_empty() {
                send(socket, &FromAgent::Rejected { orders }).await?;
            }
            tokio::select! {
                message = socket.next() => {
                    heard_at = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            let before = self.settings.heartbeat_seconds;
                            // An answer shows that the manager has received the hello.
                            self.told(untold_releases.take().unwrap_or_default());
                            self.hear(socket, &text, &mut outgoing).await?;
                            if self.settings.heartbeat_seconds != before {
                                heartbeat = self.heartbeat();
                            }
                        }
                        Some(Ok(Message::Close(_))) | None => return Err(Ended::broken("the manager closed the stream", true)),
                        // The library answers pings; binary messages are not part of this version.
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(Ended::broken(error, true)),
                    }
                }
                _ = heartbeat.tick() => {
                    if heard_at.elapsed() >= 3 * heartbeat.period() {
                        return Err(Ended::broken("nothing was received from the manager for three heartbeats", true));
                    }
                    if self.clock_was_set(told_ahead) {
                        told_ahead = self.tell_clock(socket).await?;
                    }
                    send(socket, &FromAgent::Heartbeat).await?;
                    deliver(socket, Message::Ping(Bytes::new())).await?;
                }
                () = agent.outbox.notified() => {}
                () = agent.tasks.stopped() => return Err(Ended::Stopping),
            }
        }
    }

    /// Reports the host's clock; returns by how much it is ahead of the boot clock, in
    /// milliseconds.
    async fn tell_clock(&self, socket: &mut Socket) -> Result<i64, Ended> {
        let host = self.agent.clock.host();
        send(socket, &FromAgent::Clock { host: host.wall }).await?;
        Ok(host.wall.minus(host.since_boot).as_millis())
    }

    /// Whether the host's clock was set since it was reported.
    fn clock_was_set(&self, told_ahead: i64) -> bool {
        let host = self.agent.clock.host();
        let ahead = host.wall.minus(host.since_boot).as_millis();
        Duration::from_millis(ahead.abs_diff(told_ahead)) > LEEWAY
    }

    /// The first message, and the releases that the manager knows of once it has received it.
    fn hello(&self, outgoing: &mut Outgoing) -> (FromAgent, Vec<Uuid>) {
        // Before the effects are read: later changes are reported afterwards.
        drop(self.agent.take_news());
        let (cursor, effects, unsettled) = self.agent.read(|state| {
            let effects = reports(state);
            outgoing.told_of(state, effects.iter().map(|effect| effect.effect));
            (state.inbox().cursor(), effects, state.unsettled())
        });
        let released = effects.iter().filter(|effect| effect.released.is_some()).map(|effect| effect.effect);
        let released = released.filter(|effect| !unsettled.contains(effect)).collect();
        (
            FromAgent::Hello {
                cursor,
                capabilities: self.agent.capabilities(),
                effects: Some(effects),
                run: Some(*RUN),
                keys: Some(self.identity.enrolment.key_number),
            },
            released,
        )
    }

    /// Reports effects that have changed without a command.
    async fn send_news(&self, socket: &mut Socket, outgoing: &mut Outgoing) -> Result<(), Ended> {
        let news: Vec<Uuid> = self.agent.take_news().into_iter().collect();
        for some in news.chunks(MAX_ITEMS) {
            let (mut effects, mut ended) = (Vec::new(), Vec::new());
            self.agent.read(|state| {
                outgoing.told_of(state, some.iter().copied());
                for effect in some {
                    let held = state.held_effect(*effect).map(Held::report);
                    let released =
                        || state.released().find(|released| released.effect == *effect).map(Released::report);
                    match held.or_else(released) {
                        Some(report) => effects.push(report),
                        None => ended.push(*effect),
                    }
                }
            });
            send(socket, &FromAgent::Effects { effects, ended }).await?;
        }
        Ok(())
    }

    fn heartbeat(&self) -> tokio::time::Interval {
        let period = Duration::from_secs(self.settings.heartbeat_seconds.max(1).into());
        let mut heartbeat = tokio::time::interval_at(Instant::now() + period, period);
        // After a suspended host wakes, one heartbeat is enough.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat
    }

    async fn send_results(&self, socket: &mut Socket, outgoing: &mut Outgoing) -> Result<(), Ended> {
        loop {
            let results = self.agent.tell(|journal, held_back| outgoing.next(journal, held_back));
            if results.is_empty() {
                return Ok(());
            }
            send(socket, &FromAgent::Result { results }).await?;
        }
    }

    async fn hear(&mut self, socket: &mut Socket, text: &str, outgoing: &mut Outgoing) -> Result<(), Ended> {
        let message = match serde_json::from_str(text) {
            Ok(message) => message,
            Err(error) => {
                // A newer manager may send unknown messages; orders come only in messages that this
                // agent knows.
                tracing::debug!(%error, "a message that is unknown to this version was ignored");
                return Ok(());
            }
        };
        match message {
            ToAgent::Commands { commands } => {
                // The manager's clock may have been set since this stream was opened; the next
                // stream begins with its time. What was sent is not acknowledged, so it is sent
                // again.
                let clock = &self.agent.clock;
                if self.believes_time(false)
                    && clock.manager().is_stale(&clock.host())
                    && Intake::is_dated_ahead(&self.agent, &self.identity, &commands)
                {
                    return Err(Ended::broken(
                        "an order is dated ahead: reconnecting to learn the manager's time",
                        true,
                    ));
                }
                let receipts = self.intake.take(&self.agent, &self.identity, &commands);
                outgoing.again(&receipts.duplicates);
                for command_ids in receipts.acks.chunks(MAX_ITEMS) {
                    send(socket, &FromAgent::Ack { command_ids: command_ids.to_vec() }).await?;
                }
            }
            ToAgent::ResultAck { command_ids: ids } => {
                outgoing.again(&ids);
                self.agent.note([Record::Acknowledged { ids }]);
                let again = self.agent.read(|state| outgoing.take_settled(state));
                for effect in again {
                    self.agent.tell_of(effect);
                }
            }
            ToAgent::Keys { statements } => {
                if self.intake.learn(&mut self.identity, &statements) {
                    send(socket, &FromAgent::Keys { number: self.identity.enrolment.key_number }).await?;
                }
            }
            ToAgent::Settings { settings } => self.set(settings)?,
            ToAgent::Unknown => {}
            ToAgent::Bye { retry_after } => return Err(Ended::Bye(Duration::from_secs(retry_after.min(3600).into()))),
        }
        Ok(())
    }
}

/// The connection under a stream, encrypted or not.
fn tcp(stream: &MaybeTlsStream<TcpStream>) -> Option<&TcpStream> {
    match stream {
        MaybeTlsStream::Plain(tcp) => Some(tcp),
        MaybeTlsStream::Rustls(tls) => Some(tls.get_ref().0),
        _ => None,
    }
}

async fn send(socket: &mut Socket, message: &FromAgent) -> Result<(), Ended> {
    let text = serde_json::to_string(message).map_err(|error| Ended::broken(error, true))?;
    deliver(socket, Message::text(text)).await
}

async fn deliver(socket: &mut Socket, message: Message) -> Result<(), Ended> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Ended::broken(error, true)),
        Err(_) => Err(Ended::broken("the manager does not read what is sent to it", true)),
    }
}
