//! Ed25519 keys (RFC 8032): the seed that an owner keeps and signs with, and the public key that
//! others verify with. Public keys that verify nothing, or anything, do not become a
//! [`VerifyingKey`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::edwards::CompressedEdwardsY;
use hkdf::Hkdf;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use sha2::{Digest as _, Sha256};

/// What stands before the seed in the DER form of a private key (RFC 8410, section 7): the lengths,
/// version 1, and the algorithm's identifier.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in base64url, no point on the curve, or a point of small order.
    #[error("not an Ed25519 public key (32 bytes in base64url)")]
    Public,
    /// No key pair follows from the seed.
    #[error("no Ed25519 key pair can be derived from the seed")]
    Seed,
}

/// A private key.
#[derive(Clone)]
pub struct SigningKey {
    seed: [u8; 32],
    private: EncodingKey,
    public: VerifyingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("seed", &"[redacted]").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// The key pair of a seed: 32 random bytes.
    ///
    /// # Errors
    /// [`KeyError::Seed`], if the library fails, for example without memory.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let private = EncodingKey::from_ed_der(&[PKCS8_PREFIX.as_slice(), seed].concat());
        let jwk = Jwk::from_encoding_key(&private, Algorithm::EdDSA).map_err(|_| KeyError::Seed)?;
        let AlgorithmParameters::OctetKeyPair(public) = jwk.algorithm else { return Err(KeyError::Seed) };
        Ok(Self { seed: *seed, private, public: VerifyingKey::parse(&public.x)? })
    }

    /// The key that follows from this one for another purpose (HKDF-SHA256, RFC 5869). Equal
    /// purposes make equal keys, and a derived key reveals neither this one nor the others.
    ///
    /// # Errors
    /// [`KeyError::Seed`], if the library fails.
    pub fn derive(&self, purpose: &str) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        Hkdf::<Sha256>::new(None, &self.seed).expand(purpose.as_bytes(), &mut seed).map_err(|_| KeyError::Seed)?;
        Self::from_seed(&seed)
    }

    /// The seed, for its owner to store.
    pub const fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public key.
    pub const fn verifying_key(&self) -> VerifyingKey {
        self.public
    }

    pub(crate) const fn private(&self) -> &EncodingKey {
        &self.private
    }
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Parses the text form of a public key: 32 raw bytes in base64url without padding.
    ///
    /// # Errors
    /// [`KeyError::Public`] if the text is not 32 bytes that are a point on the curve, or the point
    /// has a small order: then one signature is right for many messages.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| KeyError::Public)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Public)?;
        match CompressedEdwardsY(bytes).decompress() {
            Some(point) if !point.is_small_order() => Ok(Self(bytes)),
            _ => Err(KeyError::Public),
        }
    }

    /// The text form, as [`Self::parse`] reads it.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The SHA-256 of its bytes: what names the key where a text can be copied, but not changed.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// An id for it: a prefix of its fingerprint, which needs no registry.
    pub fn kid(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.fingerprint()[..9])
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn public(&self) -> DecodingKey {
        DecodingKey::from_ed_der(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;

    use super::*;

    /// RFC 8037, appendix A.1 and A.2.
    #[test]
    fn the_key_pair_of_rfc_8037_is_derived_from_its_seed() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap().try_into().unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        let public = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(key.verifying_key().text(), public);
        assert_eq!(VerifyingKey::parse(public), Ok(key.verifying_key()));
        assert_eq!(VerifyingKey::parse(&format!("{public}=")), Ok(key.verifying_key()), "padding is allowed");
        assert!(format!("{key:?}").contains("[redacted]"), "a log must not show it: {key:?}");
        let derived = key.derive("one purpose").unwrap().verifying_key();
        assert_eq!(derived, key.derive("one purpose").unwrap().verifying_key());
        assert_ne!(derived, key.derive("another purpose").unwrap().verifying_key());
        assert_ne!(derived, key.verifying_key());
    }

    #[test]
    fn keys_that_verify_nothing_or_anything_are_refused() {
        let weak = EIGHT_TORSION.map(|point| point.compress().0);
        // Another encoding of the point (0, 1): 2^255 - 18 is 1 modulo the field's prime.
        let mut another = [0xff; 32];
        (another[0], another[31]) = (0xee, 0x7f);
        // No x belongs to this y.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        for bytes in weak.into_iter().chain([another, off_curve]) {
            assert_eq!(VerifyingKey::parse(&URL_SAFE_NO_PAD.encode(bytes)), Err(KeyError::Public), "{bytes:?}");
        }
        for text in ["", "AAAA", "not base64url!", &URL_SAFE_NO_PAD.encode([7; 33])] {
            assert_eq!(VerifyingKey::parse(text), Err(KeyError::Public), "{text}");
        }
    }
}
