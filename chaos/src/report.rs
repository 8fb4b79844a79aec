//! The results of a run as tables: for the terminal, and as Markdown for the documents.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::faults::{Database, FaultKind};
use crate::verify::{Counts, Verdict};

/// The results of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) database: Database,
    pub(crate) seed: u64,
    /// How long faults were injected, in seconds.
    pub(crate) seconds: u64,
    /// Number of agents.
    pub(crate) agents: u64,
    /// Requested rate, in alerts a second.
    pub(crate) rate: f64,
    /// Rate of acknowledgements while faults were injected, in alerts a second.
    pub(crate) reached: f64,
    /// How often each fault was injected.
    pub(crate) faults: BTreeMap<FaultKind, usize>,
    /// Faults that could not be injected, with the reason.
    pub(crate) not_injected: Vec<String>,
    /// Number of the load's requests by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Times until an acknowledgement, in milliseconds, sorted.
    pub(crate) latencies_ms: Vec<u32>,
    /// Time from the last fault until no command was pending, in seconds.
    pub(crate) quiet_after: f64,
    /// Programs that ended unexpectedly, with how often.
    pub(crate) ended: BTreeMap<String, usize>,
    /// One verdict for each promise.
    pub(crate) verdicts: Vec<Verdict>,
    /// Other counters.
    pub(crate) counts: Counts,
}

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

impl Report {
    /// Number of violations.
    pub(crate) fn broken(&self) -> usize {
        self.verdicts.iter().map(|verdict| verdict.broken).sum()
    }

    /// The report as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { database, seed, seconds, agents, rate, reached, quiet_after, .. } = self;
        writeln!(text, "#### {}: seed {seed}, {seconds} s, {agents} agents\n", database.name())?;
        let alerts = self.counts.counts.get("alerts acknowledged").copied().unwrap_or(0);
        writeln!(
            text,
            "{rate:.0} alerts/s asked for, {reached:.0} acknowledged a second on average, outages included; {alerts} in all. \
             Quiet {quiet_after:.0} s after the last fault.\n"
        )?;
        writeln!(text, "| promise | checked | broken |\n|---|---|---|")?;
        for Verdict { promise, checked, broken, .. } in &self.verdicts {
            writeln!(
                text,
                "| {promise} | {checked} | {} |",
                if *broken == 0 { "–".into() } else { format!("**{broken}**") }
            )?;
        }
        writeln!(text, "\n| fault | times |\n|---|---|")?;
        for (kind, times) in &self.faults {
            writeln!(text, "| {} | {times} |", kind.name())?;
        }
        for what in &self.not_injected {
            writeln!(text, "| not injected here: {what} | – |")?;
        }
        writeln!(text, "\n| other figures | |\n|---|---|")?;
        for (word, times) in &self.outcomes {
            writeln!(text, "| requests of the pipeline: {word} | {times} |")?;
        }
        let at = |percent| percentile(&self.latencies_ms, percent);
        writeln!(text, "| time to acknowledge, ms: p50, p99, maximum | {}, {}, {} |", at(50), at(99), at(100))?;
        let late = |percent| percentile(&self.counts.late_ms, percent);
        writeln!(
            text,
            "| delay of a lift after the end of its block, ms: p50, p99, maximum | {}, {}, {} |",
            late(50),
            late(99),
            late(100)
        )?;
        for (name, count) in &self.counts.counts {
            writeln!(text, "| {name} | {count} |")?;
        }
        for (name, times) in &self.ended {
            writeln!(text, "| ended unexpectedly, restarted: {name} | {times} |")?;
        }
        for verdict in self.verdicts.iter().filter(|verdict| verdict.broken > 0) {
            writeln!(text, "\n**Broken: {}**\n", verdict.promise)?;
            for what in &verdict.told {
                writeln!(text, "- {what}")?;
            }
        }
        Ok(())
    }
}
