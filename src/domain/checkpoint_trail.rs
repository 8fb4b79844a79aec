//! The checkpoints of a ledger, compared with its audit log: what `riposte audit verify --checkpoint`
//! finds. It reads a file of checkpoints, one a line; a line may begin with other words, as those of a
//! syslog file do, or be the body of a webhook.

use riposte_protocol::time::Timestamp;

use super::checkpoint::{ChainHash, Checkpoint, CheckpointError, CheckpointKeys, CheckpointOpener};

/// What is wrong with a trail of checkpoints, or with the log that it was compared with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailFault {
    /// A line that does not count.
    #[error("line {line} {error}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// Why.
        error: CheckpointError,
    },
    /// No line at all.
    #[error("there is no checkpoint in it")]
    Empty,
    /// Two checkpoints are of different ledgers.
    #[error("it holds checkpoints of different ledgers: {0} and {1}")]
    Mixed(ChainHash, ChainHash),
    /// The log begins with another entry than the checkpoints say.
    #[error(
        "the checkpoints are of another ledger ({theirs}; this log begins with {ours}), or the log was rewritten from its first \
         entry"
    )]
    OtherLedger {
        /// What the checkpoints say.
        theirs: ChainHash,
        /// Hash of the log's first entry.
        ours: ChainHash,
    },
    /// The log ends before a checkpoint.
    #[error(
        "the end of the audit log is missing: it has {entries} entries, and had {seq} at {at}. They were deleted, or a backup of \
         before was restored"
    )]
    Cut {
        /// Entries of the log.
        entries: i64,
        /// Entries of the checkpoint.
        seq: i64,
        /// Time of the checkpoint.
        at: Timestamp,
    },
    /// The log has another entry than the checkpoint says.
    #[error(
        "the audit log was rewritten: entry {seq} is not what it was at {at}. It, or an entry before it, was changed, or a backup \
         of before was restored"
    )]
    Rewritten {
        /// The entry.
        seq: i64,
        /// Time of the checkpoint.
        at: Timestamp,
    },
}

/// Checkpoints that count, by the entry that they cover.
#[derive(Clone, Debug, Default)]
pub struct CheckpointTrail {
    checkpoints: Vec<Checkpoint>,
}

/// The checkpoint of a line: its last word; or, in the JSON of a webhook, the text that is one.
fn token_of(line: &str) -> Option<&str> {
    let last = line.split_whitespace().next_back()?;
    let mut quoted = line.split('"').filter(|text| line.starts_with('{') && Checkpoint::peek(text).is_some());
    Some(quoted.next().unwrap_or(last))
}

