//! What people are told, in chat and by mail: what happened, in words, and what they can do about it. Events that are no news any
//! more by the time they would be told are left out; so an escalation reaches the next person only if none has acted.

use std::time::Duration;

use riposte_protocol::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::notice::{Choice, Notice, clean};
use super::receiver::Receiver;
use crate::domain::approval_link::ApprovalLink;
use crate::domain::duration::Span;
use crate::domain::policy::OnSilence;
use crate::domain::presence::Presence;
use crate::domain::response::ResponseState;
use crate::engine::Engine;
use crate::store::StoreError;
use crate::store::configured::breakers;
use crate::store::ledger::approvals::{self, Consequences};
use crate::store::ledger::{alerts, effects, responses};
use crate::views::events::EventRow;
use crate::views::responses::ResponseRow;

/// Agents that are named in a notice; the others are counted.
const NAMED: usize = 5;

/// The notice of an event; `None` if it is no news any more.
///
/// # Errors
/// If the ledger cannot be read.
pub(super) async fn of(engine: &Engine, receiver: &Receiver, row: &EventRow) -> Result<Option<Notice>, StoreError> {
    if engine.sensitivity(row).await? > receiver.form.ceiling {
        let title = format!("Event {} needs a look: it is too confidential for this channel", row.seq);
        return Ok(Some(Notice { title, lines: Vec::new(), choice: None, is_urgent: false }));
    }
    let notice = match row.r#type.as_str() {
        "approval.requested" => return approval(engine, receiver, row).await,
        "breaker.opened" => breaker(engine, row).await?,
        "effect.failing" => failing(engine, row).await?,
        "agent.away" => away(engine, row).await?,
        kind => Some(plain(engine, row, &title_of(kind), kind.starts_with("incident."))),
    };
    Ok(notice)
}

/// An event of which no more is known than its text.
fn plain(engine: &Engine, row: &EventRow, title: &str, is_urgent: bool) -> Notice {
    let mut lines = Vec::new();
    if !row.detail.is_empty() {
        lines.push(clean(&row.detail));
    }
    lines.extend(about(engine, row));
    Notice { title: title.to_owned(), lines, choice: None, is_urgent }
}

/// `incident.alerts_late` as `Incident: alerts late`.
fn title_of(kind: &str) -> String {
    let (family, verb) = kind.split_once('.').unwrap_or((kind, ""));
    let (mut family, verb) = (family.to_owned(), verb.replace('_', " "));
    if let Some(first) = family.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{family}: {verb}")
}

/// What the event is about, a line each.
fn about(engine: &Engine, row: &EventRow) -> Vec<String> {
    let id = row.agent_id.as_deref().and_then(|id| id.parse().ok());
    let agent = id.and_then(|id: Uuid| engine.db.names().agent(id)).or_else(|| row.agent_id.clone());
    let target =
        row.target_value.as_ref().map(|target| format!("{} {target}", row.target_kind.as_deref().unwrap_or("")));
    let named = [
        ("Agent", agent),
        ("Policy", row.policy.clone()),
        ("Action", row.action.clone()),
        ("Target", target),
        ("Case", row.case_ref.clone()),
    ];
    named.into_iter().filter_map(|(name, text)| text.map(|text| format!("{name}: {}", clean(text.trim())))).collect()
}

async fn approval(engine: &Engine, receiver: &Receiver, row: &EventRow) -> Result<Option<Notice>, StoreError> {
    let Some(id) = row.response_id.as_deref().and_then(|id| id.parse().ok()) else { return Ok(None) };
    let response = responses::find(&engine.db, id).await?;
    let Some(response) = response.filter(|response| response.state == ResponseState::AwaitingApproval) else {
        return Ok(None);
    };
    let agents: Vec<Uuid> = response.agents.read()?;
    if let Some(person) = receiver.form.person.as_deref() {
        // Not what the person may neither see nor decide.
        let by = engine.principal_of_link(receiver.name(), person);
        if by.is_none_or(|by| engine.check_scope_of_response(&response, &by).is_err()) {
            return Ok(None);
        }
    }
    let target = response.target_value.as_deref().map(clean).unwrap_or_default();
    let title =
        format!("{} {target} on {} waits for approval", clean(&response.action), counted(agents.len(), "agent"));
    let WaitingResponse { mut lines, silence } = what_waits(engine, id, &response).await?;
    let until = response.answer_by.map(Timestamp::from);
    lines.extend(silence);
    let choice = receiver.decider().zip(until).and_then(|(person, until)| {
        let base = engine.public_url.trim_end_matches('/');
        let link = ApprovalLink { response: id, webhook: receiver.name().to_owned(), person: person.to_owned(), until };
        let page = format!("{base}/approval/{}", engine.approval_links.text(&link));
        (!base.is_empty())
            .then(|| Choice { approve: format!("{page}?choice=approve"), reject: format!("{page}?choice=reject") })
    });
    if choice.is_none() {
        lines.extend(receiver.how_to_agree());
        lines.push(format!(
            "To decide: riposte response approve {id} --reason WHY, or riposte response reject {id} --reason WHY"
        ));
    }
    Ok(Some(Notice { title, lines, choice, is_urgent: true }))
}

