//! The report of an import: every difference from Wazuh's behaviour, and everything that was not
//! converted.

use std::collections::HashSet;

use riposte_protocol::visible::is_hidden;

use super::wazuh_error::{DECLARATION, WazuhError, XML_ERROR};
use crate::views::import::{Level, Note};

/// Maximum length of a quoted piece of configuration, in characters.
const MAX_QUOTED: usize = 200;

/// A position in the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Index of the file, from 0.
    pub file: usize,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// Collects notes.
#[derive(Debug)]
pub(super) struct ImportReport<'a> {
    files: &'a [(String, String)],
    /// Files with undecodable bytes.
    bad_bytes: HashSet<usize>,
    notes: Vec<(Option<Place>, Note)>,
    /// Notes that were reported once for all blocks.
    said: HashSet<&'static str>,
}

impl<'a> ImportReport<'a> {
    pub(super) fn new(files: &'a [(String, String)]) -> Self {
        Self { files, bad_bytes: HashSet::new(), notes: Vec::new(), said: HashSet::new() }
    }

    /// Reports undecodable bytes of a file, the first at `place`.
    pub(super) fn bad_bytes(&mut self, place: Place) {
        self.bad_bytes.insert(place.file);
        self.warning(
            place,
            "the file is not UTF-8 from here on: invalid bytes become U+FFFD. In a comment this is harmless; a block \
             with such bytes in its values is not converted",
        );
    }

    /// Whether the file of `place` has undecodable bytes.
    pub(super) fn has_bad_bytes(&self, place: Place) -> bool {
        self.bad_bytes.contains(&place.file)
    }

    pub(super) fn add(&mut self, level: Level, place: Option<Place>, message: impl Into<String>) {
        let file = place.filter(|_| self.files.len() > 1).map(|place| self.file(place));
        let line = place.map(|place| place.line);
        self.notes.push((place, Note { level, file, line, column: None, message: message.into() }));
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) {
        self.add(Level::Error, Some(place), message);
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Into<String>) {
        self.add(Level::Warning, Some(place), message);
    }

    pub(super) fn info(&mut self, place: Place, message: impl Into<String>) {
        self.add(Level::Info, Some(place), message);
    }

    /// Reports a note only at the first block that it concerns.
    pub(super) fn once(&mut self, level: Level, place: Place, message: &'static str) {
        if self.said.insert(message) {
            self.add(level, Some(place), message);
        }
    }

    /// Reports why the files are refused.
    pub(super) fn refuse(&mut self, error: &WazuhError, place: Option<Place>) {
        let WazuhError { code, text } = error;
        match code {
            Some(code) => {
                let hint =
                    if text == DECLARATION { " Its reader knows no XML declaration: remove the line" } else { "" };
                self.add(Level::Error, place, format!("Wazuh refuses this: ({code}): {}{hint}", short(text)));
            }
            None => self.add(Level::Error, place, text.clone()),
        }
        let is_xml = *code == Some(XML_ERROR) || code.is_none();
        if let (Some((_, note)), Some(place), true) = (self.notes.last_mut(), place, is_xml) {
            note.column = Some(place.column);
        }
    }

    /// The name of a file.
    pub(super) fn file(&self, place: Place) -> String {
        self.files.get(place.file).map(|(name, _)| short(name)).unwrap_or_default()
    }

    /// A position, for people.
    pub(super) fn at(&self, place: Place) -> String {
        format!("{}, line {}", self.file(place), place.line)
    }

    /// All notes in the order of the files.
    pub(super) fn into_notes(mut self) -> Vec<Note> {
        self.notes.sort_by_key(|(place, _)| place.map(|place| (place.file, place.line)));
        self.notes.into_iter().map(|(_, note)| note).collect()
    }
}

/// A text made safe to quote in the report: truncated, and without control characters.
pub(super) fn short(text: &str) -> String {
    let plain = |c: char| if is_hidden(c) { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(MAX_QUOTED).map(plain).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        short.push('…');
    }
    short
}
