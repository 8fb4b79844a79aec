//! A turn of one webhook: what is due again, then what is new in the feed, then the ledger is told what was taken. The messages
//! of a turn are sent side by side, so receivers order them by the number of the event.

use futures_util::StreamExt as _;
use riposte_protocol::time::Timestamp;

use super::chat::Chat;
use super::message::message_id;
use super::news;
use super::receiver::{Cause, Receiver, Untaken};
use super::settings;
use crate::domain::event::EventType;
use crate::domain::redelivery::next_try;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::configured::webhooks::StoredWebhook;
use crate::store::database::duties::Claim;
use crate::store::ledger::events::LooseEvent;
use crate::store::ledger::webhook_messages::{self, DueMessage, FailedMessage, WebhookState, WebhookTurn};
use crate::telemetry::WebhookOutcome;
use crate::views::events::EventRow;

/// Events of a turn.
const EVENTS: i64 = 100;
/// Messages that are sent at the same time.
const AT_ONCE: usize = 8;
/// Messages that were not taken, above which nothing new is sent: the receiver is away, and what is in the feed waits there.
const MOST_WAITING: i64 = 64;
/// Notices in one message.
const TOGETHER: usize = 10;
/// Type of the event of a response that waits.
const APPROVAL: &str = "approval.requested";
/// Longest reason that is kept, in characters.
const MAX_FAULT: usize = 200;
/// Failed requests in a row after which a receiver counts as failing.
const FAILING: i64 = 3;

/// What a message became.
type Sent = (DueMessage, Result<(), Untaken>);

/// Takes a turn of the webhook of `receiver`.
///
/// # Errors
/// If the ledger cannot be read or written, or another manager has the duty now.
pub(super) async fn take(
    engine: &Engine,
    receiver: &Receiver,
    state: WebhookState,
    claim: &Claim,
) -> Result<(), StoreError> {
    let name = state.webhook.clone();
    let due = webhook_messages::due(&engine.db, &name, engine.clock.now(), EVENTS).await?;
    let (due, over) = anew(engine, receiver, due).await?;
    let mut sent = send_all(engine, receiver, due).await;
    let is_back = sent.iter().any(|(_, outcome)| outcome.is_ok());
    let (mut mark, mut missed) = (state.mark, 0);
    let said = |kind: Cause| sent.iter().any(|(_, outcome)| outcome.as_ref().is_err_and(|it| it.cause == kind));
    let limit = if state.waiting < MOST_WAITING || is_back || !state.is_failing {
        EVENTS
    } else {
        // One that refuses messages is there: the next event may be one that it takes.
        i64::from(said(Cause::Refused))
    };
    if limit > 0 && !engine.tasks.stopping().is_cancelled() {
        let new;
        (new, mark, missed) = read_on(engine, receiver, state.mark, limit).await?;
        sent.extend(send_all(engine, receiver, new).await);
    }
    if sent.is_empty() && over.is_empty() && mark == state.mark && missed == 0 {
        return Ok(());
    }
    let gone = sent.iter().any(|(_, outcome)| outcome.as_ref().is_err_and(|untaken| untaken.cause == Cause::Gone));
    let now = engine.clock.now();
    let mut turn = outcome(engine, &state, sent, (mark, missed), now);
    turn.over = over;
    turn.news = news(&state, &turn);
    webhook_messages::record(&engine.db, &name, turn, claim.fence.as_ref(), now).await?;
    if gone {
        settings::disable(engine, receiver, now).await?;
    }
    Ok(())
}

/// Records that a webhook cannot be used as it is set up, and tells people once.
///
/// # Errors
/// If the ledger cannot be written, or another manager has the duty now.
pub(super) async fn cannot_be_used(
    engine: &Engine,
    webhook: &StoredWebhook,
    state: WebhookState,
    claim: &Claim,
    why: String,
) -> Result<(), StoreError> {
    let fault = format!("it cannot be used as it is set up: {why}");
    let is_known = state.is_failing && state.fault.as_deref() == Some(fault.as_str());
    if is_known || settings::is_disabled(webhook)? {
        return Ok(());
    }
    let (name, now) = (&webhook.name, engine.clock.now());
    tracing::error!(webhook = name, "the webhook {name} fails: {fault}");
    let failures = state.failures.max(FAILING);
    let (from, mark) = (state.mark, state.mark);
    let mut turn = WebhookTurn { from, mark, failures, is_failing: true, fault: Some(fault), ..WebhookTurn::default() };
    turn.news = news(&state, &turn);
    webhook_messages::record(&engine.db, name, turn, claim.fence.as_ref(), now).await
}

