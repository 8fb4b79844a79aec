//! The ledger key: what only the manager can make or read of what the database holds. It is a secret of
//! its own beside the signing keys, so that their rotation leaves it as it is, and it is never in the
//! database. A key for each purpose follows from it by HKDF-SHA256 (RFC 5869).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;

/// Length of the key, in bytes.
pub const LEDGER_KEY_BYTES: usize = 32;

/// Why something cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerKeyError {
    /// It was sealed with another key, for another purpose, or changed.
    #[error("it was sealed with another ledger key, or it was changed")]
    Foreign,
    /// The library refused.
    #[error("the cryptographic library failed")]
    Library,
}

/// The key. It has no `Debug` of its content.
#[derive(Clone)]
pub struct LedgerKey {
    root: hkdf::Prk,
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LedgerKey")
    }
}

impl LedgerKey {
    /// The key of these bytes.
    pub fn new(bytes: [u8; LEDGER_KEY_BYTES]) -> Self {
        Self { root: hkdf::Salt::new(hkdf::HKDF_SHA256, b"riposte ledger key").extract(&bytes) }
    }

    /// The secret of `purpose`.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn derive(&self, purpose: &str) -> Result<[u8; LEDGER_KEY_BYTES], LedgerKeyError> {
        let info = [purpose.as_bytes()];
        let mut key = [0; LEDGER_KEY_BYTES];
        let okm = self.root.expand(&info, hkdf::HKDF_SHA256).map_err(|_| LedgerKeyError::Library)?;
        okm.fill(&mut key).map_err(|_| LedgerKeyError::Library)?;
        Ok(key)
    }

    /// Encrypts `secret` for `purpose`, which is authenticated too: a sealed text opens nowhere else.
    ///
    /// # Errors
    /// Without randomness, or if the library refuses.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Result<Vec<u8>, LedgerKeyError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| LedgerKeyError::Library)?;
        let mut text = secret.to_vec();
        let sealed = self.aead(purpose)?.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purpose.as_bytes()),
            &mut text,
        );
        sealed.map_err(|_| LedgerKeyError::Library)?;
        Ok([nonce.as_slice(), &text].concat())
    }

    /// Decrypts what was sealed for `purpose`.
    ///
    /// # Errors
    /// If it was not, or not by this key.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, LedgerKeyError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(LedgerKeyError::Foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| LedgerKeyError::Foreign)?;
        let mut text = text.to_vec();
        let opened = self.aead(purpose)?.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut text);
        opened.map(|plain| plain.to_vec()).map_err(|_| LedgerKeyError::Foreign)
    }

    fn aead(&self, purpose: &str) -> Result<LessSafeKey, LedgerKeyError> {
        let key = UnboundKey::new(&AES_256_GCM, &self.derive(&format!("seal {purpose}"))?);
        key.map(LessSafeKey::new).map_err(|_| LedgerKeyError::Library)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_purpose_only() {
        let (key, other) = (LedgerKey::new([7; 32]), LedgerKey::new([8; 32]));
        let sealed = key.seal("secret chat", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(key.open("secret chat", &sealed).unwrap(), b"hunter2");
        assert_ne!(key.seal("secret chat", b"hunter2").unwrap(), sealed, "each has a nonce of its own");
        let mut changed = sealed.clone();
        changed[20] ^= 1;
        for (key, purpose, text) in [
            (&key, "secret mail", &sealed),
            (&other, "secret chat", &sealed),
            (&key, "secret chat", &changed),
            (&key, "secret chat", &vec![1, 2, 3]),
        ] {
            assert_eq!(key.open(purpose, text), Err(LedgerKeyError::Foreign));
        }
    }

    #[test]
    fn purposes_have_keys_of_their_own_and_nothing_shows_the_key() {
        let key = LedgerKey::new([7; 32]);
        assert_ne!(key.derive("a").unwrap(), key.derive("b").unwrap());
        assert_eq!(format!("{key:?}"), "LedgerKey");
        // A kept value: what was sealed before an upgrade opens after it.
        assert_eq!(key.derive("a").unwrap()[..4], [239, 239, 197, 176]);
    }
}
