//! Reads fields of an alert without trust: types are checked, texts are bounded and free of NUL,
//! and all faults are collected with their places.

use std::borrow::Cow;

use riposte_protocol::time::Timestamp;
use serde_json::value::RawValue;

use crate::domain::fault::Fault;

/// Maximum length of a stored description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 512;
/// Maximum length of a stored name, group or id, in bytes.
pub(super) const MAX_WORD_BYTES: usize = 256;
/// Maximum number of groups per alert.
pub(super) const MAX_GROUPS: usize = 1024;

/// The fault for invalid JSON, or JSON of another structure.
pub(super) fn syntax_fault(error: &serde_json::Error) -> Fault {
    Fault::at("", format!("the JSON cannot be read: {error}"))
}

/// A field of unknown type: string or number where both are common, otherwise a fault.
#[derive(Clone, Copy)]
pub(super) struct Field<'a>(pub(super) &'a RawValue);

impl<'a> Field<'a> {
    /// The text, if it is a string.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        let raw = self.0.get();
        // Without escapes the text is borrowed, which is the common case.
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            Some(_) => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
            None => None,
        }
    }

    /// The text of a string, or the digits of a whole number.
    pub(super) fn word(self) -> Option<Cow<'a, str>> {
        let raw = self.0.get();
        let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
        if digits { Some(Cow::Borrowed(raw)) } else { self.text() }
    }

    /// A number, or a text that is one.
    pub(super) fn number(self) -> Option<f64> {
        self.word_or_number()?.trim_ascii().parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// The text of a string, or a number as it is written.
    pub(super) fn word_or_number(self) -> Option<Cow<'a, str>> {
        let raw = self.0.get();
        let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if is_number { Some(Cow::Borrowed(raw)) } else { self.text() }
    }

    /// Whether it is `value`, as a text, a number or a truth value; without regard to case.
    pub(super) fn is(self, value: &str) -> bool {
        let raw = self.0.get();
        self.text()
            .map_or_else(|| raw.eq_ignore_ascii_case(value), |text| text.trim_ascii().eq_ignore_ascii_case(value))
    }

    /// The non-empty items of a list with their indexes; `None` if it is not a list.
    pub(super) fn items(self) -> Option<Vec<(usize, Field<'a>)>> {
        let items: Vec<&'a RawValue> = serde_json::from_str(self.0.get()).ok()?;
        let there = items.into_iter().enumerate().filter(|(_, item)| is_something(item));
        Some(there.map(|(index, item)| (index, Field(item))).collect())
    }
}

/// Collects faults, so that a client learns all of them at once.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(Fault::at(pointer, detail));
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    /// A short text without NUL, or a whole number as text.
    pub(super) fn required_word(&mut self, pointer: &str, field: Option<Field>) -> String {
        if field.is_none() {
            self.add(pointer, "is missing or empty");
        }
        self.optional_word(pointer, field).unwrap_or_default()
    }

    pub(super) fn optional_word(&mut self, pointer: &str, field: Option<Field>) -> Option<String> {
        match field?.word() {
            None => self.add(pointer, "must be a text"),
            Some(word) if word.len() > MAX_WORD_BYTES => {
                self.add(pointer, format!("is longer than {MAX_WORD_BYTES} bytes"));
            }
            Some(word) if word.contains('\0') => self.add(pointer, "contains a NUL character"),
            Some(word) => return Some(word.into_owned()),
        }
        None
    }

    /// A name for display, truncated and without NUL.
    pub(super) fn name(field: Option<Field>, max_bytes: usize) -> Option<String> {
        let text = field?.text()?;
        let text = if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text };
        let text = text.trim_ascii();
        (!text.is_empty()).then(|| cut(text, max_bytes))
    }

    pub(super) fn description(field: Option<Field>) -> String {
        Self::name(field, MAX_DESCRIPTION_BYTES).unwrap_or_default()
    }

    /// Groups, trimmed: some rules have spaces around them.
    pub(super) fn groups(&mut self, pointer: &str, field: Option<Field>, into: &mut Vec<String>, prefix: &str) {
        let Some(field) = field else { return };
        let Some(items) = field.items() else { return self.add(pointer, "must be an array of texts") };
        if into.len() + items.len() > MAX_GROUPS {
            return self.add(pointer, format!("has more than {MAX_GROUPS} entries"));
        }
        for (index, item) in items {
            let at = || format!("{pointer}/{index}");
            match item.text().as_deref().map(str::trim_ascii) {
                None => self.add(&at(), "must be a text"),
                Some("") => {}
                Some(word) if word.len() > MAX_WORD_BYTES || word.contains('\0') => {
                    self.add(&at(), format!("is longer than {MAX_WORD_BYTES} bytes or contains NUL"));
                }
                Some(word) => into.push(format!("{prefix}{word}")),
            }
        }
    }

    /// A time as pipelines write it: a text, or a number since 1970 whose size says its unit.
    pub(super) fn any_time(&mut self, pointer: &str, field: Field) -> Timestamp {
        let found = field.number().and_then(since_1970).or_else(|| parse_time(&field.text()?.replacen(' ', "T", 1)));
        found.unwrap_or_else(|| {
            self.add(pointer, "is not a time such as 2026-11-20T10:11:12.345Z, nor seconds or milliseconds since 1970");
            Timestamp::default()
        })
    }

    pub(super) fn time(&mut self, pointer: &str, field: Option<Field>) -> Timestamp {
        let Some(field) = field else {
            self.add(pointer, "is missing or empty");
            return Timestamp::default();
        };
        field.text().and_then(|text| parse_time(&text)).unwrap_or_else(|| {
            self.add(pointer, "is not a time such as 2026-11-20T10:11:12.345+0000");
            Timestamp::default()
        })
    }
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, between the years 1973 and 5138.
#[expect(clippy::cast_possible_truncation, reason = "below 2^53")]
fn since_1970(number: f64) -> Option<Timestamp> {
    let millis = match number {
        1e8..1e11 => number * 1e3,
        1e11..1e14 => number,
        1e14..1e17 => number / 1e3,
        1e17..1e20 => number / 1e6,
        _ => return None,
    };
    Some(Timestamp::from_millis(millis as i64))
}