/// Messages that were not taken, with their bodies as the webhook is set up now; and the numbers of those that are no news any more.
/// An event that is not in the feed any more keeps the body that it had.
async fn anew(
    engine: &Engine,
    receiver: &Receiver,
    due: Vec<DueMessage>,
) -> Result<(Vec<DueMessage>, Vec<i64>), StoreError> {
    let (mut messages, mut over) = (Vec::with_capacity(due.len()), Vec::new());
    for mut message in due {
        let row = engine.events_after(message.seq - 1, 1).await?.pop();
        let row = row.filter(|row| row.seq == message.seq && row.at == message.at);
        let is_approval = message.r#type == APPROVAL;
        match (row, receiver.form.chat) {
            (Some(row), None) => message.body = receiver.form.body(engine, &row).await?,
            (Some(row), Some(chat)) if is_approval || receiver.has_changed_since(message.at.into()) => {
                let Some(mut notice) = news::of(engine, receiver, &row).await? else {
                    over.push(message.seq);
                    continue;
                };
                if !is_approval {
                    notice.lines.push("There may have been more in this message: riposte events".to_owned());
                }
                message.body = chat.body(&[notice]);
            }
            // What people are told together is told as it was.
            (Some(_), Some(_)) | (None, _) => {}
        }
        messages.push(message);
    }
    Ok((messages, over))
}

