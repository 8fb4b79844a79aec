//! Refresh tokens, `rir_SESSION_SECRET`: what a session is continued with. Each is valid once, and
//! only its hash is stored.

use std::time::Duration;

use uuid::Uuid;

use super::credential::{REFRESH_PREFIX, SECRET_LENGTH};

/// How long a session may be unused.
pub const IDLE: Duration = Duration::from_hours(12);
/// How long a session lasts in all.
pub const LONGEST_SESSION: Duration = Duration::from_hours(7 * 24);
/// How long after its use a token may be used again by a command that ran at the same time. It gets
/// no new token; later the session ends, because a second client has it.
pub const PARALLEL: Duration = Duration::from_secs(10);

/// The text of a refresh token.
pub fn format_refresh(session: Uuid, secret: &str) -> String {
    format!("{REFRESH_PREFIX}{}_{secret}", session.simple())
}

/// The session and the secret of a refresh token, if `text` has its form.
pub fn parse_refresh(text: &str) -> Option<(Uuid, &str)> {
    let (session, secret) = text.strip_prefix(REFRESH_PREFIX)?.split_once('_')?;
    let session = (session.len() == 32).then(|| Uuid::try_parse(session).ok()).flatten()?;
    (secret.len() == SECRET_LENGTH).then_some((session, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_names_its_session() {
        let secret = "s".repeat(SECRET_LENGTH);
        let token = format_refresh(Uuid::from_u128(7), &secret);
        assert_eq!(parse_refresh(&token), Some((Uuid::from_u128(7), secret.as_str())));
        for text in ["", "rir_", &token[..token.len() - 1], &format!("{token}s"), &token.replace("rir_", "rip_")] {
            assert_eq!(parse_refresh(text), None, "{text}");
        }
    }
}