impl CheckpointTrail {
    /// Reads a file of checkpoints.
    ///
    /// # Errors
    /// The first line that does not count, from the end.
    pub fn read(text: &str, keys: &CheckpointKeys) -> Result<Self, TrailFault> {
        let mut opener = CheckpointOpener::new(keys);
        let mut checkpoints: Vec<Checkpoint> = Vec::new();
        let mut later: Option<&str> = None;
        for (nth, line) in text.lines().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let Some(token) = token_of(line) else { continue };
            // A line that a full disk has cut short: the manager wrote it once more.
            if later.is_some_and(|later| later.len() > token.len() && later.starts_with(token)) {
                continue;
            }
            let opened = opener.open(token).map_err(|error| TrailFault::Line { line: nth + 1, error })?;
            if let Some(other) = checkpoints.first().filter(|other| other.ledger != opened.ledger) {
                return Err(TrailFault::Mixed(opened.ledger, other.ledger));
            }
            checkpoints.push(opened);
            later = Some(token);
        }
        checkpoints.sort_by_key(|checkpoint| checkpoint.seq);
        if checkpoints.is_empty() { Err(TrailFault::Empty) } else { Ok(Self { checkpoints }) }
    }

    /// How many checkpoints there are.
    pub const fn len(&self) -> usize {
        self.checkpoints.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.checkpoints.is_empty()
    }

    /// The last one.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.checkpoints.last()
    }

    /// The first entry that a checkpoint covers.
    pub fn first_seq(&self) -> Option<i64> {
        self.checkpoints.first().map(|checkpoint| checkpoint.seq)
    }

    /// How many checkpoints cover an entry from `seq` on.
    pub fn count_from(&self, seq: i64) -> usize {
        self.checkpoints.len() - self.checkpoints.partition_point(|checkpoint| checkpoint.seq < seq)
    }

    /// Compares the ledger of the checkpoints with that of a log whose first entry was removed, as its
    /// own checkpoints say.
    ///
    /// # Errors
    /// [`TrailFault::OtherLedger`].
    pub fn check_ledger(&self, ours: ChainHash) -> Result<(), TrailFault> {
        match self.checkpoints.first().map(|first| first.ledger).filter(|theirs| *theirs != ours) {
            Some(theirs) => Err(TrailFault::OtherLedger { theirs, ours }),
            None => Ok(()),
        }
    }

    /// Compares an entry of the log with the checkpoints that end there.
    ///
    /// # Errors
    /// [`TrailFault::Rewritten`], or [`TrailFault::OtherLedger`] for the first entry.
    pub fn check(&self, seq: i64, hash: ChainHash) -> Result<(), TrailFault> {
        if seq == 1 {
            self.check_ledger(hash)?;
        }
        let from = self.checkpoints.partition_point(|checkpoint| checkpoint.seq < seq);
        let here = self.checkpoints.iter().skip(from).take_while(|checkpoint| checkpoint.seq == seq);
        match here.into_iter().find(|checkpoint| checkpoint.hash != hash) {
            Some(other) => Err(TrailFault::Rewritten { seq, at: other.issued_at() }),
            None => Ok(()),
        }
    }

    /// Compares the number of entries of the log with the last checkpoint.
    ///
    /// # Errors
    /// [`TrailFault::Cut`].
    pub fn check_end(&self, entries: i64) -> Result<(), TrailFault> {
        match self.last().filter(|last| last.seq > entries) {
            Some(last) => Err(TrailFault::Cut { entries, seq: last.seq, at: last.issued_at() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use riposte_protocol::MANAGER;
    use riposte_protocol::key::SigningKey;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32]).unwrap()
    }

    fn at(seq: i64, hash: u8, ledger: u8) -> String {
        let (ledger, hash) = (ChainHash([ledger; 32]), ChainHash([hash; 32]));
        Checkpoint {
            iss: MANAGER.into(),
            ledger,
            seq,
            hash,
            from: 0,
            root: None,
            iat: 60 * seq,
            prev: None,
            begins: None,
        }
        .sign(&key())
        .unwrap()
    }

    fn read(text: &str) -> Result<CheckpointTrail, TrailFault> {
        CheckpointTrail::read(text, &CheckpointKeys::new([key().verifying_key()]))
    }

    #[test]
    fn a_log_is_compared_with_every_checkpoint_and_both_ends() {
        let trail = read(&format!("{}\n\n<109>1 - host riposte - {}\n", at(2, 2, 1), at(4, 4, 1))).unwrap();
        assert_eq!((trail.len(), trail.first_seq()), (2, Some(2)));
        let hash = |byte: u8| ChainHash([byte; 32]);
        for seq in 1..=5_u8 {
            assert_eq!(trail.check(seq.into(), hash(seq)), Ok(()));
        }
        assert!(matches!(trail.check(1, hash(9)), Err(TrailFault::OtherLedger { .. })));
        assert_eq!((trail.check_ledger(hash(1)), trail.count_from(3)), (Ok(()), 1));
        assert!(matches!(trail.check(2, hash(9)), Err(TrailFault::Rewritten { seq: 2, .. })));
        assert_eq!(trail.check(3, hash(9)), Ok(()), "the chain of hashes finds that");
        assert_eq!(trail.check_end(4), Ok(()));
        let cut = trail.check_end(3).unwrap_err();
        assert!(cut.to_string().contains("it has 3 entries, and had 4 at 1970-01-01T00:04:00"), "{cut}");
    }

    #[test]
    fn a_line_that_is_no_checkpoint_is_named_unless_it_was_written_once_more() {
        let (first, second) = (at(2, 2, 1), at(4, 4, 1));
        let whole = read(&format!("{first}\n{}\n{second}\n", &second[..40])).unwrap();
        assert_eq!(whole.len(), 2);
        let cut = read(&format!("{first}\n{}\n", &second[..40])).unwrap_err();
        assert_eq!(cut, TrailFault::Line { line: 2, error: CheckpointError::Malformed });
        assert_eq!(read("\n").unwrap_err(), TrailFault::Empty);
        assert!(matches!(read(&format!("{first}\n{}", at(4, 4, 2))), Err(TrailFault::Mixed(..))));
    }
}
