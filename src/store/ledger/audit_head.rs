//! The end of the audit chain, cached between transactions where this process is the database's
//! only writer.

use std::sync::{Arc, Mutex};

/// Where the audit log and the feed end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct LogEnd {
    /// Number of the last audit entry.
    pub(in crate::store) seq: i64,
    /// Its hash.
    pub(in crate::store) hash: [u8; 32],
    /// Number of the last event.
    pub(in crate::store) events: i64,
}

/// Where both end, as the last commit left them.
#[derive(Debug, Default)]
pub struct AuditHead {
    takers: u64,
    end: Option<LogEnd>,
}

impl AuditHead {
    /// Takes the cached head until it is put back; without it, the next transaction reads the
    /// database. Returns the taker's number.
    pub(in crate::store) fn take(&mut self) -> (u64, Option<LogEnd>) {
        self.takers += 1;
        (self.takers, self.end.take())
    }

    /// Puts the head back after a commit. The connection is already free then, so a newer
    /// transaction may have begun: its value wins.
    pub(super) fn put_back(&mut self, taker: u64, end: LogEnd) {
        if self.takers == taker {
            self.end = Some(end);
        }
    }
}

/// The shared cache.
pub type CachedAuditHead = Arc<Mutex<AuditHead>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_transaction_does_not_replace_a_newer_head() {
        let end = |seq: u8| LogEnd { seq: seq.into(), hash: [seq; 32], events: 10 * i64::from(seq) };
        let mut head = AuditHead::default();
        let (first, nothing) = head.take();
        let (second, still_nothing) = head.take();
        assert_eq!((nothing, still_nothing), (None, None));
        head.put_back(second, end(2));
        head.put_back(first, end(1));
        let (third, known) = head.take();
        assert_eq!(known, Some(end(2)));
        head.put_back(second, end(2));
        assert_eq!(head.take().1, None, "a newer transaction may have moved it");
        head.put_back(third, end(3));
        assert_eq!(head.take().1, None);
    }
}
