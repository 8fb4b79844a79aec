//! Secrets that a passphrase seals: argon2id (RFC 9106) makes a key of the passphrase, and
//! AES-256-GCM encrypts with it. The file is JSON; what stands in it in clear is authenticated too.
//! It does no I/O, and its parameters are bounded before memory is taken for them
//! (`docs/decisions/0026-keys-are-sealed-with-argon2id-and-aes.md`).

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::passphrase::Passphrase;

/// Version of the format.
const VERSION: u32 = 1;
/// Memory, passes and lanes of a new file: the second choice of RFC 9106, about 0.2 s.
const COSTS: Costs = Costs { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
/// Bounds of what a file may ask for, so that a changed one takes neither all memory nor an hour.
const MAX_COSTS: Costs = Costs { memory_kib: 1024 * 1024, passes: 16, lanes: 16 };
/// Largest file that is parsed, in bytes.
pub(super) const MAX_BYTES: u64 = 1024 * 1024;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    /// The file is none of ours, or a newer one.
    #[error("it is not a sealed file of this version: {0}")]
    Form(String),
    /// A cost is out of bounds.
    #[error(
        "argon2id.{field} is {given}, and must be from 1 to {max} (memory from 8 KiB for each lane): the file was changed"
    )]
    Costs {
        /// Field of the file.
        field: &'static str,
        /// Its value.
        given: u32,
        /// Its largest value.
        max: u32,
    },
    /// Another passphrase, or a changed file.
    #[error("the passphrase is not the one that it was encrypted with, or the file was changed")]
    Passphrase,
    /// No memory or randomness.
    #[error("the system failed: {0}")]
    System(String),
}

/// Costs of argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Costs {
    fn check(self) -> Result<Params, SealError> {
        for (field, given, max) in [
            ("memory_kib", self.memory_kib, MAX_COSTS.memory_kib),
            ("passes", self.passes, MAX_COSTS.passes),
            ("lanes", self.lanes, MAX_COSTS.lanes),
        ] {
            if given == 0 || given > max {
                return Err(SealError::Costs { field, given, max });
            }
        }
        let (given, max) = (self.memory_kib, MAX_COSTS.memory_kib);
        Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_BYTES)).map_err(|_| SealError::Costs {
            field: "memory_kib",
            given,
            max,
        })
    }
}

/// What stands in clear before the ciphertext; the order of the fields is part of the format.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    riposte_sealed: u32,
    /// What is sealed, so that one file cannot stand in another's place.
    holds: String,
    /// Public keys of the sealed ones: believed for sure only once the file was opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    public_keys: Vec<String>,
    argon2id: Costs,
    salt: String,
    nonce: String,
}

/// A sealed secret, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sealed {
    #[serde(flatten)]
    head: Head,
    aes_256_gcm: String,
}

impl Sealed {
    /// Seals `secret`. `holds` says what it is; `public_keys` stand in clear.
    ///
    /// # Errors
    /// Without randomness or memory.
    pub(super) fn seal(
        secret: &[u8],
        holds: &str,
        public_keys: Vec<String>,
        passphrase: &Passphrase,
    ) -> Result<Self, SealError> {
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_LEN]);
        for random in [salt.as_mut_slice(), nonce.as_mut_slice()] {
            getrandom::fill(random).map_err(|error| SealError::System(error.to_string()))?;
        }
        let head = Head {
            riposte_sealed: VERSION,
            holds: holds.to_owned(),
            public_keys,
            argon2id: COSTS,
            salt: URL_SAFE_NO_PAD.encode(salt),
            nonce: URL_SAFE_NO_PAD.encode(nonce),
        };
        let (key, associated) = (key(passphrase, &salt, COSTS)?, head.associated()?);
        let mut text = secret.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), &mut text)
            .map_err(|_| SealError::System("AES-256-GCM cannot encrypt".into()))?;
        Ok(Self { head, aes_256_gcm: URL_SAFE_NO_PAD.encode(text) })
    }

    /// Parses a file. Returns `None` if it is no JSON object, as a plain key file is none.
    ///
    /// # Errors
    /// If it is an object and not a sealed file.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, SealError> {
        if !text.trim_start().starts_with('{') {
            return Ok(None);
        }
        let sealed: Self = serde_json::from_str(text).map_err(|error| SealError::Form(error.to_string()))?;
        if sealed.head.riposte_sealed != VERSION {
            return Err(SealError::Form(format!("riposte_sealed is {}", sealed.head.riposte_sealed)));
        }
        Ok(Some(sealed))
    }

    /// The public keys that stand in clear.
    pub(super) fn public_keys(&self) -> &[String] {
        &self.head.public_keys
    }

    /// Opens it.
    ///
    /// # Errors
    /// With another passphrase, or when the file holds something else or was changed.
    pub(super) fn open(&self, holds: &str, passphrase: &Passphrase) -> Result<Vec<u8>, SealError> {
        if self.head.holds != holds {
            return Err(SealError::Form(format!("it holds {:?} and not {holds:?}", self.head.holds)));
        }
        let decode = |field: &str, text: &str| {
            URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Form(format!("{field} is not base64url")))
        };
        let salt = decode("salt", &self.head.salt)?;
        let nonce = decode("nonce", &self.head.nonce)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce)
            .map_err(|_| SealError::Form(format!("nonce is not {NONCE_LEN} bytes")))?;
        if salt.len() != SALT_BYTES {
            return Err(SealError::Form(format!("salt is not {SALT_BYTES} bytes")));
        }
        let mut text = decode("aes_256_gcm", &self.aes_256_gcm)?;
        let (key, associated) = (key(passphrase, &salt, self.head.argon2id)?, self.head.associated()?);
        let opened = key.open_in_place(nonce, Aad::from(associated), &mut text);
        Ok(opened.map_err(|_| SealError::Passphrase)?.to_vec())
    }

    /// The text of the file.
    ///
    /// # Errors
    /// Never in practice: only if it could not be written as JSON.
    pub(super) fn text(&self) -> Result<String, SealError> {
        serde_json::to_string_pretty(self).map_err(|error| SealError::Form(error.to_string()))
    }
}

