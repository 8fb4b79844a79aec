//! The first step of an import: parses an `ossec.conf` into roots, sections and the options that
//! matter for responses. It accepts what Wazuh's own parser accepts: comments that end in `!>`,
//! `\<` as an ordinary character, unresolved entities. It is bounded for any input, and reports
//! line and column.

use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::report::{Place, short};
use super::wazuh_error::{DECLARATION, WazuhError, XML_ERROR};

/// Maximum length of a name, value or tag, in bytes: Wazuh's own limit.
const MAX_TEXT_BYTES: usize = 20_480;
/// Maximum nesting; real files have five levels.
const MAX_DEPTH: usize = 64;
/// Maximum number of sections per file. Wazuh's agents accept 64 responses; a large manager's file
/// has a few hundred sections.
const MAX_SECTIONS: usize = 10_000;
/// Maximum number of options in the relevant sections.
const MAX_OPTIONS: usize = 50_000;
/// Maximum number of reported texts between elements.
const MAX_STRAY: usize = 50;
/// Maximum quoted length of one, in characters.
const MAX_STRAY_CHARS: usize = 80;
/// Sections with relevant options.
const KEPT: [&str; 3] = ["global", "command", "active-response"];
/// Replaces `<` after a backslash during parsing; it cannot occur in a configuration.
const ESCAPED: char = '\u{1}';

/// An error and its position.
pub(super) type XmlFault = (WazuhError, Place);
/// Positions of removed comments: an offset, and the number of bytes removed before it.
type Cuts = Vec<(usize, usize)>;

/// The content of a file.
#[derive(Debug)]
pub(super) struct File {
    pub roots: Vec<Root>,
    /// Texts between elements; the first per section.
    pub stray: Vec<(String, Place)>,
}

/// A root element and its sections.
#[derive(Debug)]
pub(super) struct Root {
    pub name: String,
    pub place: Place,
    pub sections: Vec<Section>,
}

/// A section of a root.
#[derive(Debug)]
pub(super) struct Section {
    pub name: String,
    pub place: Place,
    /// Whether it has any child, relevant or not.
    pub has_children: bool,
    pub options: Vec<XmlEntry>,
}

/// An option: name and text.
#[derive(Debug)]
pub(super) struct XmlEntry {
    pub name: String,
    pub value: String,
    pub place: Place,
}

/// Parses the file with index `file`.
///
/// # Errors
/// The first error, with its position.
pub(super) fn read(file: usize, text: &str) -> Result<File, XmlFault> {
    let lines = Lines::new(file, text);
    let (stripped, cuts) = without_comments(text, &lines)?;
    let original = |offset: u64| {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let before = cuts.partition_point(|(at, _)| *at <= offset);
        before.checked_sub(1).and_then(|nth| cuts.get(nth)).map_or(offset, |(_, removed)| offset + removed)
    };
    let mut reader = Reader::from_str(&stripped);
    let config = reader.config_mut();
    // Wazuh does not resolve entities, and compares names of closing tags with their spaces.
    config.allow_dangling_amp = true;
    config.trim_markup_names_in_closing_tags = false;
    let mut tree = Tree::default();
    loop {
        let position = reader.buffer_position();
        let start = lines.place(original(position));
        let fault = |text: String| (WazuhError::new(XML_ERROR, text), start);
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                check(&tag).map_err(fault)?;
                tree.open(tag.name().as_ref(), start)?;
            }
            Ok(Event::Empty(tag)) => {
                check(&tag).map_err(fault)?;
                tree.open(tag.name().as_ref(), start)?;
                tree.close();
            }
            Ok(Event::End(_)) => tree.close(),
            Ok(Event::Text(part)) => {
                let part = part.into_inner();
                let shown = part.trim();
                if !shown.is_empty() && tree.open.len() < 3 {
                    let blanks = part.len() - part.trim_start().len();
                    let at = position.saturating_add(u64::try_from(blanks).unwrap_or(u64::MAX));
                    tree.stray(shown, lines.place(original(at)));
                }
                tree.text(&part, start)?;
            }
            Ok(Event::GeneralRef(name)) => tree.text(&format!("&{};", name.into_inner()), start)?,
            Ok(Event::Eof) => break,
            Ok(Event::Comment(_) | Event::CData(_) | Event::DocType(_)) => {}
            Ok(Event::Decl(_) | Event::PI(_)) => return Err(fault(DECLARATION.into())),
            Err(error) => {
                let place = lines.place(original(reader.error_position()));
                return Err((WazuhError::new(XML_ERROR, syntax(&error)), place));
            }
        }
    }
    match tree.open.last() {
        Some(place) => Err((WazuhError::new(XML_ERROR, NOT_CLOSED), *place)),
        None => Ok(File { roots: tree.roots, stray: tree.stray }),
    }
}

const NOT_CLOSED: &str = "XMLERR: End of file and some elements were not closed.";

/// Wazuh's message for an XML error.
fn syntax(error: &Error) -> String {
    match error {
        Error::IllFormed(IllFormedError::MismatchedEndTag { expected, .. }) => {
            format!("XMLERR: Element '{}' not closed.", short(expected))
        }
        Error::IllFormed(IllFormedError::UnmatchedEndTag(_)) => "XMLERR: Element not opened.".into(),
        Error::Syntax(
            SyntaxError::UnclosedSingleQuotedAttributeValue | SyntaxError::UnclosedDoubleQuotedAttributeValue,
        ) => "XMLERR: End of file while reading an attribute.".into(),
        Error::Syntax(_) => NOT_CLOSED.into(),
        other => format!("XMLERR: {other}"),
    }
}

