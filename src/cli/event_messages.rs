//! Reads server-sent events from the bytes of a response, as the WHATWG standard says.

/// A message with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamMessage {
    /// Its type; empty: none.
    pub(super) event: String,
    /// Its data.
    pub(super) data: String,
}

/// The messages of one response.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    event: String,
    data: Vec<String>,
    id: Option<String>,
    last_id: Option<String>,
}

impl Messages {
    /// Adds bytes as they come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The id of the last message that is complete, with data or without.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next complete message with data.
    pub(super) fn next(&mut self) -> Option<StreamMessage> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if let Some(id) = self.id.take() {
                    self.last_id = Some(id);
                }
                let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
                if !data.is_empty() {
                    return Some(StreamMessage { event, data: data.join("\n") });
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "event" => self.event = value,
                "data" => self.data.push(value),
                "id" => self.id = Some(value),
                // A comment, or the time after which to come again.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_from_any_pieces() {
        let text = ": hello\nretry: 2000\n\nid: 7\nevent: a.b\ndata: {\"x\":\ndata: 1}\n\n: beat\nid: 9\n\nid: 10\nevent: c\r\ndata:d\r\n\r\nid: 11\ndata: half";
        for size in [1, 3, 1000] {
            let (mut messages, mut found) = (Messages::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                messages.push(piece);
                while let Some(StreamMessage { event, data }) = messages.next() {
                    found.push((messages.last_id().unwrap().to_owned(), event, data));
                }
            }
            let expected = [("7", "a.b", "{\"x\":\n1}"), ("10", "c", "d")];
            assert_eq!(found, expected.map(|(id, event, data)| (id.to_owned(), event.to_owned(), data.to_owned())));
            assert_eq!(messages.last_id(), Some("10"), "the last one is not complete");
        }
        let mut messages = Messages::default();
        messages.push(b": beat\nid: 9\n\n");
        assert_eq!((messages.next(), messages.last_id()), (None, Some("9")), "a heartbeat has a number and no data");
    }
}
