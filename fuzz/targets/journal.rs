//! Recovery of the agent's journal: whatever a crash or a bad disk left of a file, the agent refuses
//! to start, or knows exactly the batches that were durable.

use riposte_agent::journal::{JournalError, Record};
use uuid::Uuid;

use crate::input::{number, parts};
use crate::memory_disk::MemoryDisk;

/// Batches, one a byte (its number of records), and what happens to the file: a kind of fault, a
/// place of seven bytes, and bytes.
pub(crate) fn check(input: &[u8]) {
    let [batches, fault] = parts(input);
    any_bytes(input);
    let disk = MemoryDisk::default();
    let (mut file, _) = disk.open().unwrap();
    let (mut ends, mut durable) = (vec![0], Vec::new());
    for (number, count) in (0_u128..).zip(batches.iter().take(16)) {
        let batch: Vec<Record> = (0..u128::from(count % 5)).map(|nth| lifted(number << 8 | nth)).collect();
        file.append(&batch).unwrap();
        ends.push(disk.bytes().len());
        durable.push(batch);
    }
    let Some((kind, fault)) = fault.split_first() else { return };
    let mut bytes = disk.bytes();
    let at = number(fault) % (bytes.len() + 1);
    let more = fault.get(7..).unwrap_or_default();
    let whole = ends.iter().rposition(|end| *end <= at).unwrap();
    match kind % 4 {
        0 => {
            bytes.truncate(at);
            exactly(&bytes, &durable[..whole]);
        }
        1 => {
            // A torn write: a part of the line that was not acknowledged, or what was on the disk there.
            bytes.truncate(ends[whole]);
            bytes.extend(more.iter().filter(|byte| **byte != b'\n'));
            if !more.contains(&b'\n') {
                exactly(&bytes, &durable[..whole]);
            }
        }
        2 => changed(&bytes, at, more, &ends, &durable),
        _ => {
            // The same lines in another order. Each is intact, so none is lost or invented.
            let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            let middle = at % lines.len().max(1);
            lines.rotate_left(middle);
            let mut found = records(&lines.concat()).unwrap();
            let mut expected = durable.concat();
            let order = |record: &Record| format!("{record:?}");
            found.sort_by_key(order);
            expected.sort_by_key(order);
            assert_eq!(found, expected);
        }
    }
}

fn lifted(number: u128) -> Record {
    Record::Lifted { effect: Uuid::from_u128(number + 1) }
}

fn records(bytes: &[u8]) -> Result<Vec<Record>, JournalError> {
    MemoryDisk::with(bytes.to_vec()).open().map(|(_, contents)| contents.records)
}

/// The journal has `durable` and nothing else, and can be written on.
fn exactly(bytes: &[u8], durable: &[Vec<Record>]) {
    let disk = MemoryDisk::with(bytes.to_vec());
    let (mut file, contents) = disk.open().unwrap();
    assert_eq!(contents.records, durable.concat());
    file.append(&[lifted(u128::MAX - 1)]).unwrap();
    let mut after = durable.concat();
    after.push(lifted(u128::MAX - 1));
    assert_eq!(records(&disk.bytes()).unwrap(), after, "what follows a repair is durable");
}

/// Bytes in the middle have changed.
fn changed(bytes: &[u8], at: usize, more: &[u8], ends: &[usize], durable: &[Vec<Record>]) {
    let mut now = bytes.to_vec();
    now.splice(at..(at + more.len()).min(bytes.len()), more.iter().copied());
    if now == bytes {
        return;
    }
    let first = ends.iter().rposition(|end| *end <= at).unwrap();
    match records(&now) {
        Err(_) => {}
        // A change that leaves every line intact is a line that was appended or replaced on purpose.
        Ok(found) => {
            let before: Vec<Record> = durable[..first].concat();
            assert_eq!(&found[..before.len().min(found.len())], before, "the lines before are intact");
            let invented = |record: &&Record| !durable.concat().contains(record);
            assert!(!found.iter().any(|record| invented(&record)) || is_forged(more), "{found:?}");
            let lines = ends.len() - 1;
            assert!(
                found.len() >= before.len()
                    && (first + 1 >= lines
                        || found.len() == before.len()
                        || is_forged(more)
                        || found == durable.concat()
                        || at + more.len() >= ends[lines - 1]),
                "an intact line follows, and the one before it is skipped"
            );
        }
    }
}

/// Whether the fuzzer wrote a line of its own, with the right checksum.
fn is_forged(more: &[u8]) -> bool {
    more.contains(&b'\n')
}

/// Any bytes as a journal: it is read in the same way after its repair.
fn any_bytes(bytes: &[u8]) {
    let disk = MemoryDisk::with(bytes.to_vec());
    if let Ok((_, contents)) = disk.open() {
        assert_eq!(contents.whole_bytes + contents.torn_bytes, bytes.len() as u64);
        let (_, again) = disk.open().unwrap();
        assert_eq!((again.records, again.torn_bytes), (contents.records, 0));
        assert_eq!(disk.bytes(), bytes[..usize::try_from(contents.whole_bytes).unwrap()]);
    }
}
