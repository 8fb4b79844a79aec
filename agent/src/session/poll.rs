//! The connection by long polls, for networks that block a WebSocket. Each exchange carries
//! everything both ways. A lost exchange loses nothing, because acknowledgements and results are
//! repeated until the manager has them.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::header;
use riposte_protocol::message::{HeldEffect, MAX_FRAME_BYTES, PollRequest, PollResponse};
use tokio::time::Instant;
use uuid::Uuid;

use super::outgoing::Outgoing;
use super::{CONNECT_TIMEOUT, Conversation, Ended, RUN, answer, is_refusal, reports};
use crate::journal::Record;

/// How long the manager is asked to wait for a command, in seconds.
const WAIT_SECS: u32 = 30;
/// The same while a command is being executed whose result is due soon.
const BUSY_WAIT_SECS: u32 = 1;
/// How much longer than asked an answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(15);
/// Limit of commands in one answer.
const MAX_COMMANDS: usize = 64;

/// Limit of exchanges in a row that carry results only.
const MAX_WITHHELD: u32 = 8;

/// Up to this number of effects, the room that [`Outgoing`] leaves is enough for them.
const MAX_EFFECTS_BESIDE_RESULTS: usize = 64;

/// What the next exchange has to report.
#[derive(Default)]
struct Untold {
    acks: Vec<Uuid>,
    /// The effects as last reported; `None` before the first exchange.
    told_effects: Option<Vec<HeldEffect>>,
    /// Number of exchanges in a row without room for effects.
    withheld: u32,
    /// Effects of which the manager awaits a result. It ignores reports of them until then.
    unsettled: HashSet<Uuid>,
}

