//! What the verifier judges by, and its verdict on one promise.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::alert_files::Written;
use crate::ledger::{Effect, Ledger};
use crate::load::Seen;
use crate::plan::Plan;
use crate::shield::Turned;
use crate::witness::Witnessed;

/// Limit of violations of one promise that are described.
const TOLD: usize = 12;

/// Result of the verification of one promise.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) promise: &'static str,
    /// Number of things that were checked.
    pub(crate) checked: usize,
    /// Number of violations.
    pub(crate) broken: usize,
    /// Descriptions of the first violations.
    pub(crate) told: Vec<String>,
}

impl Verdict {
    /// A promise without any check yet.
    pub(crate) const fn of(promise: &'static str) -> Self {
        Self { promise, checked: 0, broken: 0, told: Vec::new() }
    }

    /// Checks one thing.
    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.broken += 1;
            if self.told.len() < TOLD {
                self.told.push(what());
            }
        }
    }
}

/// An agent's status and deeds.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: String,
    /// Output of its `status` command.
    pub(crate) status: Value,
    /// What it did, in order.
    pub(crate) deeds: Vec<Witnessed>,
}

/// All evidence at the end of a run.
#[derive(Debug)]
pub(crate) struct Evidence<'a> {
    /// The posted alerts.
    pub(crate) plan: &'a Plan,
    /// The client's view.
    pub(crate) seen: &'a Seen,
    /// The lines of `alerts.json`.
    pub(crate) written: &'a Written,
    /// What went wrong with the forwarder.
    pub(crate) wrong_forwarding: &'a [String],
    /// The manager's ledger.
    pub(crate) ledger: &'a Ledger,
    /// The agents' status and deeds.
    pub(crate) accounts: &'a [Account],
    /// When [`crate::plan::Network::TURNING`] became protected.
    pub(crate) turned: Turned,
    /// Effects that were wanted in force before all responses were lifted by hand.
    pub(crate) wanted: &'a [Effect],
    /// Time at which lifting by hand started, in Unix milliseconds.
    pub(crate) lifted_at_ms: i64,
}

/// Other counters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Counters by name.
    pub(crate) counts: BTreeMap<String, usize>,
    /// How late blocks were lifted, in milliseconds, sorted.
    pub(crate) late_ms: Vec<i64>,
}
