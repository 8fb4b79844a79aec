//! Which characters of a text that others wrote must not reach a terminal or a log as they are. Both
//! programs and every output use this one rule; what each writes instead is its own choice.

/// Whether `c` is a control character, or one that is not seen and changes how the text around it is
/// read: it turns the direction of writing, joins, separates lines or has no width.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_reader_is_hidden_and_letters_are_not() {
        for c in
            "\0\n\u{1b}\u{7f}\u{9b}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{2069}\u{feff}\u{e0041}".chars()
        {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in "a 'ß\u{a0}中é🦀\u{2027}\u{202f}\u{fffd}".chars() {
            assert!(!is_hidden(c), "{c:?}");
        }
    }
}
