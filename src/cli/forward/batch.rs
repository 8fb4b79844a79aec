//! Lines that are sent together.

use super::position::Position;

/// How much is sent at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    pub(super) lines: usize,
    pub(super) bytes: usize,
}

/// Lines, and where the reader is after them.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// One alert a line.
    pub(super) body: Vec<u8>,
    /// For each line, where it begins in the body, and in its file.
    starts: Vec<(usize, u64)>,
    /// The position after the last line; set when the batch is sent.
    pub(super) end: Option<Position>,
}

impl Batch {
    /// No line, and where the reader begins.
    pub(super) fn start(at: Position) -> Self {
        Self { end: Some(at), ..Self::default() }
    }

    /// Adds a line; an empty one is none. A file system leaves zero bytes where a crash lost what was written.
    pub(super) fn add(&mut self, line: &[u8], offset: u64) {
        let zeros = line.iter().take_while(|byte| **byte == 0).count();
        let line = line[zeros..].trim_ascii();
        if !line.is_empty() {
            self.starts.push((self.body.len(), offset));
            self.body.extend_from_slice(line);
            self.body.push(b'\n');
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(super) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.starts.len() >= limits.lines || self.body.len() >= limits.bytes
    }

    /// Number of lines.
    pub(super) const fn lines(&self) -> usize {
        self.starts.len()
    }

    /// Where line `index` begins in its file.
    pub(super) fn offset(&self, index: usize) -> Option<u64> {
        self.starts.get(index).map(|(_, offset)| *offset)
    }

    /// Line `index`, with its end.
    pub(super) fn line(&self, index: usize) -> &[u8] {
        let end = self.starts.get(index + 1).map_or(self.body.len(), |(start, _)| *start);
        self.starts.get(index).map_or(&[], |(start, _)| &self.body[*start..end])
    }

    /// The two halves of a batch that is too large; `None` of one line.
    pub(super) fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.starts.len() / 2;
        let (start, _) = *self.starts.get(middle).filter(|_| middle > 0)?;
        let second = self.starts[middle..].iter().map(|(at, offset)| (at - start, *offset)).collect();
        Some((
            Self { body: self.body[..start].to_vec(), starts: self.starts[..middle].to_vec(), end: None },
            Self { body: self.body[start..].to_vec(), starts: second, end: self.end.clone() },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_halved_between_two_lines() {
        let mut batch = Batch::default();
        for (line, offset) in [("a", 0), ("", 2), (" \r", 2), ("\0\0bc", 3), ("d", 6)] {
            batch.add(line.as_bytes(), offset);
        }
        assert_eq!((batch.lines(), batch.line(1), batch.offset(1)), (3, &b"bc\n"[..], Some(3)));
        let (first, second) = batch.halves().unwrap();
        assert_eq!((first.body.as_slice(), second.body.as_slice()), (&b"a\n"[..], &b"bc\nd\n"[..]));
        assert_eq!((second.offset(0), second.offset(1), second.line(1)), (Some(3), Some(6), &b"d\n"[..]));
        assert!(first.halves().is_none());
    }
}