/// The messages of the next events for this receiver, the number of the last event that was looked at, and how many were
/// removed before they could be.
async fn read_on(
    engine: &Engine,
    receiver: &Receiver,
    mark: i64,
    limit: i64,
) -> Result<(Vec<DueMessage>, i64, i64), StoreError> {
    let bounds = engine.event_bounds().await?;
    if mark > bounds.last {
        // The ledger is an earlier copy: what it tells from now on is new.
        return Ok((Vec::new(), bounds.last, 0));
    }
    let mut rows = engine.events_after(mark, limit).await?;
    let first = rows.first().map_or(bounds.last.max(mark), |row| row.seq - 1);
    let missed = if rows.is_empty() && bounds.reach(mark) { 0 } else { first - mark };
    // What is told to people waits until it is old enough.
    let ripe = engine.clock.now().minus(receiver.form.after);
    let until = rows.iter().position(|row| Timestamp::from(row.at) > ripe).unwrap_or(rows.len());
    rows.truncate(until);
    let last = rows.last().map_or(mark + missed, |row| row.seq);
    let mut wanted = Vec::with_capacity(rows.len());
    for row in rows {
        if receiver.filter.takes(&row)? {
            wanted.push(row);
        }
    }
    let messages = match receiver.form.chat {
        Some(chat) => told(engine, receiver, chat, wanted).await?,
        None => {
            let mut messages = Vec::with_capacity(wanted.len());
            for row in wanted {
                let body = receiver.form.body(engine, &row).await?;
                messages.push(DueMessage { seq: row.seq, at: row.at, r#type: row.r#type, body, tries: 0 });
            }
            messages
        }
    };
    Ok((messages, last, missed))
}

/// The messages to people: one for each decision, and one for everything else.
async fn told(
    engine: &Engine,
    receiver: &Receiver,
    chat: Chat,
    rows: Vec<EventRow>,
) -> Result<Vec<DueMessage>, StoreError> {
    let (mut messages, mut together, mut last) = (Vec::new(), Vec::new(), None);
    for row in rows {
        let Some(notice) = news::of(engine, receiver, &row).await? else { continue };
        if notice.choice.is_some() || row.r#type == APPROVAL {
            let body = chat.body(&[notice]);
            messages.push(DueMessage { seq: row.seq, at: row.at, r#type: row.r#type, body, tries: 0 });
        } else {
            together.push(notice);
            last = Some(row);
        }
    }
    if let Some(EventRow { seq, at, r#type, .. }) = last {
        // What a person must act on is not crowded out.
        together.sort_by_key(|notice| !notice.is_urgent);
        let more = together.len().saturating_sub(TOGETHER);
        together.truncate(TOGETHER);
        if let Some(notice) = together.last_mut().filter(|_| more > 0) {
            notice.lines.push(format!("and {more} more: riposte events"));
        }
        messages.push(DueMessage { seq, at, r#type, body: chat.body(&together), tries: 0 });
    }
    Ok(messages)
}

async fn send_all(engine: &Engine, receiver: &Receiver, messages: Vec<DueMessage>) -> Vec<Sent> {
    let send = |message: DueMessage| async {
        if engine.tasks.stopping().is_cancelled() {
            let fault = "the manager was being stopped".to_owned();
            return (message, Err(Untaken { fault, asked: None, cause: Cause::Unsent }));
        }
        let id = message_id(message.seq, message.at.into());
        let outcome = receiver.send(&id, &message.body, engine.clock.now()).await;
        let outcome_name = if outcome.is_ok() { WebhookOutcome::Taken } else { WebhookOutcome::Untaken };
        engine.metrics.webhook_messages.get_or_create(&outcome_name.label()).inc();
        (message, outcome)
    };
    futures_util::stream::iter(messages).map(send).buffer_unordered(AT_ONCE).collect().await
}

/// What a turn came to.
fn outcome(
    engine: &Engine,
    state: &WebhookState,
    sent: Vec<Sent>,
    (mark, missed): (i64, i64),
    now: Timestamp,
) -> WebhookTurn {
    let (from, failures) = (state.mark, state.failures);
    let mut turn = WebhookTurn { from, mark, failures, missed, ..WebhookTurn::default() };
    for (message, outcome) in sent {
        match outcome {
            Ok(()) => turn.taken.push(message.seq),
            Err(Untaken { fault, asked, cause }) => {
                let fault: String = fault.chars().take(MAX_FAULT).collect();
                // One message that is refused again and again says nothing of the receiver.
                let is_old_news = cause == Cause::Refused && message.tries > 0;
                if !is_old_news && cause != Cause::Unsent {
                    turn.failures += 1;
                }
                turn.fault = Some(fault.clone());
                let next_at = next_try(message.tries + 1, message.at.into(), now, asked);
                if next_at.is_none() {
                    engine.metrics.webhook_messages.get_or_create(&WebhookOutcome::GivenUp.label()).inc();
                }
                turn.failed.push(FailedMessage { message, next_at, fault });
            }
        }
    }
    if !turn.taken.is_empty() {
        turn.failures = 0;
    }
    turn.is_failing = turn.failures >= FAILING || (state.is_failing && turn.failures > 0);
    turn.is_back = state.is_failing && turn.failures == 0;
    turn
}

/// What people should know of it, each once.
fn news(state: &WebhookState, turn: &WebhookTurn) -> Vec<LooseEvent> {
    let said = |kind: EventType, detail: String| LooseEvent {
        kind,
        noun: "webhook",
        noun_id: state.webhook.clone(),
        actor: "riposte".to_owned(),
        detail,
    };
    let mut news = Vec::new();
    if turn.is_failing && !state.is_failing {
        let fault = turn.fault.as_deref().unwrap_or("it does not answer");
        news.push(said(EventType::WebhookFailing, format!("{fault}; its messages are kept and tried again")));
    }
    if state.is_failing && !turn.is_failing {
        news.push(said(EventType::WebhookRecovered, String::new()));
    }
    let given_up = turn.failed.iter().filter(|failed| failed.next_at.is_none()).count();
    if given_up > 0 && state.dead == 0 {
        let detail = "messages were not taken for three days, and are kept: see its messages, and replay them";
        news.push(said(EventType::WebhookGaveUp, detail.to_owned()));
    }
    if turn.missed > 0 {
        let (first, last) = (state.mark + 1, state.mark + turn.missed);
        let detail = format!("events {first} to {last} were removed by their age before they could be sent");
        news.push(said(EventType::WebhookMissed, detail));
    }
    news
}
