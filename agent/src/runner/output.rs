//! What programs print: the beginning is kept, within the bound of a result; how much more there was is counted.

use riposte_protocol::message::MAX_OUTPUT_BYTES;

/// The beginning of an output, and how much more there was.
#[derive(Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    cut: u64,
}

impl Head {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let kept = chunk.len().min(MAX_OUTPUT_BYTES - self.bytes.len());
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.cut += (chunk.len() - kept) as u64;
    }

    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // Invalid bytes become longer, so the bound is checked on the text.
        let cut = self.cut + (text.len() as u64).saturating_sub(MAX_OUTPUT_BYTES as u64);
        if cut == 0 { text.into_owned() } else { shorten(&text, cut) }
    }
}

/// The lines of an output as they are completed. A line that is longer than any message may be is none.
#[derive(Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    is_too_long: bool,
}

/// The longest line that can be a message; Wazuh's own bound.
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

/// One text from what was printed and what was complained, within [`MAX_OUTPUT_BYTES`].
pub fn join(stdout: &str, stderr: &str) -> String {
    let separator = if stdout.is_empty() || stderr.is_empty() || stdout.ends_with('\n') { "" } else { "\n" };
    let text = format!("{stdout}{separator}{stderr}");
    if text.len() <= MAX_OUTPUT_BYTES { text } else { shorten(&text, (text.len() - MAX_OUTPUT_BYTES) as u64) }
}

fn shorten(text: &str, cut: u64) -> String {
    let note = format!("\n[cut: about {cut} bytes more]");
    let mut end = text.len().min(MAX_OUTPUT_BYTES - note.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{note}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_whatever_pieces_they_come_and_endless_ones_are_not() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").is_empty());
        assert_eq!(lines.push(b":1}\r\nnext\n"), ["{\"a\":1}", "next"]);
        assert!(lines.push(&vec![b'x'; 9000]).is_empty());
        assert_eq!(lines.push(b"still the same\nafter\n"), ["after"]);
    }
}