/// RFC 3339, or Wazuh's variant (offset without a colon). Times beyond the years 0000 to 9999 are
/// clamped: a wrong clock must not prevent the response.
fn parse_time(text: &str) -> Option<Timestamp> {
    // jiff also accepts a bare date or a comma, so the bytes are checked first.
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20 && bytes.len() <= 40 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T';
    if !shape || !text.is_ascii() {
        return None;
    }
    let instant = text.strip_suffix('Z').map_or_else(
        || {
            let sign = text.rfind(['+', '-']).filter(|position| *position > 10)?;
            let (local, offset) = text.split_at(sign);
            let digits: String = offset[1..].chars().filter(|c| *c != ':').collect();
            let hours: i64 = digits.get(..2)?.parse().ok()?;
            let minutes: i64 = digits.get(2..4)?.parse().ok()?;
            if digits.len() != 4 || hours > 23 || minutes > 59 {
                return None;
            }
            let shift = (hours * 60 + minutes) * 60_000 * if offset.starts_with('-') { -1 } else { 1 };
            Some((local, shift))
        },
        |local| Some((local, 0)),
    );
    let (local, shift) = instant?;
    let civil: jiff::civil::DateTime = local.parse().ok()?;
    let midnight = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let since = civil.duration_since(midnight).as_millis();
    Some(Timestamp::from_millis(i64::try_from(since).ok()?.saturating_sub(shift)))
}

/// Truncates `text` to `max` bytes, between characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

/// Templates write `null` or an empty string for missing values.
pub(super) fn is_something(value: &&RawValue) -> bool {
    !matches!(value.get(), "null" | "\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_pipeline_are_parsed() {
        let at = |text| parse_time(text).map(Timestamp::as_millis);
        let base = 1_795_169_472_345;
        for text in [
            "2026-11-20T10:11:12.345+0000",
            "2026-11-20T10:11:12.345Z",
            "2026-11-20T10:11:12.345678+00:00",
            "2026-11-20T00:41:12.345-0930",
        ] {
            assert_eq!(at(text), Some(base), "{text}");
        }
        assert!(at("9999-12-31T23:59:59.999+0000").is_some() && at("0001-01-01T00:00:00.000+0000").is_some());
        for text in [
            "",
            "yesterday",
            "1795169472",
            "2026 Nov 20 10:11:12",
            "2026-02-30T10:11:12.345+0000",
            "2026-11-20T25:61:61.345+0000",
            "2026-11-20T10:11:12.345+9999",
            "٢٠٢٦-11-20T10:11:12.345+0000",
            "2026-11-20T10:11:12.345",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
