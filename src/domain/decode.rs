//! Decodes an alert's bytes to text, for all readers: intake, conditions, stored alerts and agents'
//! programs. Invalid UTF-8 and unpaired surrogates become U+FFFD, numbers beyond a float become
//! strings, and wrappers of other programs are removed. The stored bytes stay as received.
//!
//! Nothing is validated here: invalid JSON stays invalid.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Digits and points in a row from which a number may exceed a float; the largest float has 309
/// digits before its point.
const MANY_DIGITS: usize = 300;

/// The decoded text: [`legible`], without a wrapper.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let (text, is_wrapped) = read(bytes);
    if !is_wrapped {
        return text;
    }
    match text {
        Cow::Borrowed(text) => unwrapped(text).unwrap_or(Cow::Borrowed(text)),
        Cow::Owned(text) => unwrapped(&text).map(Cow::into_owned).map_or(Cow::Owned(text), Cow::Owned),
    }
}

/// Converts `bytes` to text that any JSON parser accepts if it is JSON at all.
pub fn legible(bytes: &[u8]) -> Cow<'_, str> {
    read(bytes).0
}

fn read(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    // Much faster than to look for what is no UTF-8, where all of it is.
    let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
    let Seen { is_plain, is_wrapped } = look(text.as_bytes());
    let text = if is_plain { text } else { Cow::Owned(repaired(&text)) };
    (text, is_wrapped)
}

/// Result of scanning a text.
struct Seen {
    /// No repair is needed, as for almost all alerts.
    is_plain: bool,
    /// A wrapper's name occurs at the top, so the alert may be wrapped.
    is_wrapped: bool,
}

/// Scans the text once, without a copy.
fn look(bytes: &[u8]) -> Seen {
    let (mut at, mut depth, mut digits) = (0, 0_usize, 0_usize);
    let mut seen = Seen { is_plain: true, is_wrapped: false };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let start = at + 1;
                at = start;
                while let Some(byte) = bytes.get(at)
                    && *byte != b'"'
                {
                    if *byte == b'\\' {
                        seen.is_plain &= !(bytes.get(at + 1) == Some(&b'u') && is_surrogate(bytes, at));
                        at += 1;
                    }
                    at += 1;
                }
                let text = bytes.get(start..at).unwrap_or_default();
                seen.is_wrapped |= depth == 1 && (text == b"_source" || text == b"all_fields");
                digits = 0;
            }
            b'0'..=b'9' | b'.' => {
                digits += 1;
                seen.is_plain &= digits < MANY_DIGITS;
            }
            // An exponent. The letter also occurs in `true` and `false`, but not after a digit.
            b'e' | b'E' if digits > 0 => seen.is_plain = false,
            b'{' | b'[' => (depth, digits) = (depth + 1, 0),
            b'}' | b']' => (depth, digits) = (depth.saturating_sub(1), 0),
            _ => digits = 0,
        }
        at += 1;
    }
    seen
}

/// Whether the escape at `at` (`\uXXXX`) is half of a surrogate pair.
fn is_surrogate(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at + 2), Some(b'd' | b'D'))
        && matches!(bytes.get(at + 3), Some(b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F'))
}

/// Replaces every unpaired surrogate and every out-of-range number in `text`.
fn repaired(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut repaired = String::with_capacity(text.len() + 2);
    // Positions are always at ASCII bytes, which never occur inside another character.
    let (mut at, mut from, mut in_string) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                in_string = !in_string;
                at += 1;
            }
            b'\\' if in_string => match (unit(bytes, at), unit(bytes, at + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
                (Some(0xd800..=0xdfff), _) => {
                    repaired.push_str(&text[from..at]);
                    repaired.push_str("\\ufffd");
                    at += 6;
                    from = at;
                }
                _ => at += 2,
            },
            b'-' | b'0'..=b'9' if !in_string => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
                let end = bytes[at..].iter().position(|byte| !is_part(byte)).map_or(bytes.len(), |length| at + length);
                if is_out_of_range(&text[at..end]) {
                    repaired.push_str(&text[from..at]);
                    repaired.extend(["\"", &text[at..end], "\""]);
                    from = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    repaired.push_str(&text[from..]);
    repaired
}

/// The UTF-16 unit of the escape at `at`, if any.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()
}

/// Whether JSON parsers refuse the number `token` because of its size.
fn is_out_of_range(token: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(token).is_ok() && serde_json::from_str::<serde_json::Number>(token).is_err()
}

/// The top-level fields that identify a wrapper.
#[derive(Deserialize)]
struct Wrapper<'a> {
    /// A search hit of an index: `_source` is the document, `_id` and `_index` its location.
    #[serde(borrow, default, rename = "_source")]
    source: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_id")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_index")]
    index: Option<&'a RawValue>,
    /// The alert in the format of Wazuh's Shuffle integration.
    #[serde(borrow, default)]
    all_fields: Option<&'a RawValue>,
    #[serde(default)]
    rule: Option<IgnoredAny>,
    #[serde(default)]
    pipeline: Option<IgnoredAny>,
    #[serde(default)]
    wazuh: Option<IgnoredAny>,
    #[serde(default, rename = "wazuh.rule.id")]
    flat_rule_id: Option<IgnoredAny>,
}

impl Wrapper<'_> {
    fn is_finding(&self) -> bool {
        self.wazuh.is_some() || self.flat_rule_id.is_some()
    }
}

/// How often an alert may be wrapped: a hit of an index in what an integration sends is two.
const MAX_WRAPPERS: usize = 4;

