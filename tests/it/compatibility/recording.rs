//! A recorded exchange: the text of each frame as it was sent, with variables for what differs in
//! each run. `<name>` stands for one text, the same throughout; `<time>` for any time. A signed
//! command is written as `jws(HEADER CLAIMS)`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte_protocol::command::TYP;
use riposte_protocol::jws;
use riposte_protocol::key::SigningKey;
use serde_json::value::RawValue;

use super::super::processes::now;

/// One line: a speaker and a text. The text of a `client` is the request to the manager's API, by name.
pub(super) struct Line {
    pub(super) speaker: &'static str,
    text: &'static str,
}

/// The lines of a file: `SPEAKER> TEXT`.
pub(super) fn lines(file: &'static str) -> Vec<Line> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| line.split_once("> ").unwrap_or_else(|| panic!("no speaker: {line}")));
    lines.map(|(speaker, text)| Line { speaker, text }).collect()
}

/// The texts of this run that the variables of a recording stand for.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<&'static str, String>);

impl Names {
    /// The texts that are known before the exchange.
    pub(super) fn of<const N: usize>(known: [(&'static str, String); N]) -> Self {
        Self(known.into())
    }

    /// Returns the frame to send, with this run's texts for the variables.
    pub(super) fn fill(&self, line: &Line) -> String {
        let mut filled = String::new();
        for (literal, name) in parts(line.text) {
            filled += literal;
            match name {
                Some("time") => filled += &now().to_string(),
                Some(name) => filled += self.0.get(name).unwrap_or_else(|| panic!("what is <{name}>?")),
                None => {}
            }
        }
        filled
    }

    /// Compares a frame with its record, and learns the texts that its new variables stand for.
    pub(super) fn read(&mut self, line: &Line, frame: &str) {
        let differs =
            |rest: &str, due: &str| format!("recorded: {}\nsent:     {frame}\nat {rest:?}, not {due:?}", line.text);
        let mut rest = frame;
        let parts = parts(line.text);
        for (number, (literal, name)) in parts.iter().enumerate() {
            rest = rest.strip_prefix(literal).unwrap_or_else(|| panic!("{}", differs(rest, literal)));
            let Some(name) = name else { continue };
            let next = parts.get(number + 1).map_or("", |(literal, _)| *literal);
            let end = if next.is_empty() { Some(rest.len()) } else { rest.find(next) };
            let (value, after) = rest.split_at(end.unwrap_or_else(|| panic!("{}", differs(rest, next))));
            rest = after;
            if *name != "time" {
                let known = self.0.entry(name).or_insert_with(|| value.to_owned());
                assert_eq!(known, value, "<{name}> has changed: {frame}");
            }
        }
        assert_eq!(rest, "", "{}", differs(rest, ""));
    }
}

/// The literal texts of a line, each with the variable that follows it.
fn parts(text: &'static str) -> Vec<(&'static str, Option<&'static str>)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('<') {
        let (name, after) = after.split_once('>').unwrap_or_else(|| panic!("no end of a name: {text}"));
        parts.push((literal, Some(name)));
        rest = after;
    }
    parts.push((rest, None));
    parts
}

const BEGIN: &str = "jws(";
const END: &str = ")\"";

/// Signs the commands of a frame that was written by hand; the claims stay as they are, to the byte.
pub(super) fn seal(frame: &str, key: &SigningKey, kid: &str) -> String {
    let Some((before, rest)) = frame.split_once(BEGIN) else { return frame.to_owned() };
    let (signed, after) = rest.split_once(END).unwrap();
    let (header, claims) = signed.split_once(' ').unwrap();
    let claims: &RawValue = serde_json::from_str(claims).unwrap();
    let token = jws::sign(key, TYP, kid, &claims).unwrap();
    assert_eq!(decode(token.split('.').next().unwrap()), header, "the header of a command has changed");
    format!("{before}{token}\"{}", seal(after, key, kid))
}

/// Writes the commands of a frame with their header and claims as text.
pub(super) fn unseal(frame: &str, tokens: &[String]) -> String {
    tokens.iter().fold(frame.to_owned(), |frame, token| {
        let [header, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { panic!("no token: {token}") };
        frame.replace(token, &format!("{BEGIN}{} {})", decode(header), decode(claims)))
    })
}

fn decode(part: &str) -> String {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
