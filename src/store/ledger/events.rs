//! The feed of events: rows that are written with the audit entries of a transaction and numbered in
//! the order of the commits. A number is given only under the head of the audit chain, which is held
//! to the commit, so numbers have no gap and a reader never sees a later one first.

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::story::About;
use crate::domain::audit::AuditEntry;
use crate::domain::event::EventType;
use crate::store::database::columns::id;
use crate::store::database::{Bind, Db, Result, Tx, binds, statements};
use crate::views::events::EventRow;

statements! {
    INSERT = "INSERT INTO events (seq, at, type, subject, actor, detail, alert_id, response_id, command_id, effect_id,
        agent_id, policy, action, target_kind, target_value) VALUES {15}";
    /// What the writer of an event did not know, its response or its effect does. The agents of a response are read
    /// only where the event has no agent of its own: there can be thousands.
    AFTER = "SELECT events.seq, events.at, events.type, events.subject, events.actor, events.detail,
            COALESCE(events.alert_id, responses.alert_id) AS alert_id, events.response_id, events.command_id,
            events.effect_id, COALESCE(events.agent_id, effects.agent_id) AS agent_id,
            COALESCE(events.policy, responses.policy) AS policy,
            COALESCE(events.action, responses.action, effects.action) AS action,
            COALESCE(events.target_kind, responses.target_kind, effects.target_kind) AS target_kind,
            COALESCE(events.target_value, responses.target_value, effects.target_value) AS target_value,
            responses.case_ref, responses.tlp, responses.mitre,
            CASE WHEN events.agent_id IS NULL THEN responses.agents ELSE NULL END AS response_agents
        FROM events
        LEFT JOIN responses ON responses.id = events.response_id
        LEFT JOIN effects ON effects.id = events.effect_id
        WHERE events.seq > $1 ORDER BY events.seq LIMIT $2";
    BOUNDS = "SELECT (SELECT MIN(seq) FROM events) AS oldest, events AS last FROM audit_head WHERE id = 1";
    /// Only from the beginning: what is left has no gap, also after a clock was set back.
    FORGET = "DELETE FROM events WHERE seq <= (
        SELECT MAX(seq) FROM (SELECT seq, at FROM events ORDER BY seq LIMIT $2) AS oldest WHERE at < $1)";
    /// The agents whose last event of these two says that they are connected.
    CONNECTED = "SELECT agent_id FROM events
        WHERE type IN ('agent.connected', 'agent.away') AND type = 'agent.connected'
            AND NOT EXISTS (SELECT 1 FROM events AS later WHERE later.agent_id = events.agent_id AND later.seq > events.seq
                AND later.type IN ('agent.connected', 'agent.away'))";
}

/// Maximum length of a detail, in characters: it may hold text of an agent or of a person.
const MAX_DETAIL: usize = 500;

/// The events of one transaction, not numbered yet.
#[derive(Debug, Default)]
pub(super) struct NewEvents(Vec<Vec<Bind>>);

impl NewEvents {
    /// Adds the events that an entry is.
    pub(super) fn add_entry(&mut self, entry: &AuditEntry, about: &About) {
        for kind in EventType::of(entry.event) {
            let subject = (entry.event.noun(), entry.noun_id.as_str());
            self.add(*kind, entry.at, &entry.actor.to_string(), subject, &entry.detail, about);
        }
    }

    /// Adds an event that is no entry.
    pub(super) fn add_loose(&mut self, event: &LooseEvent, about: &About, now: Timestamp) {
        let LooseEvent { kind, noun, noun_id, actor, detail } = event;
        self.add(*kind, now, actor, (noun, noun_id), detail, about);
    }

