//! The end of the audit chain, cached between transactions where this process is the database's
//! only writer.

use std::sync::{Arc, Mutex};

/// Where the ledger stands, as its last commit left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerHead {
    /// Number of the last audit entry.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Number of the last change of configuration.
    pub epoch: i64,
    /// Number of the last one by which alerts are decided.
    pub deciding_epoch: i64,
}

/// The cached head.
#[derive(Debug, Default)]
pub struct AuditHead {
    takers: u64,
    end: Option<LedgerHead>,
}

impl AuditHead {
    /// Takes the cached head until it is put back; without it, the next transaction reads the
    /// database. Returns the taker's number.
    pub(in crate::store) fn take(&mut self) -> (u64, Option<LedgerHead>) {
        self.takers += 1;
        (self.takers, self.end.take())
    }

    /// Puts the head back after a commit. The connection is already free then, so a newer
    /// transaction may have begun: its value wins.
    pub(super) fn put_back(&mut self, taker: u64, end: LedgerHead) {
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
        let mut head = AuditHead::default();
        let at = |seq| LedgerHead { seq, hash: [2; 32], epoch: 0, deciding_epoch: 0 };
        let (first, nothing) = head.take();
        let (second, still_nothing) = head.take();
        assert_eq!((nothing, still_nothing), (None, None));
        head.put_back(second, at(2));
        head.put_back(first, at(1));
        let (third, known) = head.take();
        assert_eq!(known, Some(at(2)));
        head.put_back(second, at(2));
        assert_eq!(head.take().1, None, "a newer transaction may have moved it");
        head.put_back(third, at(3));
        assert_eq!(head.take().1, None);
    }
}
