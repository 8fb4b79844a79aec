//! Encoding of stored alerts: one byte for the codec, then the bytes. Alerts are repetitive, so
//! they are compressed. The codec byte allows a better codec later without rewriting stored alerts.

use std::cell::RefCell;

use super::{Result, StoreError};
use crate::domain::decode as text;

const PLAIN: u8 = 0;
/// zstd with [`DICTIONARY`].
const ZSTD_1: u8 = 1;
/// Typical alerts: text that a new alert shares with them compresses to almost nothing. Stored
/// alerts need this dictionary for ever; a better one gets a new codec number.
const DICTIONARY: &[u8] = include_bytes!("alerts-1.dict");
/// The fastest level that still finds most matches in the dictionary.
const LEVEL: i32 = 1;

/// Compresses alerts with one reused context; creating a context costs more than compressing one
/// alert.
pub struct Encoder(Option<zstd::bulk::Compressor<'static>>);

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self(zstd::bulk::Compressor::with_dictionary(LEVEL, DICTIONARY).ok())
    }
}

impl Encoder {
    /// The stored form of `raw`; uncompressed if compression fails or saves nothing.
    pub fn encode(&mut self, raw: &[u8]) -> Vec<u8> {
        if let Some(packed) = self.0.as_mut().and_then(|zstd| zstd.compress(raw).ok())
            && packed.len() < raw.len()
        {
            return tagged(ZSTD_1, &packed);
        }
        tagged(PLAIN, raw)
    }
}

fn tagged(codec: u8, bytes: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(bytes.len() + 1);
    stored.push(codec);
    stored.extend_from_slice(bytes);
    stored
}

/// Decompresses alerts with one reused context; loading the dictionary costs more than many alerts.
type Decoder = zstd::bulk::Decompressor<'static>;

thread_local! {
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

fn decompress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    DECODER.with_borrow_mut(|kept| {
        let mut decoder = match kept.take() {
            Some(decoder) => decoder,
            None => Decoder::with_dictionary(DICTIONARY)?,
        };
        let raw = decoder.decompress(bytes, crate::domain::formats::MAX_ALERT_BYTES)?;
        *kept = Some(decoder);
        Ok(raw)
    })
}

/// Decodes the raw alert, byte for byte.
///
/// # Errors
/// If [`Encoder::encode`] did not write the stored form.
pub fn decode(stored: &[u8]) -> Result<Vec<u8>> {
    let corrupt = |why: &str| StoreError::Corrupt(format!("a raw alert: {why}"));
    let (codec, bytes) = stored.split_first().ok_or_else(|| corrupt("empty"))?;
    match *codec {
        PLAIN => Ok(bytes.to_vec()),
        ZSTD_1 => decompress(bytes).map_err(|_| corrupt("zstd")),
        _ => Err(corrupt("unknown codec")),
    }
}

/// Whether two stored forms hold the same alert: equal bytes, or equal JSON.
pub fn is_same_alert(one: &[u8], other: &[u8]) -> bool {
    let value = |stored| serde_json::from_str::<serde_json::Value>(&text::decode(&decode(stored).ok()?)).ok();
    one == other || value(one).is_some_and(|one| value(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_alert_is_decoded_byte_for_byte() {
        let mut encoder = Encoder::default();
        let long = r#"{"rule":{"id":"5763"}}"#.repeat(50);
        for raw in [&b""[..], b"{}", b"caf\xe9", long.as_bytes()] {
            let stored = encoder.encode(raw);
            assert!(stored.len() <= raw.len() + 1);
            assert_eq!(decode(&stored).unwrap(), raw);
        }
        assert!(encoder.encode(long.as_bytes()).len() < 100);
    }

    #[test]
    fn alerts_with_equal_json_are_equal() {
        let mut encoder = Encoder::default();
        let mut stored = |raw: &str| encoder.encode(raw.as_bytes());
        let one = stored(r#"{"a":1,"b":["x"]}"#);
        assert!(is_same_alert(&one, &one));
        assert!(is_same_alert(&one, &stored(r#"{ "b" : ["\u0078"], "a": 1 }"#)));
        for other in [r#"{"a":2,"b":["x"]}"#, r#"{"a":1}"#, "{", ""] {
            assert!(!is_same_alert(&one, &stored(other)), "{other}");
        }
        assert!(!is_same_alert(&one, &[]));
    }

    #[test]
    fn the_dictionary_of_stored_alerts_never_changes() {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(DICTIONARY);
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "475dbad29720763b", "alerts stored with it could not be read any more: add a codec instead");
    }

    #[test]
    fn invalid_stored_bytes_are_reported_as_corrupt() {
        for stored in [&[][..], &[9, 1, 2], &[1, 0xff, 0xff]] {
            assert!(matches!(decode(stored), Err(StoreError::Corrupt(_))));
        }
    }
}
