//! Single values, as Wazuh reads them: forgiving where C is, and with what is left unread told apart.

use super::loaded::Location;

/// Which words the text holds, anywhere in it and whatever their case.
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

/// A level, 0 to 20; nothing counts as 0.
pub(super) fn level(text: &str) -> Option<u8> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|level| *level <= 20) }
}

/// The number at the beginning of a text, blanks before it left aside; 0 if there is none.
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
    // Only too many digits are left as a fault.
    digits[..end].parse::<i32>().map_or(i32::MAX, |n| n) * sign
}

/// The numbers of a list of rules, and whether something of it is never read. Blanks and commas may stand between numbers;
/// reading goes from a number to the next comma, whatever is in between, and stops at any other character.
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
