//! What became of a call of `PUT /active-response`, in Wazuh's words: one of its three messages and numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::domain::action::Action;
use crate::domain::agent::Agent;
use crate::domain::response::ResponseState;
use crate::views::wazuh::{WazuhFailedItem, WazuhItemError, WazuhItems, WazuhReport};

/// A response as far as the answer needs it.
#[derive(Clone, Debug)]
pub struct MadeResponse {
    /// Its id.
    pub id: Uuid,
    /// Its state, once it was committed.
    pub state: ResponseState,
    /// Why it has this state; empty where the state says all.
    pub detail: String,
    /// The agents that it acts on.
    pub agents: Vec<Uuid>,
    /// Whether the caller could not say for how long.
    pub is_endless_by_form: bool,
}

/// The answer to a call whose command is known.
pub fn of_response(
    response: &MadeResponse,
    action: &Action,
    asked: &BTreeMap<String, Arc<Agent>>,
    mut failed: Vec<WazuhFailedItem>,
) -> WazuhReport<String> {
    let is_spared = response.state == ResponseState::Spared;
    let mut affected = Vec::with_capacity(asked.len());
    for (id, agent) in asked {
        if !is_spared && response.agents.contains(&agent.id) {
            affected.push(id.clone());
        } else if let Some(why) = agent.cannot(action) {
            failed.push(WazuhItemError::disabled(why).of(std::slice::from_ref(id)));
        } else {
            let why = if is_spared { response.detail.as_str() } else { "it is protected" };
            failed.push(WazuhItemError::not_eligible(why).of(std::slice::from_ref(id)));
        }
    }
    let mut report = report(affected, failed);
    let MadeResponse { id, detail, .. } = response;
    if response.state == ResponseState::AwaitingApproval {
        report.message = format!("{}: response {id} is awaiting_approval ({detail})", report.message);
    } else if response.is_endless_by_form && !is_spared {
        report.message = format!("{}: response {id} stays in force until it is lifted", report.message);
    }
    report
}

/// The answer to a call whose command no agent has.
pub fn of_unknown_command(
    why: &str,
    asked: &BTreeMap<String, Arc<Agent>>,
    mut failed: Vec<WazuhFailedItem>,
) -> WazuhReport<String> {
    failed.extend(asked.keys().map(|id| WazuhItemError::no_command(why).of(std::slice::from_ref(id))));
    report(Vec::new(), failed)
}

/// The answer with these items.
pub fn report(affected: Vec<String>, failed: Vec<WazuhFailedItem>) -> WazuhReport<String> {
    let failed = grouped(failed);
    let total_failed_items = failed.iter().map(|item| item.id.len()).sum();
    let message = match (affected.is_empty(), failed.is_empty()) {
        (true, _) => "AR command was not sent to any agent",
        (false, true) => "AR command was sent to all agents",
        (false, false) => "AR command was not sent to some agents",
    };
    let error = match (affected.is_empty(), failed.is_empty()) {
        (_, true) => 0,
        (true, false) => 1,
        (false, false) => 2,
    };
    let data = WazuhItems {
        total_affected_items: affected.len(),
        affected_items: affected,
        total_failed_items,
        failed_items: failed,
    };
    WazuhReport { data, message: message.to_owned(), error }
}

/// Items that failed for the same reason become one with all their ids, as in Wazuh.
fn grouped(failed: Vec<WazuhFailedItem>) -> Vec<WazuhFailedItem> {
    let mut grouped: Vec<WazuhFailedItem> = Vec::new();
    for item in failed {
        match grouped.iter_mut().find(|known| known.error == item.error) {
            Some(known) => known.id.extend(item.id),
            None => grouped.push(item),
        }
    }
    for item in &mut grouped {
        item.id.sort_unstable();
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_of_three_messages_and_its_number() {
        let failed =
            |ids: &[&str]| ids.iter().map(|id| WazuhItemError::no_agent().of(&[(*id).to_owned()])).collect::<Vec<_>>();
        let affected = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        for (ok, wrong, message, error) in [
            (&["005", "006"][..], &[][..], "AR command was sent to all agents", 0),
            (&["005"], &["009", "008"], "AR command was not sent to some agents", 2),
            (&[], &["009"], "AR command was not sent to any agent", 1),
            (&[], &[], "AR command was not sent to any agent", 0),
        ] {
            let report = report(affected(ok), failed(wrong));
            assert_eq!((report.message.as_str(), report.error), (message, error));
            assert_eq!((report.data.total_affected_items, report.data.total_failed_items), (ok.len(), wrong.len()));
            assert!(report.data.failed_items.len() <= 1, "one reason is one item: {report:?}");
        }
    }
}
