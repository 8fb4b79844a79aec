//! A client certificate in the place of a key's secret.
//!
//! A fingerprint is no secret, so no text that a client can send may count as one: the stored hash is of
//! bytes that no text has.

use riposte_protocol::time::Timestamp;
use sha2::{Digest as _, Sha256};

/// Begins what is hashed: a byte that UTF-8 never has, and secrets are text.
const NO_TEXT: u8 = 0xff;

/// What identifies a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// What is stored in the place of a secret's hash.
    pub fn credential_hash(self) -> Vec<u8> {
        Sha256::new().chain_update([NO_TEXT]).chain_update(self.0).finalize().to_vec()
    }
}

/// In hexadecimal.
impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// What identifies it.
    pub fingerprint: Fingerprint,
    /// Its end.
    pub not_after: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_has_the_hash_of_a_certificate() {
        let fingerprint = Fingerprint::of(b"certificate");
        let text = fingerprint.to_string();
        assert_eq!((text.len(), text.to_lowercase()), (64, text.clone()));
        let hash = fingerprint.credential_hash();
        for secret in [text.as_bytes(), &fingerprint.0] {
            assert_ne!(hash, Sha256::digest(secret).to_vec());
        }
        let hashed: Vec<u8> = [&[NO_TEXT], &fingerprint.0[..]].concat();
        assert_eq!(hash, Sha256::digest(&hashed).to_vec());
        assert!(std::str::from_utf8(&hashed).is_err());
    }
}
