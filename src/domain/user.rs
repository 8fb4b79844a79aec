//! What the name and the password of a person may be.

use super::fault::Fault;

/// Smallest length of a password, in characters.
pub const MIN_PASSWORD: usize = 12;
/// Largest length of a password, in characters: hashing costs as much as the text is long.
pub const MAX_PASSWORD: usize = 1024;
/// Largest length of a name.
const MAX_NAME: usize = 64;

/// Whether `text` is a user's name: `[a-z0-9][a-z0-9._-]{0,63}`.
pub fn is_user_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| is_plain(byte) || b"._-".contains(&byte);
    text.len() <= MAX_NAME && text.bytes().next().is_some_and(is_plain) && text.bytes().all(rest)
}

/// Why `text` cannot be the password of the user `name`, if so. `pointer` is its place in the
/// request.
pub fn password_fault(pointer: &str, text: &str, name: &str) -> Option<Fault> {
    let count = text.chars().count();
    let why = if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&count) || text.chars().any(char::is_control) {
        format!("must have {MIN_PASSWORD} to {MAX_PASSWORD} characters, none of them a control character")
    } else if text.eq_ignore_ascii_case(name) {
        "must not be the user's name".to_owned()
    } else {
        return None;
    };
    Some(Fault::at(pointer, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_have_a_form() {
        for name in ["a", "7", "alice.b-c_d", &"a".repeat(64)] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["", "Alice", ".a", "-a", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_user_name(name), "{name}");
        }
        let fault = |text: &str| password_fault("/password", text, "alice.wonderland");
        assert!(fault("eleven char").is_some() && fault("Alice.Wonderland").is_some());
        assert!(fault("a line\nbreak is no part").is_some() && fault(&"x".repeat(1025)).is_some());
        assert!(fault("twelve chars").is_none() && fault(&"ä".repeat(12)).is_none());
    }
}