    fn add(
        &mut self,
        kind: EventType,
        at: Timestamp,
        actor: &str,
        (noun, noun_id): (&str, &str),
        detail: &str,
        about: &About,
    ) {
        let own = |of: &str| (noun == of).then_some(noun_id);
        let nil = Uuid::nil().to_string();
        // The revert of an effect that the ledger does not know has no response.
        let response = own("response").or(about.response.as_deref()).filter(|id| *id != nil);
        let agent = about.agent.map(|agent| agent.to_string());
        // What an agent reports of an effect is about itself; a response can be about several agents.
        let reported = own("effect").and_then(|_| actor.strip_prefix("agent:"));
        let agent = agent.as_deref().or(own("agent")).or(reported);
        let target = about.target.as_deref().map(|target| target.split_once(' ').unwrap_or((target, "")));
        let (target_kind, target_value) = target.unzip();
        let head = binds![at, kind.as_str(), format!("{noun}/{noun_id}"), actor, truncated(detail)];
        let ids = binds![about.alert, response, own("command"), own("effect"), agent];
        let what =
            binds![own("policy").or(about.policy.as_deref()), about.action.as_deref(), target_kind, target_value];
        self.0.push([head, ids, what].concat());
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes them behind event `last`. Returns the number of the last one.
    pub(super) async fn write(self, tx: &mut Tx, mut last: i64) -> Result<i64> {
        let mut rows = Vec::with_capacity(self.0.len());
        for row in self.0 {
            last += 1;
            rows.push([binds![last], row].concat());
        }
        tx.execute_rows(INSERT, rows, vec![]).await?;
        Ok(last)
    }
}

fn truncated(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An event that is no entry of the audit log.
#[derive(Clone, Debug)]
pub struct LooseEvent {
    /// Type.
    pub kind: EventType,
    /// Kind of the object.
    pub noun: &'static str,
    /// Id of the object.
    pub noun_id: String,
    /// What makes the change, as the audit log would name it.
    pub actor: String,
    /// Further detail.
    pub detail: String,
}

/// The kept events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct EventBounds {
    /// Number of the oldest one, if there is one.
    pub oldest: Option<i64>,
    /// Number of the last event ever; 0 before the first.
    pub last: i64,
}

impl EventBounds {
    /// Whether every event after `seq` is there, so that a follower can go on from it.
    pub fn reach(&self, seq: i64) -> bool {
        seq <= self.last && seq.saturating_add(1) >= self.oldest.unwrap_or(self.last.saturating_add(1))
    }
}

/// Which events are kept.
pub async fn bounds(db: &Db) -> Result<EventBounds> {
    Ok(db.optional(BOUNDS, vec![]).await?.unwrap_or_default())
}

/// The events after number `seq`, oldest first.
pub async fn after(db: &Db, seq: i64, limit: i64) -> Result<Vec<EventRow>> {
    db.all(AFTER, binds![seq, limit]).await
}

#[derive(sqlx::FromRow)]
struct AgentId {
    agent_id: String,
}

/// The agents that the feed says are connected.
pub async fn connected(db: &Db) -> Result<Vec<Uuid>> {
    let rows: Vec<AgentId> = db.all(CONNECTED, vec![]).await?;
    rows.iter().map(|row| id(&row.agent_id)).collect()
}

/// Removes events from before `cutoff` among the `limit` oldest. Returns their number.
pub(in crate::store) async fn forget(tx: &mut Tx, cutoff: Timestamp, limit: i64) -> Result<u64> {
    tx.execute(FORGET, binds![cutoff, limit]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database::plan;

    #[test]
    fn a_follower_goes_on_from_what_is_kept() {
        let kept = EventBounds { oldest: Some(5), last: 9 };
        let reached: Vec<i64> = (0..12).filter(|seq| kept.reach(*seq)).collect();
        assert_eq!(reached, [4, 5, 6, 7, 8, 9]);
        let nothing_left = EventBounds { oldest: None, last: 9 };
        assert_eq!((0..12).filter(|seq| nothing_left.reach(*seq)).collect::<Vec<_>>(), [9]);
        assert!(EventBounds::default().reach(0) && !EventBounds::default().reach(1));
    }

    #[test]
    fn a_detail_is_bounded() {
        assert_eq!(truncated("short"), "short");
        assert_eq!(truncated(&"ä".repeat(2000)).chars().count(), MAX_DETAIL + 1);
    }

    #[tokio::test]
    async fn events_are_read_by_their_numbers() {
        let read = plan(AFTER).await;
        assert!(read.iter().all(|step| step.starts_with("SEARCH")), "{read:?}");
        let connected = plan(CONNECTED).await;
        assert!(
            connected.iter().all(|step| !step.contains("SCAN") || step.contains("events_presence")),
            "{connected:?}"
        );
    }
}
