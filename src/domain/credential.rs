//! What tells API keys, refresh tokens and enrolment tokens apart, so that one pasted for the other is explained.

/// Prefix of every API key.
pub const KEY_PREFIX: &str = "rip_";
/// Prefix of every enrolment token.
pub const TOKEN_PREFIX: &str = "rit_";
/// Prefix of every refresh token.
pub const REFRESH_PREFIX: &str = "rir_";
/// Length of a secret: 32 bytes in base64url.
pub const SECRET_LENGTH: usize = 43;
