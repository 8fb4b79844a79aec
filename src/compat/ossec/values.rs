//! Parses single values as Wazuh does: as lenient as C, with ignored text reported.

use super::loaded::Location;

/// The location words in the text, at any position and ignoring case.
pub(super) fn locations(text: &str) -> Vec<Location> {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let words = [
        (Location::Local, has(&["local"])),
        (Location::Server, has(&["as", "analysisd", "analysis-server", "server"])),
        (Location::DefinedAgent, has(&["defined-agent"])),
        (Location::All, has(&["all", "any"])),
    ];
    words.into_iter().filter(|(_, found)| *found).map(|(word, _)| word).collect()
}

/// A level, 0 to 20; empty counts as 0.
pub(super) fn level(text: &str) -> Option<u8> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|level| *level <= 20) }
}

/// The number at the start of a text, after spaces; 0 if there is none.
pub(super) fn number(text: &str) -> i32 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.bytes().take_while(u8::is_ascii_digit).count();
    if end == 0 {
        return 0;
    }
    // Parsing fails only on overflow here.
    digits[..end].parse::<i32>().map_or(i32::MAX, |n| n) * sign
}

/// Parses a list of rule ids; also returns whether text is ignored. Wazuh reads a number, skips to
/// the next comma, and stops at a character that is not a digit, space or comma.
pub(super) fn rule_ids(text: &str) -> (Vec<u32>, bool) {
    let (mut ids, mut unread, mut rest) = (Vec::new(), false, text);
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let end = rest.bytes().take_while(u8::is_ascii_digit).count();
        if end == 0 {
            return (ids, unread || !rest.trim().is_empty());
        }
        match rest[..end].parse() {
            Ok(id) => ids.push(id),
            Err(_) => unread = true,
        }
        let (between, after) = rest[end..].split_once(',').unwrap_or((&rest[end..], ""));
        unread |= !between.trim().is_empty();
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_rules_is_read_as_far_as_wazuh_does() {
        for (text, ids, unread) in [
            ("5712, 5763 ,,5720,31151", vec![5712, 5763, 5720, 31151], false),
            ("5712,sshd,5763", vec![5712], true),
            ("5712 5763, 1", vec![5712, 1], true),
            ("", vec![], false),
            (" , ", vec![], false),
            ("5712,\n 5763", vec![5712], true),
            ("99999999999,7", vec![7], true),
        ] {
            assert_eq!(rule_ids(text), (ids, unread), "{text:?}");
        }
    }

    #[test]
    fn numbers_and_levels_are_read_as_c_does() {
        for (text, expected) in
            [("ten", 0), ("60s", 60), (" 7", 7), ("-5", -5), ("", 0), ("99999999999", i32::MAX), ("366, 409", 366)]
        {
            assert_eq!(number(text), expected, "{text:?}");
        }
        assert_eq!(
            (level("20"), level("21"), level("-1"), level(""), level(" 6")),
            (Some(20), None, None, Some(0), None)
        );
    }

    #[test]
    fn a_location_is_every_word_that_it_contains() {
        assert_eq!(locations("local,server"), [Location::Local, Location::Server]);
        assert_eq!(locations("ANALYSISD"), [Location::Server]);
        assert_eq!(locations("everywhere"), []);
        assert_eq!(locations("anywhere"), [Location::All]);
    }
}
