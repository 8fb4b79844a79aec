//! The end of the audit chain, cached between transactions where this process is the database's
//! only writer.

use std::sync::{Arc, Mutex};

/// Number and hash of the last audit entry, as the last commit left them.
#[derive(Debug, Default)]
pub struct AuditHead {
    takers: u64,
    end: Option<(i64, [u8; 32])>,
}

impl AuditHead {
    /// Takes the cached head until it is put back; without it, the next transaction reads the
    /// database. Returns the taker's number.
    pub(in crate::store) fn take(&mut self) -> (u64, Option<(i64, [u8; 32])>) {
        self.takers += 1;
        (self.takers, self.end.take())
    }

    /// Puts the head back after a commit. The connection is already free then, so a newer
    /// transaction may have begun: its value wins.
    pub(super) fn put_back(&mut self, taker: u64, end: (i64, [u8; 32])) {
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
        let (first, nothing) = head.take();
        let (second, still_nothing) = head.take();
        assert_eq!((nothing, still_nothing), (None, None));
        head.put_back(second, (2, [2; 32]));
        head.put_back(first, (1, [1; 32]));
        let (third, known) = head.take();
        assert_eq!(known, Some((2, [2; 32])));
        head.put_back(second, (2, [2; 32]));
        assert_eq!(head.take().1, None, "a newer transaction may have moved it");
        head.put_back(third, (3, [3; 32]));
        assert_eq!(head.take().1, None);
    }
}
