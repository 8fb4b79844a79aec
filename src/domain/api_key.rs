//! The format of API keys, `rip_ID_SECRET`. Format errors are explained to the caller, who typed or
//! copied the key. Nothing here reveals whether a key exists.

use super::credential::TOKEN_PREFIX;
pub use super::credential::{KEY_PREFIX as PREFIX, SECRET_LENGTH};

/// Length of an id: 8 bytes in hexadecimal.
pub const ID_LENGTH: usize = 16;

/// Why `text` cannot be an API key; `None` if it can.
pub fn form_fault(text: &str) -> Option<String> {
    let whole = PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH;
    if text.is_empty() {
        return Some("the key is empty".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("the key contains a space or a line break; copy one key, and nothing else".to_owned());
    }
    if text.starts_with(TOKEN_PREFIX) {
        return Some(format!("this is an enrolment token; an API key begins with {PREFIX}"));
    }
    let Some(rest) = text.strip_prefix(PREFIX) else {
        return Some(match text.split('.').count() {
            3 => "this is an agent's token, not an API key: a key begins with rip_".to_owned(),
            _ => "a key begins with rip_; this is something else".to_owned(),
        });
    };
    let Some((id, secret)) = rest.split_once('_') else {
        return Some(format!("the key has {} of {whole} characters; copy it whole", text.chars().count()));
    };
    if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(format!("a key is rip_, {ID_LENGTH} hexadecimal digits, _ and {SECRET_LENGTH} characters"));
    }
    match secret.chars().count() {
        SECRET_LENGTH => None,
        count if count > SECRET_LENGTH => Some(format!(
            "the key is too long: {count} characters after its id instead of {SECRET_LENGTH}; copy one key, and nothing else"
        )),
        count => Some(format!("the key has {count} of {SECRET_LENGTH} characters after its id; copy it whole")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_errors_of_a_key_are_explained() {
        let secret = "a".repeat(SECRET_LENGTH);
        let key = format!("rip_0123456789abcdef_{secret}");
        assert_eq!(form_fault(&key), None);
        let told = |text: &str| form_fault(text).unwrap();
        assert_eq!(told(&key[..key.len() - 12]), "the key has 31 of 43 characters after its id; copy it whole");
        assert_eq!(told(&key[..10]), "the key has 10 of 64 characters; copy it whole");
        assert!(
            told(&format!("{key}{key}")).starts_with("the key is too long: 107 characters after its id instead of 43")
        );
        assert!(told(&format!("{key}aa")).starts_with("the key is too long: 45 characters after its id instead of 43"));
        let token = format!("rit_{secret}");
        assert_eq!(told(&token), "this is an enrolment token; an API key begins with rip_");
        assert!(told(&format!("{key}\n{key}")).contains("line break"));
        assert!(told("a.b.c").contains("agent's token"));
        assert!(told("secret").contains("begins with rip_"));
        assert!(told("").contains("empty"));
        assert!(told(&format!("rip_zz_{secret}")).contains("hexadecimal"));
    }
}
