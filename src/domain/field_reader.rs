//! Reads the fields of a document such as a policy, one at a time, and collects the faults: each with its place
//! and, for a probable misspelling, a suggestion. It knows kinds of fields, and no field of a policy.

use riposte_protocol::words::nearest;
use serde_json::{Map, Value};

use super::wazuh_words;
use crate::domain::alert::TargetField;
use crate::domain::duration::{InvalidSpan, Span};
use crate::domain::fault::Fault;

/// Maximum number of entries of a list.
pub(in crate::domain) const MAX_ENTRIES: usize = 4096;

/// Reads fields and collects faults.
#[derive(Debug, Default)]
pub struct FieldReader {
    faults: Vec<Fault>,
}

impl FieldReader {
    /// All faults found so far.
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Whether `pointer` has a fault already.
    pub(in crate::domain) fn has_fault_at(&self, pointer: &str) -> bool {
        self.faults.iter().any(|fault| fault.pointer == pointer)
    }

    /// Adds faults that were found elsewhere.
    pub(in crate::domain) fn add(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
    }

    /// Adds a fault.
    pub(in crate::domain) fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.faults.push(Fault::at(pointer, detail));
    }

    /// Adds a fault for each field that is none of `known`.
    pub(in crate::domain) fn known(&mut self, object: &Map<String, Value>, at: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let pointer = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
            let hint = wazuh_words::field(key);
            let detail = hint.unwrap_or_else(|| suggest("is not a known field", key, known.iter().copied()));
            self.fault(pointer, detail);
        }
    }

    /// An object.
    pub(in crate::domain) fn object<'v>(&mut self, value: &'v Value, at: &str) -> Option<&'v Map<String, Value>> {
        if value.is_object() {
            value.as_object()
        } else {
            self.fault(at, "must be an object");
            None
        }
    }

    /// A text of at most 4096 characters.
    pub(in crate::domain) fn text(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<String> {
        match object.get(key)? {
            Value::String(text) if !text.contains('\0') && text.chars().count() <= 4096 => Some(text.clone()),
            Value::String(_) => {
                self.fault(format!("{at}/{key}"), "is longer than 4096 characters or contains NUL");
                None
            }
            _ => {
                self.fault(format!("{at}/{key}"), "must be a text");
                None
            }
        }
    }

    /// A list of strings; numbers are accepted for unquoted rule ids.
    pub(in crate::domain) fn words(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Vec<String> {
        let Some(value) = object.get(key) else { return Vec::new() };
        let at = format!("{at}/{key}");
        if let Some(written) = one_word(value) {
            let words: Vec<String> = written.split(',').map(|word| format!("{:?}", word.trim())).collect();
            self.fault(at, format!("write a list: [{}]", words.join(", ")));
            return Vec::new();
        }
        let Some(list) = value.as_array().filter(|list| list.len() <= MAX_ENTRIES) else {
            self.fault(at, format!("must be a list of at most {MAX_ENTRIES} texts"));
            return Vec::new();
        };
        let mut words = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            match item {
                Value::String(text) if !text.is_empty() && text.chars().count() <= 256 && !text.contains('\0') => {
                    words.push(text.clone());
                }
                Value::Number(number) if number.is_u64() => words.push(number.to_string()),
                _ => self.fault(format!("{at}/{index}"), "must be a text of 1 to 256 characters"),
            }
        }
        words
    }

    /// As [`Self::words`], for texts that are compared: spaces around them do not matter.
    pub(in crate::domain) fn terms(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Vec<String> {
        let words = self.words(object, at, key);
        for (index, _) in words.iter().enumerate().filter(|(_, word)| word.trim().is_empty()) {
            self.fault(format!("{at}/{key}/{index}"), "is blank");
        }
        words.iter().map(|word| word.trim().to_owned()).collect()
    }

    /// A whole number within `range`.
    pub(in crate::domain) fn count(
        &mut self,
        object: &Map<String, Value>,
        at: &str,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let number = object.get(key)?.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            let (least, most) = range.into_inner();
            self.fault(format!("{at}/{key}"), format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    /// A duration.
    pub(in crate::domain) fn span(&mut self, object: &Map<String, Value>, at: &str, key: &str) -> Option<Span> {
        if let Some(number) = object.get(key)?.as_u64() {
            self.fault(format!("{at}/{key}"), format!("write a duration: \"{number}s\""));
            return None;
        }
        let text = self.text(object, at, key)?;
        let span = text.parse().map_err(|error: InvalidSpan| error.to_string());
        span.map_err(|error| self.fault(format!("{at}/{key}"), error)).ok()
    }

    /// An observable.
    pub(in crate::domain) fn observable(&mut self, value: &Value, at: &str) -> Option<TargetField> {
        let field = serde_json::from_value(value.clone()).ok();
        if field.is_none() {
            let message = format!("must be one of {}", TargetField::NAMES.join(", "));
            self.fault(at, suggest(&message, value.as_str().unwrap_or_default(), TargetField::NAMES));
        }
        field
    }
}

/// The message, with the known word that was probably meant.
pub fn suggest<'a>(message: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(meant) => format!("{message}; did you mean {meant}?"),
        None => message.to_owned(),
    }
}

/// A short string or number in the place of a list.
fn one_word(value: &Value) -> Option<String> {
    let word = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (word.len() <= 256).then_some(word)
}
