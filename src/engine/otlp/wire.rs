//! Protobuf, as far as OTLP needs it: fields of messages that are only written. Numbers of fields are
//! those of `opentelemetry/proto` 1.x, which never change their meaning.

use riposte_protocol::time::Timestamp;

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct WireMessage(Vec<u8>);

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

impl WireMessage {
    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    /// A whole number that is not negative, a bool or a word of an enumeration.
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        self.key(field, VARINT);
        self.varint(value);
        self
    }

    /// Eight bytes: times and counts.
    pub(super) fn fixed(mut self, field: u64, value: u64) -> Self {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A floating-point number.
    pub(super) fn double(self, field: u64, value: f64) -> Self {
        self.fixed(field, value.to_bits())
    }

    /// Several numbers of eight bytes in one field.
    pub(super) fn packed(self, field: u64, values: impl Iterator<Item = u64>) -> Self {
        let bytes: Vec<u8> = values.flat_map(u64::to_le_bytes).collect();
        self.bytes(field, &bytes)
    }

    /// Bytes, or a text.
    pub(super) fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.key(field, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A message in the message.
    pub(super) fn message(self, field: u64, inner: &Self) -> Self {
        self.bytes(field, &inner.0)
    }

    /// One message for each of `items`.
    pub(super) fn messages<T>(self, field: u64, items: impl IntoIterator<Item = T>, of: impl Fn(T) -> Self) -> Self {
        items.into_iter().fold(self, |message, item| message.message(field, &of(item)))
    }

    /// The bytes.
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// `KeyValue`, with its `AnyValue`.
pub(super) fn attribute((key, value): (&str, &Value)) -> WireMessage {
    let any = match value {
        Value::Text(text) => WireMessage::default().bytes(1, text.as_bytes()),
        Value::Bool(is) => WireMessage::default().number(2, u64::from(*is)),
        Value::Int(number) => WireMessage::default().number(3, number.cast_unsigned()),
    };
    WireMessage::default().bytes(1, key.as_bytes()).message(2, &any)
}

/// `Resource`: this manager.
pub(super) fn resource(node: &str) -> WireMessage {
    let attributes =
        [("service.name", "riposte"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", node)];
    let attributes = attributes.map(|(key, value)| (key, Value::Text(value.to_owned())));
    WireMessage::default().messages(1, &attributes, |(key, value)| attribute((key, value)))
}

/// A time as OTLP has it.
pub(super) fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0).saturating_mul(1_000_000)
}

/// `InstrumentationScope`.
pub(super) fn scope() -> WireMessage {
    WireMessage::default().bytes(1, b"riposte").bytes(2, env!("CARGO_PKG_VERSION").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_protobuf_says() {
        // The examples of the format's own description.
        assert_eq!(WireMessage::default().number(1, 150).done(), [0x08, 0x96, 0x01]);
        assert_eq!(WireMessage::default().bytes(2, b"testing").done(), b"\x12\x07testing");
        let inner = WireMessage::default().number(1, 150);
        assert_eq!(WireMessage::default().message(3, &inner).done(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(WireMessage::default().fixed(7, 1).done(), [0x39, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(WireMessage::default().packed(6, [1].into_iter()).done(), [0x32, 8, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(WireMessage::default().double(5, 1.0).done(), [0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(WireMessage::default().number(16, u64::MAX).done().len(), 2 + 10);
    }

    #[test]
    fn an_attribute_has_a_typed_value() {
        assert_eq!(attribute(("a", &Value::Int(-1))).done().len(), 3 + 2 + 11);
        assert_eq!(attribute(("a", &Value::Bool(true))).done(), [0x0a, 1, b'a', 0x12, 2, 0x10, 1]);
    }
}