impl Conversation {
    /// Polls until the connection breaks, or until `back_to_stream`.
    pub(super) async fn poll(&mut self, back_to_stream: Option<Instant>) -> Ended {
        let client = match crate::tls::client(self.identity.trust(), |builder| builder.connect_timeout(CONNECT_TIMEOUT))
        {
            Ok(client) => client,
            Err(error) => return Ended::broken(crate::telemetry::chain(&error), false),
        };
        tracing::info!(url = self.identity.enrolment.poll_url, "polling");
        let mut untold = Untold::default();
        let mut was_open = false;
        loop {
            if back_to_stream.is_some_and(|at| at <= Instant::now()) {
                return Ended::BackToStream;
            }
            let agent = std::sync::Arc::clone(&self.agent);
            let asked_at = Instant::now();
            let exchanged = tokio::select! {
                exchanged = self.exchange(&client, &mut untold, was_open) => exchanged,
                () = agent.tasks.stopped() => return Ended::Stopping,
            };
            let brought_something = match exchanged {
                Ok(brought_something) => brought_something,
                Err(ended) => return ended,
            };
            if !was_open {
                crate::platform::service::status("polling the manager");
            }
            was_open = true;
            let interval = Duration::from_secs(self.settings.poll_interval_seconds.max(1).into());
            if !brought_something && asked_at.elapsed() < interval {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = agent.outbox.notified() => {}
                    () = agent.tasks.stopped() => return Ended::Stopping,
                }
            }
        }
    }

    /// One exchange; returns whether it brought a command or a commit.
    async fn exchange(&mut self, client: &reqwest::Client, untold: &mut Untold, was_open: bool) -> Result<bool, Ended> {
        let request = PollRequest { rejected: self.intake.take_rejected(), ..self.poll_request(untold) };
        let bearer = self.identity.bearer(self.agent.clock.now()).map_err(|error| Ended::broken(error, was_open))?;
        let broken = |error: reqwest::Error| Ended::broken(crate::telemetry::chain(&error.without_url()), was_open);
        let mut answer = client
            .post(&self.identity.enrolment.poll_url)
            .header(header::AUTHORIZATION, bearer)
            .timeout(Duration::from_secs(request.wait_seconds.into()) + ANSWER_GRACE)
            .json(&request)
            .send()
            .await
            .map_err(broken)?;
        if let Some(peer) = answer.remote_addr() {
            self.agent.self_protection.note_manager(peer.ip());
        }
        self.learn_time(&self.identity.enrolment.poll_url, answer.headers());
        let status = answer.status();
        if !status.is_success() {
            let headers = answer.headers().clone();
            let body = beginning(answer).await;
            if is_refusal(status) {
                return Err(answer::refused(status, &headers, &body));
            }
            let (reason, retry_after) = (answer::who(status, &headers, &body), answer::retry_after(&headers));
            return Err(Ended::Broken { reason, retry_after, was_open });
        }
        let (headers, mut body) = (answer.headers().clone(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MAX_FRAME_BYTES {
                return Err(Ended::broken("the manager's answer is too large", was_open));
            }
            body.extend_from_slice(&chunk);
        }
        let response: PollResponse = serde_json::from_slice(&body)
            .map_err(|error| Ended::broken(format!("{} ({error})", answer::who(status, &headers, &body)), was_open))?;
        untold.acks.clear();
        if let Some(effects) = request.effects {
            let heard = effects.into_iter().filter(|effect| !untold.unsettled.contains(&effect.effect));
            let (held, released): (Vec<_>, Vec<_>) = heard.partition(|effect| effect.released.is_none());
            self.told(released.into_iter().map(|effect| effect.effect).collect());
            // What is forgotten now must not be reported again as vanished.
            untold.told_effects = Some(held);
        }
        let settings = response.settings.clone();
        let brought_something = self.hear_answer(response, untold);
        self.set(settings)?;
        Ok(brought_something)
    }

    fn poll_request(&self, untold: &mut Untold) -> PollRequest {
        let first = untold.told_effects.is_none();
        let capabilities = first.then(|| self.agent.capabilities());
        // The full list of effects below covers all changes.
        drop(self.agent.take_news());
        self.agent.tell(|journal, held_back| {
            let state = journal.state();
            let effects = reports(state);
            let busy = state.pending().next().is_some();
            let effects = (untold.told_effects.as_ref() != Some(&effects)).then_some(effects);
            // The whole outbox: committed results are no longer in it.
            let mut outgoing = Outgoing::default();
            let results = outgoing.next(journal, held_back);
            // Effects are reported after every result about them, which may be older. A limit makes
            // sure that a steady flow of results cannot delay them for ever. Both together can
            // exceed one message.
            let is_rest = results.is_empty() || outgoing.next(journal, held_back).is_empty();
            let leaves_room = results.is_empty()
                || effects.as_ref().is_none_or(|effects| is_rest && effects.len() < MAX_EFFECTS_BESIDE_RESULTS);
            let is_waited_for = !leaves_room && untold.withheld >= MAX_WITHHELD;
            untold.withheld = if leaves_room || is_waited_for { 0 } else { untold.withheld + 1 };
            untold.unsettled = if is_waited_for { state.unsettled() } else { HashSet::new() };
            PollRequest {
                cursor: state.inbox().cursor(),
                acks: untold.acks.clone(),
                rejected: Vec::new(),
                results: if is_waited_for { Vec::new() } else { results },
                effects: effects.filter(|_| leaves_room || is_waited_for),
                capabilities,
                run: Some(*RUN),
                clock: Some(self.agent.clock.host().wall),
                keys: Some(self.identity.enrolment.key_number),
                wait_seconds: if busy || !leaves_room { BUSY_WAIT_SECS } else { WAIT_SECS },
                // The first report tells the manager which agent this is, and ends commands that
                // the agent must not execute any more. So it asks for none yet.
                max: if leaves_room || !first { MAX_COMMANDS } else { 0 },
            }
        })
    }

    fn hear_answer(&mut self, answer: PollResponse, untold: &mut Untold) -> bool {
        // Before the orders: they may be signed with a key that is introduced here. The next poll
        // says what was learnt.
        let has_learnt = self.intake.learn(&mut self.identity, &answer.key_statements);
        let brought_something = has_learnt || !answer.commands.is_empty() || !answer.result_acks.is_empty();
        if !answer.result_acks.is_empty() {
            let acknowledged = Record::Acknowledged { ids: answer.result_acks };
            self.agent.note([acknowledged]);
        }
        if !answer.commands.is_empty() {
            let receipts = self.intake.take(&self.agent, &self.identity, &answer.commands);
            untold.acks = receipts.acks;
        }
        brought_something
    }
}

/// The start of an error answer, long enough for a problem document.
async fn beginning(mut answer: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    // An answer that breaks off is used as far as it came: the status is what counts.
    while body.len() < answer::MAX_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(answer::MAX_BYTES);
    body
}
