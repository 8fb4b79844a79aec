//! Explains expressions that cannot be parsed. The parser's own message names tokens; most mistakes
//! are habits from another language, so the explanation names the CEL equivalent.

/// Tokens of other languages, with CEL's equivalent.
const WORDS: [(&str, &str); 9] = [
    ("and", "&&"),
    ("or", "||"),
    ("not", "!"),
    ("AND", "&&"),
    ("OR", "||"),
    ("NOT", "!"),
    ("IN", "in"),
    ("like", "contains(…) or matches(…)"),
    ("is", "=="),
];

/// A mistake: its byte offset, and the correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) offset: usize,
    pub(super) advice: String,
}

/// The first known mistake in `source`.
pub(super) fn find(source: &str) -> Option<Mistake> {
    let bytes = source.as_bytes();
    let at = |offset: usize| bytes.get(offset).copied().unwrap_or(0);
    let mistake = |offset, advice: &str| Some(Mistake { offset, advice: advice.to_owned() });
    let (mut offset, mut open) = (0, Vec::new());
    while offset < bytes.len() {
        let (byte, next) = (at(offset), at(offset + 1));
        match byte {
            b'"' | b'\'' => match text_end(bytes, offset) {
                Some(end) => offset = end,
                None => {
                    return mistake(
                        offset,
                        "the text that begins here does not end; texts with line breaks are written with \\n",
                    );
                }
            },
            b'=' if next == b'=' && at(offset + 2) == b'=' => return mistake(offset, "use =="),
            b'=' if next == b'~' => return mistake(offset, "use matches(…) for a pattern"),
            b'=' if next == b'>' => return mistake(offset, "use >="),
            b'=' if next == b'<' => return mistake(offset, "use <="),
            b'=' if next != b'=' => return mistake(offset, "use == to compare"),
            b'<' if next == b'>' => return mistake(offset, "use != for what differs"),
            b'!' if next == b'=' && at(offset + 2) == b'=' => return mistake(offset, "use !="),
            b'=' | b'!' | b'<' | b'>' if next == b'=' => offset += 1,
            b'&' if next != b'&' => return mistake(offset, "use && for and"),
            b'|' if next != b'|' => return mistake(offset, "use || for or"),
            b'&' | b'|' => offset += 1,
            b'#' | b';' => return mistake(offset, "is not valid in CEL; a condition is one expression"),
            b'$' => return mistake(offset, "is not valid in CEL; write field names directly, as in data.srcip"),
            b'(' | b'[' | b'{' => open.push((offset, byte)),
            b')' | b']' | b'}' => {
                let wanted = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                if open.pop().is_none_or(|(_, opened)| opened != wanted) {
                    return mistake(offset, "closes something that was not opened");
                }
            }
            _ if byte.is_ascii_alphabetic() => {
                let end = (offset..bytes.len()).find(|end| !is_word(at(*end))).unwrap_or(bytes.len());
                let word = &source[offset..end];
                let is_field = source[..offset].trim_end().ends_with('.');
                let is_called = source[end..].trim_start().starts_with('(') && offset > 0 && at(offset - 1) == b'.';
                if let Some((_, meant)) = WORDS.iter().find(|(wrong, _)| *wrong == word)
                    && !is_field
                    && !is_called
                {
                    return mistake(offset, &format!("use {meant}"));
                }
                offset = end - 1;
            }
            // “ ” ‘ ’ are quotes from word processors.
            0x80.. => {
                if ["“", "”", "„", "‘", "’", "«", "»"].iter().any(|quote| source[offset..].starts_with(quote))
                {
                    return mistake(offset, "use straight quotes: \" or '");
                }
                let length = source[offset..].chars().next().map_or(1, char::len_utf8);
                offset += length - 1;
            }
            _ => {}
        }
        offset += 1;
    }
    if let Some((offset, _)) = open.first() {
        return mistake(*offset, "is not closed");
    }
    let end = source.trim_end();
    ["&&", "||", "==", "!=", "<", ">", "<=", ">=", "+", "!", "."]
        .iter()
        .any(|operator| end.ends_with(operator))
        .then(|| Mistake { offset: end.len(), advice: "ends where something should follow".to_owned() })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Position of the closing quote of the string that begins at `start`.
fn text_end(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let is_raw = start > 0 && matches!(bytes[start - 1], b'r' | b'R');
    let triple = [quote; 3];
    if bytes[start..].starts_with(&triple) {
        return (start + 3..bytes.len().saturating_sub(2))
            .find(|at| bytes[*at..].starts_with(&triple))
            .map(|at| at + 2);
    }
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if !is_raw => at += 1,
            b'\n' => return None,
            byte if byte == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Line and column of `offset`, in characters, both from 1.
pub(super) fn place(source: &str, offset: usize) -> (usize, usize) {
    let before = &source[..source.floor_char_boundary(offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_other_languages_are_named() {
        for (source, offset, advice) in [
            ("data.a = 3", 7, "use == to compare"),
            ("data.a === 3", 7, "use =="),
            ("data.a !== 3", 7, "use !="),
            ("data.a <> 3", 7, "use != for what differs"),
            ("data.a => 3", 7, "use >="),
            ("data.a =~ 'x'", 7, "use matches(…) for a pattern"),
            ("a and b", 2, "use &&"),
            ("a OR b", 2, "use ||"),
            ("not a", 0, "use !"),
            ("a & b", 2, "use && for and"),
            ("a | b", 2, "use || for or"),
            ("data.url like 'x'", 9, "use contains(…) or matches(…)"),
            ("data.user == “root”", 13, "use straight quotes: \" or '"),
            ("(a && b", 0, "is not closed"),
            ("a[0)", 3, "closes something that was not opened"),
            ("rule.level >", 12, "ends where something should follow"),
            ("a;", 1, "is not valid in CEL; a condition is one expression"),
        ] {
            assert_eq!(find(source), Some(Mistake { offset, advice: advice.into() }), "{source}");
        }
        let unclosed = find("data.user == \"root").unwrap();
        assert!(unclosed.offset == 13 && unclosed.advice.starts_with("the text that begins here"));
    }

    #[test]
    fn valid_expressions_are_not_mistakes() {
        for source in [
            "data.a == 3 && data.b != \"a = b and c\" || !(data.c <= 4)",
            "data.or == 3 && data.url.contains('“') && data.is == 1",
            "alert.x.orValue(3) == 3 ? a : b",
            r#"data.x == "\"=\"" && data.y == r"\" && '''a = b''' == "é""#,
            "android && order",
        ] {
            assert_eq!(find(source), None, "{source}");
        }
    }

    #[test]
    fn a_place_is_counted_in_characters() {
        assert_eq!(place("a == \n  é = 1", 11), (2, 5));
        assert_eq!(place("abc", 0), (1, 1));
        assert_eq!(place("", 7), (1, 1));
    }

    proptest::proptest! {
        #[test]
        fn no_text_causes_a_panic(source in "\\PC{0,60}", offset in 0_usize..100) {
            find(&source);
            place(&source, offset);
        }
    }
}