impl Head {
    fn associated(&self) -> Result<Vec<u8>, SealError> {
        serde_json::to_vec(self).map_err(|error| SealError::Form(error.to_string()))
    }
}

fn key(passphrase: &Passphrase, salt: &[u8], costs: Costs) -> Result<LessSafeKey, SealError> {
    let params = costs.check()?;
    let mut memory: Vec<Block> = Vec::new();
    let blocks = params.block_count();
    memory
        .try_reserve_exact(blocks)
        .map_err(|_| SealError::System(format!("no {} KiB of memory for argon2id", params.m_cost())))?;
    memory.resize(blocks, Block::default());
    let mut key = [0; KEY_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(passphrase.as_bytes(), salt, &mut key, &mut memory)
        .map_err(|error| SealError::System(format!("argon2id: {error}")))?;
    let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::System("AES-256-GCM has no key".into()))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::parse(text).unwrap()
    }

    fn sealed() -> Sealed {
        Sealed::seal(b"a secret", "a test", vec!["PUBLIC".into()], &passphrase("correct horse battery")).unwrap()
    }

    #[test]
    fn only_the_passphrase_opens_what_was_sealed() {
        let text = sealed().text().unwrap();
        assert!(!text.contains("a secret") && text.contains("PUBLIC"), "{text}");
        let read = Sealed::parse(&text).unwrap().unwrap();
        assert_eq!(read.open("a test", &passphrase("correct horse battery")).unwrap(), b"a secret");
        let wrong = read.open("a test", &passphrase("correct horse batterz"));
        assert!(matches!(wrong, Err(SealError::Passphrase)), "{wrong:?}");
        assert!(matches!(read.open("another", &passphrase("correct horse battery")), Err(SealError::Form(_))));
        assert_ne!(sealed().text().unwrap(), text, "each has a salt of its own");
    }

    #[test]
    fn what_stands_in_clear_is_authenticated() {
        let text = sealed().text().unwrap();
        for (part, other) in [("PUBLIC", "PUBLID"), ("\"passes\": 3", "\"passes\": 2")] {
            assert!(text.contains(part), "{text}");
            let changed = Sealed::parse(&text.replace(part, other)).unwrap().unwrap();
            let opened = changed.open("a test", &passphrase("correct horse battery"));
            assert!(matches!(opened, Err(SealError::Passphrase)), "{part}: {opened:?}");
        }
    }

    /// The bounds are checked before memory is taken: 4 TiB would end the test.
    #[test]
    fn a_file_that_asks_for_all_memory_is_refused() {
        let text = sealed().text().unwrap();
        for (part, other, field) in [
            ("\"memory_kib\": 65536", "\"memory_kib\": 4294967295", "memory_kib"),
            ("\"memory_kib\": 65536", "\"memory_kib\": 1048577", "memory_kib"),
            ("\"memory_kib\": 65536", "\"memory_kib\": 31", "memory_kib"),
            ("\"passes\": 3", "\"passes\": 17", "passes"),
            ("\"passes\": 3", "\"passes\": 0", "passes"),
            ("\"lanes\": 4", "\"lanes\": 17", "lanes"),
        ] {
            assert!(text.contains(part), "{text}");
            let changed = Sealed::parse(&text.replace(part, other)).unwrap().unwrap();
            let refused = changed.open("a test", &passphrase("correct horse battery")).unwrap_err().to_string();
            assert!(refused.contains(&format!("argon2id.{field}")), "{other}: {refused}");
        }
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        assert!(Sealed::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc").unwrap().is_none());
        let later = sealed().text().unwrap().replace("\"riposte_sealed\": 1", "\"riposte_sealed\": 2");
        assert!(Sealed::parse(&later).unwrap_err().to_string().contains("riposte_sealed is 2"));
        assert!(Sealed::parse("{}").is_err());
    }
}