/// Checks an opening tag.
fn check(tag: &BytesStart) -> Result<(), String> {
    let whole: &str = tag;
    if whole.len() > MAX_TEXT_BYTES {
        return Err("XMLERR: String overflow.".into());
    }
    let Some(error) = tag.attributes().find_map(Result::err) else { return Ok(()) };
    let before = |at: usize| {
        let text = whole.get(..at).unwrap_or(whole).trim_end_matches(|c: char| c.is_whitespace() || c == '=');
        short(text.rsplit(char::is_whitespace).next().unwrap_or_default())
    };
    Err(match error {
        AttrError::ExpectedEq(at) => format!("XMLERR: Attribute '{}' has no value.", before(at)),
        AttrError::ExpectedValue(at) | AttrError::UnquotedValue(at) => {
            format!("XMLERR: Attribute '{}' not followed by a \" or '.", before(at))
        }
        AttrError::ExpectedQuote(at, _) => {
            let value = whole.get(..at).unwrap_or(whole).rfind('=').unwrap_or(at);
            format!("XMLERR: Attribute '{}' not closed.", before(value))
        }
        AttrError::Duplicated(at, _) => {
            let rest = whole.get(at..).unwrap_or_default();
            let name = rest.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
            format!("XMLERR: Attribute '{}' already defined.", short(name))
        }
    })
}

/// Removes comments from `text`, and returns their positions. Wazuh treats everything that begins
/// with `<!` as a comment, including document types and CDATA.
fn without_comments(text: &str, lines: &Lines) -> Result<(String, Cuts), XmlFault> {
    let bytes = text.as_bytes();
    let (mut kept, mut cuts, mut removed) = (String::with_capacity(text.len()), Vec::new(), 0);
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at] != b'<' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b'!') {
            kept.push_str(&text[from..at]);
            let ends = |from: usize| {
                [&b"-->"[..], b"!>"].iter().find(|end| bytes[from..].starts_with(end)).map(|end| from + end.len())
            };
            let Some(end) = (at + 2..bytes.len()).find_map(ends) else {
                return Err((WazuhError::new(XML_ERROR, "XMLERR: Comment not closed."), lines.place(at)));
            };
            removed += end - at;
            at = end;
            from = at;
            cuts.push((kept.len(), removed));
        } else if at > from && bytes[at - 1] == b'\\' {
            kept.push_str(&text[from..at]);
            kept.push(ESCAPED);
            at += 1;
            from = at;
        } else {
            at += 1;
        }
    }
    kept.push_str(&text[from..]);
    Ok((kept, cuts))
}

/// The elements parsed so far.
#[derive(Default)]
struct Tree {
    roots: Vec<Root>,
    /// Positions of the open elements.
    open: Vec<Place>,
    sections: usize,
    options: usize,
    stray: Vec<(String, Place)>,
    /// Depth and number of preceding sections of the last text between elements.
    strayed_at: Option<(usize, usize)>,
}

impl Tree {
    /// Records a text between elements, one per section and per gap.
    fn stray(&mut self, text: &str, place: Place) {
        let at = (self.open.len(), self.sections);
        if self.strayed_at != Some(at) && self.stray.len() < MAX_STRAY {
            self.stray.push((text.chars().take(MAX_STRAY_CHARS).collect(), place));
        }
        self.strayed_at = Some(at);
    }

    fn open(&mut self, name: &str, place: Place) -> Result<(), XmlFault> {
        let name = name.to_owned();
        match (self.open.len(), self.roots.last_mut()) {
            (0, _) => self.roots.push(Root { name, place, sections: Vec::new() }),
            (1, Some(root)) => {
                self.sections += 1;
                root.sections.push(Section { name, place, has_children: false, options: Vec::new() });
            }
            (2, Some(root)) => {
                if let Some(section) = root.sections.last_mut() {
                    section.has_children = true;
                    if KEPT.contains(&section.name.as_str()) {
                        self.options += 1;
                        section.options.push(XmlEntry { name, value: String::new(), place });
                    }
                }
            }
            _ => {}
        }
        self.open.push(place);
        let sections = self.roots.len() + self.sections;
        if self.open.len() > MAX_DEPTH || sections > MAX_SECTIONS || self.options > MAX_OPTIONS {
            let text = format!(
                "the file is larger than what is read: {MAX_DEPTH} levels, {MAX_SECTIONS} sections, {MAX_OPTIONS} options"
            );
            return Err((WazuhError { code: None, text }, place));
        }
        Ok(())
    }

    /// The open option, if it is relevant.
    fn option(&mut self) -> Option<&mut XmlEntry> {
        let section = self.roots.last_mut()?.sections.last_mut()?;
        section.options.last_mut().filter(|_| KEPT.contains(&section.name.as_str()))
    }

    fn close(&mut self) {
        self.open.pop();
        if self.open.len() == 3
            && let Some(option) = self.option()
        {
            // The value of an option is the text after its last child.
            option.value.clear();
        }
    }

    fn text(&mut self, text: &str, place: Place) -> Result<(), XmlFault> {
        if self.open.len() == 3
            && let Some(option) = self.option()
        {
            option.value.extend(text.chars().map(|c| if c == ESCAPED { '<' } else { c }));
            if option.value.len() > MAX_TEXT_BYTES {
                return Err((WazuhError::new(XML_ERROR, "XMLERR: String overflow."), place));
            }
        }
        Ok(())
    }
}

/// Offsets of the lines of a file.
struct Lines<'a> {
    file: usize,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: usize, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|nth| self.starts.get(nth)).copied().unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // Counts characters only in short lines: a file of one long line would cost quadratic time.
        let bytes = offset.saturating_sub(start);
        let column = match self.text.get(start..offset) {
            Some(before) if bytes <= 1000 => before.chars().count(),
            _ => bytes,
        };
        Place { file: self.file, line: number(line), column: number(column + 1) }
    }
}
