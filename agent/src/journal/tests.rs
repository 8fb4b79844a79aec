//! The journal after crashes, bad disks and clock changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use riposte_protocol::command::{Command, Op};
use riposte_protocol::delivery::Receipt;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::target::Target;
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use super::disk::{Disk, FileDisk};
use super::file::{JournalError, JournalFile, read};
use super::{Held, Journal, JournalState, Record};

fn journal() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    (directory, path)
}

/// Opens a journal as the agent does, without the compaction.
fn open(path: &Path) -> Result<(JournalFile, Vec<Record>), JournalError> {
    let (mut file, contents) = JournalFile::load(path, Box::new(FileDisk::new(path)))?;
    file.repair()?;
    Ok((file, contents.records))
}

fn received(seq: u64, effect: u8) -> Record {
    Record::Received {
        command: Box::new(Command {
            iss: "riposte".into(),
            aud: Uuid::nil(),
            jti: Uuid::from_u128(u128::from(seq)),
            seq,
            iat: 0,
            exp: 1,
            op: Op::Apply,
            effect: Uuid::from_u128(u128::from(effect) << 64),
            action: "log-only".into(),
            target: Target::none(),
            arguments: vec!["ü\n".into()],
            until: None,
            response: Uuid::nil(),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        }),
    }
}

fn finished(seq: u64) -> Record {
    Record::Finished {
        result: Box::new(CommandResult {
            command_id: Uuid::from_u128(u128::from(seq)),
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            output: "done".into(),
            verified: Some(true),
            message: String::new(),
            evidence: None,
            started_at: Timestamp::from_millis(1),
            finished_at: Timestamp::from_millis(2),
            observed: false,
        }),
    }
}

fn held(effect: u8) -> Record {
    Record::Held {
        held: Box::new(Held {
            effect: Uuid::from_u128(u128::from(effect) << 64),
            action: "log-only".into(),
            target: Target::none(),
            arguments: vec![],
            until: Some(Timestamp::from_millis(i64::from(effect))),
            term: None,
            script: None,
            undo: serde_json::json!({"before": effect}),
            actual: None,
            drifts: 0,
            failing: None,
            in_log: true,
        }),
    }
}

#[test]
fn a_journal_torn_at_any_byte_keeps_the_records_before_and_invents_none() {
    let (_directory, path) = journal();
    let batches = [vec![received(1, 1), received(2, 2)], vec![held(1), held(2)], vec![finished(1)]];
    let (mut file, _) = open(&path).unwrap();
    let mut ends = vec![0];
    for batch in &batches {
        file.append(batch).unwrap();
        ends.push(std::fs::metadata(&path).unwrap().len());
    }
    let whole = std::fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let complete = ends[1..].iter().filter(|end| **end <= length as u64).count();
        let expected: Vec<Record> = batches[..complete].concat();
        let (mut file, records) = open(&path).unwrap();
        assert_eq!(records, expected, "cut at byte {length}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), ends[complete], "the torn line is cut off");
        file.append(&[finished(2)]).unwrap();
        assert_eq!(read(&path).unwrap().records.last(), Some(&finished(2)), "and it can be written on");
    }
}

#[test]
fn a_last_line_of_garbage_is_cut_off_like_a_torn_one() {
    let (_directory, path) = journal();
    let (mut file, _) = open(&path).unwrap();
    file.append(&[held(1)]).unwrap();
    let good = std::fs::read(&path).unwrap();
    for garbage in [&b"\0\0\0\0\0\n\0\0\n"[..], b"00000000 []\n", b"\n", b"zzzzzzzz [\n", "é\n".as_bytes()] {
        std::fs::write(&path, [&good, garbage].concat()).unwrap();
        assert_eq!(open(&path).unwrap().1, [held(1)], "{garbage:?}");
    }
}

#[test]
fn damage_in_the_middle_refuses_to_start_whichever_byte_it_is() {
    let (_directory, path) = journal();
    let (mut file, _) = open(&path).unwrap();
    file.append(&[held(1)]).unwrap();
    let first_line = std::fs::metadata(&path).unwrap().len();
    file.append(&[held(2)]).unwrap();
    let good = std::fs::read(&path).unwrap();
    for position in 0..usize::try_from(first_line).unwrap() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { line: 1, .. }), "byte {position}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), bad, "and nothing is changed");
    }
}