/// The alert inside of `text`, if it is wrapped. Where a hit is a finding, its id and index come along: they may be nowhere else.
fn unwrapped(text: &str) -> Option<Cow<'_, str>> {
    let (mut inner, mut found_at) = (text, None);
    // Each level reads the rest again, so there is an end: what is wrapped more often is no alert.
    for _ in 0..=MAX_WRAPPERS {
        let wrapper: Wrapper = serde_json::from_str(inner).ok()?;
        let is_alert = wrapper.rule.is_some() || wrapper.pipeline.is_some() || wrapper.is_finding();
        let is_object = |value: &&RawValue| value.get().starts_with('{');
        match wrapper.source.or(wrapper.all_fields).filter(is_object).filter(|_| !is_alert) {
            Some(wrapped) => {
                found_at = Some((wrapper.id, wrapper.index));
                inner = wrapped.get();
            }
            None => {
                let (id, index) = found_at?;
                let body = inner.get(1..)?;
                let is_empty = body.trim_ascii_start().starts_with('}');
                return Some(match id.filter(|_| wrapper.is_finding() && wrapper.id.is_none() && !is_empty) {
                    Some(id) => {
                        let index = index.map_or("null", RawValue::get);
                        Cow::Owned(format!("{{\"_id\":{},\"_index\":{index},{body}", id.get()))
                    }
                    None => Cow::Borrowed(inner),
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_borrowed_and_other_text_is_repaired() {
        for plain in [r#"{"a": "é\ud", "b": -1.5, "c": [true, false, null]}"#, "no JSON", r#"{"a": "1e400"}"#, ""] {
            assert!(matches!(decode(plain.as_bytes()), Cow::Borrowed(text) if text == plain), "{plain}");
        }
        for (bytes, text) in [
            (&b"{\"a\": \"caf\xe9\"}"[..], "{\"a\": \"caf\u{fffd}\"}"),
            (br#"{"a\ud83d": "x \uDC80 y"}"#, r#"{"a\ufffd": "x \ufffd y"}"#),
            (br#""\ud83d\ude00 \ud83d\ud83d\ude00""#, r#""\ud83d\ude00 \ufffd\ud83d\ude00""#),
            (br#""\\ud83d \\\ud83d""#, r#""\\ud83d \\\ufffd""#),
            (br#"[1e400, -1E+999, 1e3, "1e400"]"#, r#"["1e400", "-1E+999", 1e3, "1e400"]"#),
        ] {
            assert_eq!(decode(bytes), text);
        }
        let long = "9".repeat(400);
        assert_eq!(decode(format!("[{long}]").as_bytes()), format!("[\"{long}\"]"));
    }

    #[test]
    fn an_alert_that_is_wrapped_more_often_than_any_pipeline_does_is_left_as_it_is() {
        let wrapped =
            |times: usize| format!("{}{{\"rule\": {{}}}}{}", "{\"_source\":".repeat(times), "}".repeat(times));
        assert_eq!(decode(wrapped(MAX_WRAPPERS).as_bytes()), "{\"rule\": {}}");
        for times in [MAX_WRAPPERS + 1, 8000] {
            let text = wrapped(times);
            assert_eq!(decode(text.as_bytes()), text);
        }
    }

    #[test]
    fn a_wrapper_is_taken_off_and_an_alert_is_none() {
        let wazuh = r#"{"rule": {"id": "1"}, "_source": {"rule": {}}}"#;
        assert_eq!(decode(wazuh.as_bytes()), wazuh, "what is an alert is no wrapper");
        for wrapped in [r#"{"severity": 3, "all_fields": ALERT}"#, r#"{"_source": {"all_fields": ALERT}}"#] {
            assert_eq!(decode(wrapped.replace("ALERT", wazuh).as_bytes()), wazuh);
        }
        let hit = r#"{"_index": "i", "_id": "x", "_source": {"wazuh": {"rule": {"id": "r"}}}}"#;
        assert_eq!(decode(hit.as_bytes()), r#"{"_id":"x","_index":"i","wazuh": {"rule": {"id": "r"}}}"#);
        let text = r#"{"_source": "a text", "x": {"_source": {}}}"#;
        assert_eq!(decode(text.as_bytes()), text);
    }

    /// Fragments of valid and almost valid JSON.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            &b"{"[..],
            b"}",
            b"[",
            b"]",
            b"\"",
            b"\\",
            b",",
            b":",
            b"\\u",
            b"d83d",
            b"\\ud83d",
            b"\\udc80",
            b"\xe9",
            b"\xf0\x9f",
            b"\xf0\x9f\x98\x80",
            b"1e400",
            b"-",
            b"1",
            b"0.5",
            b"e",
            b"E+",
            b"true",
            b"null",
            b"\"a\"",
            b"\"_source\"",
            b"\"all_fields\"",
            b"\"rule\"",
            b" ",
            b"\"\\ud800\"",
            b"9999999999999999999999",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    fn object() -> impl Strategy<Value = String> {
        let leaf =
            prop::sample::select(vec!["1e400", "-1e999", "1", r#""\ud800""#, r#""x""#, "null", "[1e400]", "true"]);
        leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
            let name = prop::sample::select(vec!["_source", "all_fields", "rule", "wazuh", "_id", "\\udc00", "a"]);
            prop::collection::vec((name, inner), 0..4).prop_map(|entries| {
                let entries: Vec<String> =
                    entries.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn decoding_never_panics_and_decoding_again_changes_nothing(bytes in prop_oneof![bytes(), object().prop_map(String::into_bytes)]) {
            let once = decode(&bytes).into_owned();
            prop_assert_eq!(&decode(once.as_bytes()), &once);
            let legible = legible(&bytes).into_owned();
            prop_assert_eq!(&super::legible(legible.as_bytes()), &legible);
            // Valid JSON must be readable by every parser.
            if serde_json::from_str::<IgnoredAny>(&legible).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&legible).is_ok(), "{}", legible);
            }
        }
    }
}
