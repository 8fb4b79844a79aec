//! Selects the results to send on a connection: those in the outbox that were not sent on it yet,
//! in messages that fit. A new connection starts from nothing, so results that were lost with the
//! last one are sent again.

use std::collections::HashSet;

use riposte_protocol::message::{CommandResult, MAX_FRAME_BYTES, MAX_ITEMS, Outcome};
use uuid::Uuid;

use crate::journal::{Journal, JournalState};

/// Room for the rest of a message beside the results, in bytes.
const ENVELOPE_BYTES: usize = 64 * 1024;

/// Results that were sent on this connection and are not committed by the manager yet.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    sent: HashSet<Uuid>,
    /// Effects that were reported before a result about them was committed.
    told_too_soon: HashSet<Uuid>,
}

impl Outgoing {
    /// The next results to send, as many as one message holds, without those of `held_back`; empty
    /// if there are none. Marks them as sent.
    ///
    /// While the disk cannot be written, only refusals are sent. A crash would lose what was done
    /// meanwhile. If the manager knew of it, it would not order it again, and would deliver an
    /// older command after it.
    pub(super) fn next(&mut self, journal: &Journal, held_back: &HashSet<Uuid>) -> Vec<CommandResult> {
        let (mut results, mut bytes) = (Vec::new(), 0);
        let is_due = |id: &Uuid| !self.sent.contains(id) && !held_back.contains(id);
        let may_be_told = |result: &&CommandResult| journal.broken().is_none() || result.outcome == Outcome::Refused;
        let due = journal.state().outbox().iter().filter(|result| is_due(&result.command_id));
        for result in due.filter(may_be_told) {
            // In JSON one byte of output can become six, so the encoded size is counted.
            bytes += serde_json::to_vec(result).map_or(0, |json| json.len());
            if results.len() == MAX_ITEMS || (bytes > MAX_FRAME_BYTES - ENVELOPE_BYTES && !results.is_empty()) {
                break;
            }
            results.push(result.clone());
        }
        self.sent.extend(results.iter().map(|result| result.command_id));
        results
    }

    /// Marks these effects as reported. The manager ignores a report of an effect while it awaits a
    /// result about it, and that result may be older than the report. So these effects are reported
    /// again when the result is committed ([`Outgoing::take_settled`]).
    pub(super) fn told_of(&mut self, state: &JournalState, effects: impl IntoIterator<Item = Uuid>) {
        let unsettled = state.unsettled();
        self.told_too_soon.extend(effects.into_iter().filter(|effect| unsettled.contains(effect)));
    }

    /// Results were committed: returns the effects to report again.
    pub(super) fn take_settled(&mut self, state: &JournalState) -> Vec<Uuid> {
        if self.told_too_soon.is_empty() {
            return Vec::new();
        }
        let unsettled = state.unsettled();
        let settled: Vec<Uuid> = self.told_too_soon.extract_if(|effect| !unsettled.contains(effect)).collect();
        let is_there = |effect: &Uuid| {
            state.held_effect(*effect).is_some() || state.released().any(|released| released.effect == *effect)
        };
        settled.into_iter().filter(is_there).collect()
    }

    /// Sends the results of these commands again, if they are still in the outbox.
    pub(super) fn again<'a>(&mut self, commands: impl IntoIterator<Item = &'a Uuid>) {
        for id in commands {
            self.sent.remove(id);
        }
    }
}
