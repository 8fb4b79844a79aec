//! The form of an enrolment token, `rit_SECRET`. As with API keys it says only whether a text can be a token; whether such a
//! token exists is told by nothing here.

pub use super::credential::TOKEN_PREFIX as PREFIX;
use super::credential::{KEY_PREFIX, SECRET_LENGTH};

/// Why `text` cannot be an enrolment token, in a sentence; nothing if it can.
pub fn form_fault(text: &str) -> Option<String> {
    let whole = PREFIX.len() + SECRET_LENGTH;
    if text.is_empty() {
        return Some("the enrolment token is empty".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let what = "the enrolment token holds a blank or a line break; copy one token, and nothing else";
        return Some(what.to_owned());
    }
    if text.starts_with(KEY_PREFIX) {
        return Some(format!("this is an API key; an enrolment token begins with {PREFIX}"));
    }
    if !text.starts_with(PREFIX) {
        return Some(format!("an enrolment token begins with {PREFIX}; this is something else"));
    }
    let count = text.chars().count();
    if count == whole {
        return None;
    }
    Some(if count < whole {
        format!("the enrolment token has {count} of {whole} characters; copy it whole")
    } else {
        format!("the enrolment token is too long: {count} characters instead of {whole}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_form_of_a_token_is_said() {
        let secret = "a".repeat(SECRET_LENGTH);
        let token = format!("rit_{secret}");
        assert_eq!(form_fault(&token), None);
        for (text, told) in [
            (token[..token.len() - 5].to_owned(), "the enrolment token has 42 of 47 characters; copy it whole"),
            (format!("{token}{token}"), "the enrolment token is too long: 94 characters instead of 47"),
            (format!("rip_0123456789abcdef_{secret}"), "this is an API key; an enrolment token begins with rit_"),
            (secret, "an enrolment token begins with rit_; this is something else"),
            (
                format!("{token}\n"),
                "the enrolment token holds a blank or a line break; copy one token, and nothing else",
            ),
            (String::new(), "the enrolment token is empty"),
        ] {
            assert_eq!(form_fault(&text).as_deref(), Some(told), "{text:?}");
        }
    }
}