#[test]
fn a_record_of_a_newer_version_refuses_to_start() {
    let (_directory, path) = journal();
    let json = br#"[{"record":"prophecy"}]"#;
    let line = format!("{:08x} {}\n", crc32fast::hash(json), std::str::from_utf8(json).unwrap());
    std::fs::write(&path, line).unwrap();
    assert!(matches!(open(&path).unwrap_err(), JournalError::Unknown { line: 1, .. }));
}

#[test]
fn a_long_life_does_not_make_a_large_journal() {
    let (_directory, path) = journal();
    let mut journal = Journal::open(&path).unwrap();
    for seq in 1..=6000 {
        journal.add(received(seq, 1));
        journal.add(finished(seq));
        journal.add(Record::Acknowledged { ids: vec![Uuid::from_u128(u128::from(seq))] });
        if seq % 100 == 0 {
            journal.commit().unwrap();
        }
    }
    journal.commit().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 2 * 1024 * 1024);
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.state().inbox().cursor(), 6000);
    assert_eq!(journal.state().inbox().receive(Uuid::from_u128(1), 1, Uuid::nil()), Receipt::Duplicate);
}

/// A disk in memory that can be made to fail; its bytes are what the agent could read after a
/// crash.
#[derive(Clone, Debug, Default)]
struct BadDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    /// Free space, in bytes; `None` is unlimited.
    room: Option<usize>,
    cannot_cut: bool,
    cannot_read: bool,
}