/// A response that waits, in words.
pub(crate) struct WaitingResponse {
    /// What it will do, where and why, a line each: a name, a colon, a text.
    pub(crate) lines: Vec<String>,
    /// What happens without an answer, and when.
    pub(crate) silence: Option<String>,
}

/// What a response that waits will do; also what the page shows.
///
/// # Errors
/// If the ledger cannot be read.
pub(crate) async fn what_waits(
    engine: &Engine,
    id: Uuid,
    response: &ResponseRow,
) -> Result<WaitingResponse, StoreError> {
    let agents: Vec<Uuid> = response.agents.read()?;
    let names = agents.iter().take(NAMED).map(|id| engine.db.names().agent(*id).unwrap_or_else(|| id.to_string()));
    let mut named = names.map(|name| clean(&name)).collect::<Vec<_>>().join(", ");
    if agents.len() > NAMED {
        named = format!("{named} and {} more", agents.len() - NAMED);
    }
    let target = response.target_value.as_deref().map(clean).unwrap_or_default();
    let mut lines = vec![
        format!("Action: {}", clean(&response.action)),
        format!("Target: {} {target}", response.target_kind.as_deref().unwrap_or("none")).trim_end().to_owned(),
        format!("Agents: {named}"),
    ];
    let Consequences { on_silence, duration_millis } = approvals::consequences(&engine.db, id).await?;
    let span = duration_millis.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
    lines.push(span.map_or_else(
        || "For: until it is lifted by hand".to_owned(),
        |span| format!("For: {} from the approval on", Span::from(span)),
    ));
    lines.extend(alert_of(engine, response).await?);
    lines.extend(response.policy.as_ref().map(|policy| format!("Policy: {}", clean(policy))));
    if response.policy.is_none() {
        lines.push(format!("Asked for by: {}", clean(&response.requested_by)));
    }
    for (name, text) in [("Why", &response.detail), ("Reason", &response.note)] {
        if !text.is_empty() {
            lines.push(format!("{name}: {}", clean(text)));
        }
    }
    lines.extend(response.case_ref.as_ref().map(|case| format!("Case: {}", clean(case))));
    if let Some(quorum) = response.quorum.filter(|quorum| *quorum > 1) {
        lines.push(format!("Approvals: it needs {quorum} people"));
    }
    let done = if on_silence == Some(OnSilence::Enforce) { "carried out" } else { "rejected" };
    let silence = response.answer_by.map(|until| format!("Without an answer until {until} it is {done}."));
    Ok(WaitingResponse { lines, silence })
}

/// The alert that caused it: its rule, and what that says.
async fn alert_of(engine: &Engine, response: &ResponseRow) -> Result<Option<String>, StoreError> {
    let Some(id) = response.alert_id.as_deref().and_then(|id| id.parse().ok()) else { return Ok(None) };
    let Some(alert) = alerts::find(&engine.db, id).await? else { return Ok(None) };
    let document: Value = serde_json::from_str(&alert.text()?).unwrap_or_default();
    let about = document.pointer("/rule/description").and_then(Value::as_str).map(clean).unwrap_or_default();
    let rule = format!("Alert: rule {}, level {}: {about}", clean(&alert.rule_id), alert.rule_level);
    Ok(Some(rule.trim_end_matches([' ', ':']).to_owned()))
}

async fn breaker(engine: &Engine, row: &EventRow) -> Result<Option<Notice>, StoreError> {
    let Some(policy) = row.policy.as_deref() else { return Ok(None) };
    let as_a_whole = breakers::of_policy(&engine.db, policy).await?.is_some_and(|breaker| breaker.is_open);
    let is_open = as_a_whole || !breakers::agents_of_policy(&engine.db, policy).await?.is_empty();
    let title = format!("The policy {} has stopped itself", clean(policy));
    Ok(is_open.then(|| plain(engine, row, &title, true)))
}

async fn failing(engine: &Engine, row: &EventRow) -> Result<Option<Notice>, StoreError> {
    let Some(id) = row.effect_id.as_deref().and_then(|id| id.parse().ok()) else { return Ok(None) };
    let effect = effects::find(&engine.db, id).await?;
    let still = effect.is_some_and(|effect| effect.failed_reverts > 0);
    Ok(still.then(|| plain(engine, row, "A block cannot be lifted; the manager keeps trying", true)))
}

/// Agents come and go; it matters where something is in force that the agent must lift.
async fn away(engine: &Engine, row: &EventRow) -> Result<Option<Notice>, StoreError> {
    let Some(id) = row.agent_id.as_deref().and_then(|id| id.parse().ok()) else { return Ok(None) };
    if engine.presence(id, &engine.elsewhere().await?, engine.clock.now()) != Presence::Away {
        return Ok(None);
    }
    let held = effects::held_by(&engine.db, id).await?;
    let name = engine.db.names().agent(id).unwrap_or_else(|| id.to_string());
    let title = format!("The agent {} is away, and {} in force there", clean(&name), are(held, "effect"));
    Ok((held > 0).then(|| plain(engine, row, &title, true)))
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn are(count: i64, noun: &str) -> String {
    if count == 1 { format!("1 {noun} is") } else { format!("{count} {noun}s are") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_words() {
        assert_eq!(title_of("incident.alerts_late"), "Incident: alerts late");
        assert_eq!((counted(1, "agent"), are(2, "effect")), ("1 agent".into(), "2 effects are".into()));
    }
}
