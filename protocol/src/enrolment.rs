//! The enrolment token as one text: `rit_SECRET`, and after dots what the manager is known by, so
//! that the first contact is with the right one: `.KEY` is the SHA-256 of its signing key's public
//! half, `.CA` that of its certificate's authority, both in base64url. Only `rit_SECRET` is sent to
//! the manager.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An enrolment token and what it says of the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolmentToken<'a> {
    /// The part that the manager checks.
    pub token: &'a str,
    /// [Fingerprint](crate::key::VerifyingKey::fingerprint) of the manager's signing key. Its id would
    /// not do: an impostor can give its own key the same id.
    pub signing_key: Option<[u8; 32]>,
    /// SHA-256 of the certificate (DER) of the manager's authority.
    pub authority: Option<[u8; 32]>,
}

/// A part after a dot is not of its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentTokenError {
    /// More than two dots.
    #[error("the enrolment token has a part too much; copy one token, and nothing else")]
    Parts,
    /// A part after a dot is not a SHA-256.
    #[error("a part of the enrolment token after a dot is not whole; copy the token again")]
    Pin,
}

impl<'a> EnrolmentToken<'a> {
    /// Splits the text at its dots. Whether the first part can be a token is not checked.
    ///
    /// # Errors
    /// [`EnrolmentTokenError`].
    pub fn parse(text: &'a str) -> Result<Self, EnrolmentTokenError> {
        let mut parts = text.split('.');
        let token = parts.next().unwrap_or_default();
        let mut pin = || {
            let digest = |part: &str| URL_SAFE_NO_PAD.decode(part).ok()?.try_into().ok();
            parts.next().map(|part| digest(part).ok_or(EnrolmentTokenError::Pin)).transpose()
        };
        let (signing_key, authority) = (pin()?, pin()?);
        if parts.next().is_some() {
            return Err(EnrolmentTokenError::Parts);
        }
        Ok(Self { token, signing_key, authority })
    }
}

impl std::fmt::Display for EnrolmentToken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.token)?;
        // An authority is never alone: it is the second part.
        for pin in [self.signing_key, self.signing_key.and(self.authority)].into_iter().flatten() {
            write!(f, ".{}", URL_SAFE_NO_PAD.encode(pin))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: EnrolmentToken<'_> =
        EnrolmentToken { token: "rit_abc", signing_key: Some([1; 32]), authority: Some([7; 32]) };

    #[test]
    fn a_token_with_and_without_pins_is_read_as_it_was_written() {
        let signed = EnrolmentToken { authority: None, ..WHOLE };
        for token in [EnrolmentToken { signing_key: None, ..signed }, signed, WHOLE] {
            let text = token.to_string();
            assert_eq!(EnrolmentToken::parse(&text), Ok(token), "{text}");
        }
    }

    #[test]
    fn a_damaged_pin_is_not_a_missing_one() {
        let whole = WHOLE.to_string();
        for text in [&whole[..whole.len() - 1], &whole[..20], "rit_abc.", "rit_abc..x", "rit_abc.XHQE-3ES1sXq"] {
            assert_eq!(EnrolmentToken::parse(text), Err(EnrolmentTokenError::Pin), "{text}");
        }
        assert_eq!(EnrolmentToken::parse(&format!("{whole}.x")), Err(EnrolmentTokenError::Parts));
    }
}
