//! References to secrets in the arguments of an action: `secret:NAME`, alone or as the value of a named
//! argument (`url=secret:NAME`).

/// What begins a reference.
const PREFIX: &str = "secret:";
/// Maximum length of a name.
const MAX_NAME: usize = 64;

/// Whether `text` can be the name of a secret: `[a-z0-9][a-z0-9._-]{0,63}`.
pub fn is_secret_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| is_plain(byte) || b"._-".contains(&byte);
    text.len() <= MAX_NAME && text.bytes().next().is_some_and(is_plain) && text.bytes().all(rest)
}

/// The name of the secret that an argument refers to, and the text before the reference.
pub fn reference(argument: &str) -> Option<(&str, &str)> {
    let at = match argument.split_once('=') {
        Some((key, value)) if value.starts_with(PREFIX) && !key.starts_with(PREFIX) => key.len() + 1,
        _ if argument.starts_with(PREFIX) => 0,
        _ => return None,
    };
    let (before, reference) = argument.split_at(at);
    reference.strip_prefix(PREFIX).map(|name| (before, name))
}

/// The names of the secrets that `arguments` refer to.
pub fn references(arguments: &[String]) -> impl Iterator<Item = &str> {
    arguments.iter().filter_map(|argument| reference(argument)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_stands_alone_or_is_the_value_of_a_named_argument() {
        for (argument, expected) in [
            ("secret:chat", Some(("", "chat"))),
            ("url=secret:chat", Some(("url=", "chat"))),
            ("secret:a=b", Some(("", "a=b"))),
            ("secret:a=secret:b", Some(("", "a=secret:b"))),
            ("my secret:chat", None),
            ("url=https://x/secret:chat", None),
            ("Secret:chat", None),
            ("", None),
        ] {
            assert_eq!(reference(argument), expected, "{argument}");
        }
        for (name, is_name) in
            [("chat-1", true), ("a.b_c", true), ("", false), ("-a", false), ("a=b", false), ("A", false)]
        {
            assert_eq!(is_secret_name(name), is_name, "{name}");
        }
    }
}
