//! What an import says: everything that is carried over in another way than Wazuh has it, and everything that is not.

use std::collections::HashSet;

use riposte_protocol::visible::is_hidden;
use serde::Serialize;

use super::loaded::WazuhError;

/// The longest piece of a configuration that is repeated in a message, in characters.
const MAX_QUOTED: usize = 200;

/// How serious a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The file, or a block of it, was not carried over.
    Error,
    /// Something was left out or behaves differently.
    Warning,
    /// Something worth knowing; nothing is lost.
    Info,
}

/// One thing that an import says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Note {
    /// How serious it is.
    pub level: Level,
    /// Which file, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Which line, from 1; absent if it is about everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Which column of it, in characters, from 1; for faults of the XML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What there is to say.
    pub message: String,
}

/// A place in the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of the file, from 0.
    pub file: usize,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

/// Collects notes.
#[derive(Debug)]
pub(super) struct Report<'a> {
    files: &'a [(String, String)],
    /// Which files hold bytes that are no text.
    bad_bytes: HashSet<usize>,
    notes: Vec<(Option<Place>, Note)>,
    /// What was said for all blocks.
    said: HashSet<&'static str>,
}

impl<'a> Report<'a> {
    pub(super) fn new(files: &'a [(String, String)]) -> Self {
        Self { files, bad_bytes: HashSet::new(), notes: Vec::new(), said: HashSet::new() }
    }

    /// Says that bytes of a file are no text, the first of them at `place`.
    pub(super) fn bad_bytes(&mut self, place: Place) {
        self.bad_bytes.insert(place.file);
        self.warning(
            place,
            "the file is not UTF-8 from here on: what cannot be read stands as U+FFFD. In a comment that changes nothing; a block \
             in whose values it stands is not carried over",
        );
    }

    /// Whether the file of `place` holds bytes that are no text.
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

    /// Says something at the first block that it concerns, and not again.
    pub(super) fn once(&mut self, level: Level, place: Place, message: &'static str) {
        if self.said.insert(message) {
            self.add(level, Some(place), message);
        }
    }

    /// Why the files are refused.
    pub(super) fn refuse(&mut self, error: &WazuhError, place: Option<Place>) {
        let WazuhError { code, text } = error;
        match code {
            Some(code) => {
                let hint = if text == super::xml::DECLARATION {
                    " Its reader knows no XML declaration: remove the line"
                } else {
                    ""
                };
                self.add(Level::Error, place, format!("Wazuh refuses this: ({code}): {}{hint}", short(text)));
            }
            None => self.add(Level::Error, place, text.clone()),
        }
        let is_xml = *code == Some(super::xml::XML_ERROR) || code.is_none();
        if let (Some((_, note)), Some(place), true) = (self.notes.last_mut(), place, is_xml) {
            note.column = Some(place.column);
        }
    }

    /// The name of a file.
    pub(super) fn file(&self, place: Place) -> String {
        self.files.get(place.file).map(|(name, _)| short(name)).unwrap_or_default()
    }

    /// A place, for people.
    pub(super) fn at(&self, place: Place) -> String {
        format!("{}, line {}", self.file(place), place.line)
    }

    /// Everything, in the order of the files.
    pub(super) fn into_notes(mut self) -> Vec<Note> {
        self.notes.sort_by_key(|(place, _)| place.map(|place| (place.file, place.line)));
        self.notes.into_iter().map(|(_, note)| note).collect()
    }
}

/// A text as it may be repeated: of bearable length, and without characters that do something to whoever shows it.
pub(super) fn short(text: &str) -> String {
    let plain = |c: char| if is_hidden(c) { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(MAX_QUOTED).map(plain).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        short.push('…');
    }
    short
}
