//! The enrolment token as one text: `rit_SECRET`, and after dots what the manager is known by, so
//! that the first contact is with the right one: `.KID` is the id of its signing key, `.CA` the
//! SHA-256 of the authority of its certificate. Only `rit_SECRET` is sent to the manager.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An enrolment token and what it says of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolmentToken<'a> {
    /// The part that the manager checks.
    pub token: &'a str,
    /// Id of the manager's signing key.
    pub kid: Option<&'a str>,
    /// SHA-256 of the certificate (DER) of the manager's authority.
    pub authority: Option<[u8; 32]>,
}

/// A part after a dot is not of its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentTokenError {
    /// More than two dots, or nothing after one.
    #[error("the enrolment token has a part too much or an empty one; copy it whole")]
    Parts,
    /// The last part is not the SHA-256 of an authority.
    #[error("the last part of the enrolment token is not whole; copy the token again")]
    Authority,
}

impl<'a> EnrolmentToken<'a> {
    /// Splits the text at its dots. Whether the first part can be a token is not checked.
    ///
    /// # Errors
    /// [`EnrolmentTokenError`].
    pub fn parse(text: &'a str) -> Result<Self, EnrolmentTokenError> {
        let mut parts = text.split('.');
        let token = parts.next().unwrap_or_default();
        let (kid, authority) = (parts.next(), parts.next());
        if parts.next().is_some() || kid == Some("") {
            return Err(EnrolmentTokenError::Parts);
        }
        let digest = |part: &str| URL_SAFE_NO_PAD.decode(part).ok()?.try_into().ok();
        let authority = authority.map(|part| digest(part).ok_or(EnrolmentTokenError::Authority)).transpose()?;
        Ok(Self { token, kid, authority })
    }
}

impl std::fmt::Display for EnrolmentToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.token)?;
        let Some(kid) = self.kid else { return Ok(()) };
        write!(f, ".{kid}")?;
        match self.authority {
            Some(authority) => write!(f, ".{}", URL_SAFE_NO_PAD.encode(authority)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_and_without_pins_is_read_as_it_was_written() {
        let bare = EnrolmentToken { token: "rit_abc", kid: None, authority: None };
        let signed = EnrolmentToken { kid: Some("k1"), ..bare };
        for token in [bare, signed, EnrolmentToken { authority: Some([7; 32]), ..signed }] {
            let text = token.to_string();
            assert_eq!(EnrolmentToken::parse(&text), Ok(token), "{text}");
        }
    }

    #[test]
    fn a_damaged_pin_is_not_a_missing_one() {
        let whole = EnrolmentToken { token: "rit_abc", kid: Some("k1"), authority: Some([7; 32]) }.to_string();
        let short = &whole[..whole.len() - 1];
        for (text, error) in [
            (short, EnrolmentTokenError::Authority),
            ("rit_abc.k1.", EnrolmentTokenError::Authority),
            ("rit_abc.", EnrolmentTokenError::Parts),
            ("rit_abc..x", EnrolmentTokenError::Parts),
            ("rit_abc.a.b.c", EnrolmentTokenError::Parts),
        ] {
            assert_eq!(EnrolmentToken::parse(text), Err(error), "{text}");
        }
    }
}
