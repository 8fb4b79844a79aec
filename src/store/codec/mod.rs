//! How a raw alert is kept: one byte that names the codec, then the bytes. Alerts are mostly repetition, so they
//! are compressed; the byte lets a better codec come later without touching what is stored.

use std::cell::RefCell;

use super::db::{Result, StoreError};
use crate::domain::decode as text;

const PLAIN: u8 = 0;
/// zstd with [`DICTIONARY`].
const ZSTD_1: u8 = 1;
/// Typical alerts, written by us: what an alert shares with them costs next to nothing. What is stored needs it for
/// ever: a better one gets a number and a codec of its own.
const DICTIONARY: &[u8] = include_bytes!("alerts-1.dict");
/// The fastest level that still finds most of what the dictionary offers.
const LEVEL: i32 = 1;

/// Compresses one alert after the other with one context, which is most of the cost of a small frame.
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
    /// The stored form of `raw`; plain where compression fails or does not pay.
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

/// Reads one alert after the other with one context: making one for the dictionary costs more than many alerts.
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
        let raw = decoder.decompress(bytes, crate::domain::shapes::MAX_ALERT_BYTES)?;
        *kept = Some(decoder);
        Ok(raw)
    })
}

/// The raw alert again, byte for byte.
///
/// # Errors
/// If the stored form is not one that [`Encoder::encode`] has written.
pub fn decode(stored: &[u8]) -> Result<Vec<u8>> {
    let corrupt = |why: &str| StoreError::Corrupt(format!("a raw alert: {why}"));
    let (codec, bytes) = stored.split_first().ok_or_else(|| corrupt("empty"))?;
    match *codec {
        PLAIN => Ok(bytes.to_vec()),
        ZSTD_1 => decompress(bytes).map_err(|_| corrupt("zstd")),
        _ => Err(corrupt("unknown codec")),
    }
}

/// Whether two stored forms hold the same alert: the same bytes, or JSON that means the same.
pub fn is_same_alert(one: &[u8], other: &[u8]) -> bool {
    let value = |stored| serde_json::from_str::<serde_json::Value>(&text::decode(&decode(stored).ok()?)).ok();
    one == other || value(one).is_some_and(|one| value(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back() {
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
    fn an_alert_is_the_same_however_it_is_written() {
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
    fn the_dictionary_of_what_is_stored_never_changes() {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(DICTIONARY);
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "475dbad29720763b", "alerts stored with it could not be read any more: add a codec instead");
    }

    #[test]
    fn nonsense_is_corrupt_not_a_crash() {
        for stored in [&[][..], &[9, 1, 2], &[1, 0xff, 0xff]] {
            assert!(matches!(decode(stored), Err(StoreError::Corrupt(_))));
        }
    }
}
