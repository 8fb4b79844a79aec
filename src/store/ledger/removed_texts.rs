//! Whether texts of the audit log that are gone were removed by the manager (`forgotten.rs`).

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::actor::Actor;
use crate::domain::audit::AuditEvent;
use crate::domain::forgotten::{ForgettingKey, unproven_entries};
use crate::views::audit::AuditRow;

/// The entries of an audit log whose texts were removed, and the lists of the log that say so. An intruder who removes
/// texts of others, or writes others in their place, is found.
#[derive(Debug, Default)]
pub(super) struct RemovedTexts {
    /// By number: the pseudonyms that stand in the entry.
    found: BTreeMap<i64, Vec<String>>,
    /// By number and pseudonym.
    told: BTreeSet<(i64, String)>,
    /// An entry with something else in the place of a removed text.
    wrong: Option<i64>,
}

impl RemovedTexts {
    /// Looks at the next entry.
    pub(super) fn look(&mut self, row: &AuditRow, key: Option<&ForgettingKey>) {
        if let Some(names) = row.pseudonyms() {
            if names.is_empty() {
                self.wrong.get_or_insert(row.seq);
            }
            self.found.insert(row.seq, names.into_iter().map(str::to_owned).collect());
        }
        let is_list = AuditEvent::parse(&row.noun, &row.verb) == Some(AuditEvent::UserTextsRemoved);
        if is_list && row.commitments.is_none() && row.actor == Actor::Riposte.to_string() {
            let entries = match key {
                Some(key) => key.open(&row.noun_id, &row.detail).unwrap_or_default(),
                None => unproven_entries(&row.detail),
            };
            let earlier = entries.into_iter().filter(|seq| *seq < row.seq);
            self.told.extend(earlier.map(|seq| (seq, row.noun_id.clone())));
        }
    }

    /// The first entry whose texts are gone or replaced, and nothing says why.
    pub(super) fn unexplained(&self) -> Option<i64> {
        let is_told = |seq: i64, names: &[String]| names.iter().all(|name| self.told.contains(&(seq, name.clone())));
        let untold = self.found.iter().find(|(seq, names)| !is_told(**seq, names)).map(|(seq, _)| *seq);
        [self.wrong, untold].into_iter().flatten().min()
    }

    /// How many entries lost texts.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.found.len()).unwrap_or(i64::MAX)
    }
}
