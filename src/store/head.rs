//! The end of the audit chain, cached between transactions where this process is the database's
//! only writer.

use std::sync::{Arc, Mutex};

/// The end of the audit chain, its last number and hash, as the last commit left it.
#[derive(Debug, Default)]
pub struct Head {
    takers: u64,
    end: Option<(i64, [u8; 32])>,
}

impl Head {
    /// A transaction takes it, until it puts it back: after anything else the database is asked again. Gives the taker's number.
    pub(super) fn take(&mut self) -> (u64, Option<(i64, [u8; 32])>) {
        self.takers += 1;
        (self.takers, self.end.take())
    }

    /// It was committed. Its connection is free by then, so the next one may have begun without it: then that one knows better.
    pub(super) fn put_back(&mut self, taker: u64, end: (i64, [u8; 32])) {
        if self.takers == taker {
            self.end = Some(end);
        }
    }
}

/// Where it is kept.
pub type KeptHead = Arc<Mutex<Head>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_ends_late_does_not_put_an_old_head_over_a_new_one() {
        let mut head = Head::default();
        let (first, nothing) = head.take();
        let (second, still_nothing) = head.take();
        assert_eq!((nothing, still_nothing), (None, None));
        head.put_back(second, (2, [2; 32]));
        head.put_back(first, (1, [1; 32]));
        let (third, known) = head.take();
        assert_eq!(known, Some((2, [2; 32])));
        head.put_back(second, (2, [2; 32]));
        assert_eq!(head.take().1, None, "the third one may have moved it");
        head.put_back(third, (3, [3; 32]));
        assert_eq!(head.take().1, None);
    }
}