impl Disk for BadDisk {
    fn load(&self) -> io::Result<Vec<u8>> {
        let disk = self.0.lock().unwrap();
        if disk.cannot_read { Err(io::Error::other("gone")) } else { Ok(disk.bytes.clone()) }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let taken = disk.room.unwrap_or(bytes.len()).min(bytes.len());
        disk.bytes.extend(&bytes[..taken]);
        disk.room = disk.room.map(|room| room - taken);
        if taken == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.cannot_cut {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        disk.bytes.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.room.is_some_and(|room| room < bytes.len()) || disk.cannot_cut {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.bytes = bytes.into();
        Ok(())
    }
}

fn journal_on(disk: &BadDisk) -> Journal {
    Journal::open_on(Path::new("journal"), Box::new(disk.clone())).unwrap()
}

#[test]
fn a_batch_that_was_written_in_part_does_not_count() {
    for cannot_cut in [false, true] {
        for room in 0..400 {
            let disk = BadDisk::default();
            let mut journal = journal_on(&disk);
            journal.add(held(1));
            journal.commit().unwrap();
            let before = journal.state().records();
            (disk.0.lock().unwrap().room, disk.0.lock().unwrap().cannot_cut) = (Some(room), cannot_cut);
            journal.add(held(2));
            journal.add(received(1, 3));
            journal.commit().unwrap();
            let Some(reason) = journal.broken() else { continue };
            assert_eq!(reason, "cannot write the journal journal: no storage space");
            assert_eq!(journal.state().records(), before, "{room}");
            // A noted record stays true in memory, and is written as soon as there is space.
            journal.note(vec![Record::Lifted { effect: Uuid::from_u128(1 << 64) }]).unwrap();
            journal.mend();
            assert!(journal.broken().is_some() || !cannot_cut, "{room}");
            (disk.0.lock().unwrap().room, disk.0.lock().unwrap().cannot_cut) = (None, false);
            journal.mend();
            assert_eq!(journal.broken(), None);
            assert_eq!(journal_on(&disk).state().held().count(), 0, "{room}");
        }
    }
}

#[test]
fn a_journal_on_a_read_only_disk_is_broken_and_complete() {
    let disk = BadDisk::default();
    let mut journal = journal_on(&disk);
    journal.add(held(1));
    journal.commit().unwrap();
    (disk.0.lock().unwrap().room, disk.0.lock().unwrap().cannot_cut) = (Some(0), true);
    let mut journal = journal_on(&disk);
    assert!(journal.broken().is_some());
    assert_eq!(journal.state().held().count(), 1);
    journal.note(vec![Record::Lifted { effect: Uuid::from_u128(1 << 64) }]).unwrap();
    assert_eq!(journal.state().held().count(), 0);
}

#[test]
fn a_disk_without_room_for_a_compaction_still_takes_lines() {
    let disk = BadDisk::default();
    let mut journal = journal_on(&disk);
    for effect in 0..20 {
        journal.add(held(effect));
    }
    journal.commit().unwrap();
    disk.0.lock().unwrap().room = Some(1000);
    let mut journal = journal_on(&disk);
    assert_eq!(journal.broken(), None);
    journal.add(finished(1));
    journal.commit().unwrap();
    assert_eq!(journal.broken(), None);
}

#[test]
fn a_journal_that_can_be_neither_written_nor_read_stops_the_agent() {
    let disk = BadDisk::default();
    let mut journal = journal_on(&disk);
    (disk.0.lock().unwrap().room, disk.0.lock().unwrap().cannot_read) = (Some(0), true);
    journal.add(held(1));
    assert!(journal.commit().is_err());
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let record = prop_oneof![
        3 => (1u64..40, 0u8..5).prop_map(|(seq, effect)| received(seq, effect)),
        2 => (1u64..40).prop_map(|seq| Record::Started {
            id: Uuid::from_u128(u128::from(seq)),
            at: Timestamp::from_millis(7),
            evidence: (seq % 3 == 0).then(|| Box::new(serde_json::json!({"kind": "process"}))),
        }),
        3 => (1u64..40).prop_map(finished),
        1 => (1u64..40).prop_map(|seq| Record::Acknowledged { ids: vec![Uuid::from_u128(u128::from(seq))] }),
        2 => (0u8..5).prop_map(held),
        1 => (0u8..5).prop_map(|effect| match held(effect) {
            Record::Held { held } => held.released(Timestamp::from_millis(9), "by hand"),
            other => other,
        }),
        1 => (0u8..5).prop_map(|effect| Record::ReleaseTold { effects: vec![Uuid::from_u128(u128::from(effect) << 64)] }),
        1 => (0u8..5).prop_map(|effect| Record::Lifted { effect: Uuid::from_u128(u128::from(effect) << 64) }),
    ];
    proptest::collection::vec(record, 0..120)
}

/// What the agent can write: a command arrives only once, and begins or finishes only after that.
fn possible(records: Vec<Record>, received: &mut std::collections::HashSet<Uuid>) -> Vec<Record> {
    let is_possible = |record: &Record| match record {
        Record::Received { command } => received.insert(command.jti),
        Record::Started { id, .. } => received.contains(id),
        Record::Finished { result } => received.contains(&result.command_id),
        _ => true,
    };
    records.into_iter().filter(is_possible).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_compacted_journal_means_the_same(records in records(), later in records()) {
        let mut received = std::collections::HashSet::new();
        let records = possible(records, &mut received);
        let later = possible(later, &mut received);
        let (_directory, path) = journal();
        let (mut file, _) = open(&path).unwrap();
        file.append(&records).unwrap();
        let mut plain = JournalState::default();
        records.iter().cloned().for_each(|record| plain.apply(record));
        let journal = Journal::open(&path).unwrap();
        prop_assert_eq!(journal.state().records(), plain.records());
        drop(journal);

        let mut again = JournalState::default();
        read(&path).unwrap().records.into_iter().for_each(|record| again.apply(record));
        prop_assert_eq!(again.records(), plain.records());
        for seq in 0..45 {
            for effect in 0..5 {
                let (id, effect) = (Uuid::from_u128(u128::from(seq)), Uuid::from_u128(effect << 64));
                prop_assert_eq!(again.inbox().receive(id, seq, effect), plain.inbox().receive(id, seq, effect));
            }
        }
        for record in later {
            plain.apply(record.clone());
            again.apply(record);
        }
        prop_assert_eq!(again.records(), plain.records());
    }
}
