//! The forms of secrets: API keys, enrolment tokens and refresh tokens. A text is at most one of them,
//! and one that is refused is refused with a reason that does not repeat it.

use riposte::domain::{api_key, enrolment_token, refresh_token};
use riposte_protocol::enrolment::EnrolmentToken;

use crate::input::text;

pub(crate) fn check(input: &[u8]) {
    let text = text(input);
    let (key, token) = (api_key::form_fault(&text), enrolment_token::form_fault(&text));
    let refresh = refresh_token::parse_refresh(&text);
    let accepted = [key.is_none(), token.is_none(), refresh.is_some()];
    assert!(accepted.into_iter().filter(|accepted| *accepted).count() <= 1, "{text:?} is two secrets at once");
    for fault in [key, token].into_iter().flatten() {
        assert!(!fault.is_empty() && fault.len() < 200, "{fault}");
        // A text of that length in a reason would be the secret in a log.
        let secret = text.get(4..).filter(|secret| secret.len() > 12);
        assert!(secret.is_none_or(|secret| !fault.contains(secret)), "{fault}");
    }
    if let Some((session, secret)) = refresh {
        let written = refresh_token::format_refresh(session, secret);
        assert_eq!(refresh_token::parse_refresh(&written), Some((session, secret)));
        assert!(written.eq_ignore_ascii_case(&text), "{text:?}");
    }
    if let Ok(parsed) = EnrolmentToken::parse(&text) {
        assert_eq!(parsed.to_string(), text, "two notations of one token");
        assert!(parsed.authority.is_none() || parsed.signing_key.is_some());
        assert!(!parsed.token.contains('.'));
    }
}
