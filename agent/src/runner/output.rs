//! Output of programs: the start is kept, up to a limit, and the rest is counted.

use riposte_protocol::message::MAX_OUTPUT_BYTES;

/// The start of an output, and the size of the rest.
pub(super) struct Head {
    bytes: Vec<u8>,
    limit: usize,
    cut: u64,
}

impl Head {
    /// Of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, cut: 0 }
    }

    /// All of the output; `None` if it is longer than the limit.
    pub(super) fn whole(&self) -> Option<String> {
        (self.cut == 0).then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let kept = chunk.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.cut += (chunk.len() - kept) as u64;
    }

    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // Replacing invalid bytes makes the text longer, so the limit is checked on the text.
        let cut = self.cut + (text.len() as u64).saturating_sub(self.limit as u64);
        if cut == 0 { text.into_owned() } else { shorten(&text, self.limit, cut) }
    }
}

/// The complete lines of an output. A line that is longer than any message is dropped.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    is_too_long: bool,
}

/// Longest line that can be a message; Wazuh's own limit, in bytes.
const MAX_LINE_BYTES: usize = 8192;

impl Lines {
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in chunk.split_inclusive(|&byte| byte == b'\n') {
            self.is_too_long |= self.begun.len() + part.len() > MAX_LINE_BYTES;
            if !self.is_too_long {
                self.begun.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                if !std::mem::take(&mut self.is_too_long) {
                    lines.push(String::from_utf8_lossy(self.begun.trim_ascii()).into_owned());
                }
                self.begun.clear();
            }
        }
        lines
    }
}

/// Joins standard output and standard error into one text within [`MAX_OUTPUT_BYTES`].
pub fn join(stdout: &str, stderr: &str) -> String {
    let separator = if stdout.is_empty() || stderr.is_empty() || stdout.ends_with('\n') { "" } else { "\n" };
    let text = format!("{stdout}{separator}{stderr}");
    if text.len() <= MAX_OUTPUT_BYTES {
        text
    } else {
        shorten(&text, MAX_OUTPUT_BYTES, (text.len() - MAX_OUTPUT_BYTES) as u64)
    }
}

fn shorten(text: &str, limit: usize, cut: u64) -> String {
    let note = format!("\n[cut: about {cut} bytes more]");
    let mut end = text.len().min(limit - note.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{note}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_across_chunks_and_endless_ones_are_dropped() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").is_empty());
        assert_eq!(lines.push(b":1}\r\nnext\n"), ["{\"a\":1}", "next"]);
        assert!(lines.push(&vec![b'x'; 9000]).is_empty());
        assert_eq!(lines.push(b"still the same\nafter\n"), ["after"]);
    }
}
