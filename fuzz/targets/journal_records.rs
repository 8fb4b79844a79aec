//! The state that follows from a journal's records: a compaction changes nothing of it, and no effect
//! gets lost or appears.

use std::collections::BTreeSet;

use riposte_agent::journal::{JournalState, Record};
use uuid::Uuid;

use crate::memory_disk::MemoryDisk;

/// Batches, one a line: an array of records each, as in the journal without its checksum.
pub(crate) fn check(input: &[u8]) {
    let lines = input.split(|byte| *byte == b'\n').take(64);
    let batches: Vec<Vec<Record>> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let disk = MemoryDisk::default();
    let (mut file, _) = disk.open().unwrap();
    for batch in &batches {
        file.append(batch).unwrap();
    }
    let records = batches.concat();
    let (_, read) = disk.open().unwrap();
    assert_eq!(read.records, records, "what is written is read");
    let state = JournalState::of(records.iter().cloned());
    let held: BTreeSet<Uuid> = state.held().map(|held| held.effect).collect();
    assert_eq!(held, expected(&records), "the effects in force");
    file.compact(&state.records()).unwrap();
    let (_, compacted) = disk.open().unwrap();
    let again = JournalState::of(compacted.records);
    same(&state, &again);
    assert_eq!(again.records(), state.records(), "compacted once more");
}

/// The effects in force, by the last record about each.
fn expected(records: &[Record]) -> BTreeSet<Uuid> {
    let mut held = BTreeSet::new();
    for record in records {
        match record {
            Record::Held { held: one } => drop(held.insert(one.effect)),
            Record::Lifted { effect } => drop(held.remove(effect)),
            Record::Released { released } => drop(held.remove(&released.effect)),
            _ => {}
        }
    }
    held
}

fn same(one: &JournalState, other: &JournalState) {
    assert!(one.held().eq(other.held()), "effects in force");
    assert!(one.pending().eq(other.pending()), "commands that are not finished");
    assert_eq!(one.outbox(), other.outbox(), "results that are not reported");
    assert!(one.released().eq(other.released()), "releases that are not reported");
    assert_eq!(one.latest_order(), other.latest_order());
    assert_eq!((one.is_whole(), one.unsettled()), (other.is_whole(), other.unsettled()));
    assert_eq!(one.inbox().cursor(), other.inbox().cursor());
    assert!(one.inbox().missing().eq(other.inbox().missing()));
    let lifted = |state: &JournalState, effect| state.has_lifted(effect);
    for effect in one.held().map(|held| held.effect) {
        assert_eq!(lifted(one, effect), lifted(other, effect));
    }
}
