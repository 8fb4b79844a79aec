//! Splits a body into alerts at byte level, before decoding, so that one invalid alert does not
//! affect the others.

/// The non-empty lines of `bytes`, trimmed.
pub fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect()
}

/// The elements of a JSON array, trimmed and unparsed; `None` if `bytes` is not exactly one array.
pub fn elements(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let body = bytes.trim_ascii().strip_prefix(b"[")?;
    let (mut elements, mut from, mut depth) = (Vec::new(), 0, 1_usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for (at, byte) in body.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth > 1 => depth -= 1,
            // The closing bracket, without trailing content.
            b']' if at + 1 == body.len() => {
                let last = body[from..at].trim_ascii();
                if last.is_empty() && elements.is_empty() {
                    return Some(elements);
                }
                elements.push(last);
                return Some(elements).filter(|elements| elements.iter().all(|element| !element.is_empty()));
            }
            b']' | b'}' => return None,
            b',' if depth == 1 => {
                elements.push(body[from..at].trim_ascii());
                from = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> Option<Vec<&str>> {
        let elements = elements(text.as_bytes())?;
        Some(elements.into_iter().map(|element| std::str::from_utf8(element).unwrap()).collect())
    }

    #[test]
    fn an_array_is_split_for_any_elements() {
        assert_eq!(split(" [ ] "), Some(vec![]));
        assert_eq!(
            split(r#"[1, "],\"[", {"a": [1, 2]}, [[]]]"#),
            Some(vec!["1", r#""],\"[""#, r#"{"a": [1, 2]}"#, "[[]]"])
        );
        assert_eq!(split(r#"[{"a": }, x]"#), Some(vec![r#"{"a": }"#, "x"]));
        for broken in
            ["", "{}", "[", "[1", "[1,]", "[,1]", "[1,,2]", "[1] 2", "[1]]", "[}", r#"["]"#, "[[1]", "[{]}, 1"]
        {
            assert_eq!(split(broken), None, "{broken}");
        }
    }

    proptest! {
        /// Each line is preserved and in order, for any bytes.
        #[test]
        fn lines_are_split_for_any_bytes(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..12)) {
            let lines: Vec<Vec<u8>> = lines.into_iter().map(|line| line.into_iter().filter(|byte| *byte != b'\n').collect()).collect();
            let expected: Vec<&[u8]> = lines.iter().map(|line| line.trim_ascii()).filter(|line| !line.is_empty()).collect();
            let body = lines.join(&b'\n');
            prop_assert_eq!(super::lines(&body), expected);
        }

        /// A valid JSON array has the same elements here, and no input panics.
        #[test]
        fn an_array_that_is_json_has_the_same_elements(items in prop::collection::vec(r#"[a-z\[\]{},:"\\ é]{0,12}"#, 0..6), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let array = serde_json::to_string(&items).unwrap();
            let found: Vec<String> = elements(array.as_bytes()).unwrap().into_iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
            prop_assert_eq!(found, items);
            let _ = elements(&bytes);
        }
    }
}
