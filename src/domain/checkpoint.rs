//! Checkpoints of the audit log: a signed statement of where its hash chain stood at a time. A copy
//! elsewhere shows that the log was cut off or rewritten since, which the log alone cannot show
//! (`docs/decisions/0030-checkpoints-are-signed-with-the-signing-key.md`).

use std::collections::HashSet;
use std::fmt;

use riposte_protocol::MANAGER;
use riposte_protocol::jws::{self, JwsError, Unverified};
use riposte_protocol::key::{SigningKey, VerifyingKey};
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The `typ` of a checkpoint, so that no command can pass for one.
pub const TYP: &str = "riposte-checkpoint+jwt";

/// A SHA-256: of an entry of the audit log with all before it, or of a checkpoint. Hexadecimal in texts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// The hash of a text, such as a checkpoint.
    pub fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for ChainHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}

/// Where a log begins whose older entries were removed by retention: what the manager says of it in each
/// checkpoint from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBeginning {
    /// The last entry that may be missing, with all before it. There was a checkpoint of it.
    pub seq: i64,
    /// The hash of that entry, and so of all before it.
    pub hash: ChainHash,
    /// When the manager moved the beginning there, in seconds since the epoch.
    pub at: i64,
}

impl LogBeginning {
    /// When the manager moved the beginning there.
    pub const fn moved_at(&self) -> Timestamp {
        Timestamp::from_millis(self.at.saturating_mul(1000))
    }
}

/// The claims of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Always [`MANAGER`].
    pub iss: String,
    /// Which ledger: the hash of the first entry of its log.
    pub ledger: ChainHash,
    /// The last entry that it covers.
    pub seq: i64,
    /// The hash of that entry, and so of all before it.
    pub hash: ChainHash,
    /// The entry after which `root` begins: the last one of the checkpoint before.
    #[serde(default)]
    pub from: i64,
    /// The Merkle tree hash over the entries from there to `seq` (`domain/merkle.rs`): so one entry can be
    /// proven without the others. Absent if they do not fit the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<ChainHash>,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
    /// The hash of the checkpoint before it: so one of a new signing key vouches for those of the old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<ChainHash>,
    /// Where the log begins; absent if no entry was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<LogBeginning>,
}

impl Checkpoint {
    /// Signs it.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] if the library cannot sign.
    pub fn sign(&self, key: &SigningKey) -> Result<String, JwsError> {
        jws::sign(key, TYP, &key.verifying_key().kid(), self)
    }

    /// The claims of a token, without a look at its signature.
    pub fn peek(token: &str) -> Option<Self> {
        Unverified::parse(token, TYP, false).ok()?.peek().ok()
    }

    /// Verifies a token that one of `keys` itself has signed; no other checkpoint vouches for it.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn open(token: &str, keys: &CheckpointKeys) -> Result<Self, CheckpointError> {
        CheckpointOpener::new(keys).open(token)
    }

    /// Whether its numbers can be true.
    fn is_possible(&self) -> bool {
        let begins = self.begins.as_ref().map_or(0, |begins| begins.seq);
        (0..self.seq).contains(&self.from) && (0..=self.from).contains(&begins)
    }

    /// When it was issued.
    pub const fn issued_at(&self) -> Timestamp {
        Timestamp::from_millis(self.iat.saturating_mul(1000))
    }
}

/// The public keys under whose signatures checkpoints count.
#[derive(Clone, Debug, Default)]
pub struct CheckpointKeys(Vec<VerifyingKey>);

impl CheckpointKeys {
    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// The keys.
    pub fn all(&self) -> &[VerifyingKey] {
        &self.0
    }

    fn find(&self, kid: &str) -> Option<&VerifyingKey> {
        self.0.iter().find(|key| key.kid() == kid)
    }
}

/// Why a text is not a checkpoint that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a checkpoint at all.
    #[error("is not a checkpoint: it was changed or cut short")]
    Malformed,
    /// The signature is not the key's.
    #[error("is forged or was changed: the signature is not that of the key {0}")]
    Signature(String),
    /// The key is unknown, and no later checkpoint vouches for it.
    #[error(
        "is signed with the key {0}, which is not this manager's: it is of another manager, or of before the signing key was \
         replaced; then name the public key of that time with --public-key"
    )]
    UnknownKey(String),
}

/// Opens checkpoints, newest first. One counts if a known key has signed it, or if a later one that
/// counts names its hash.
#[derive(Debug)]
pub struct CheckpointOpener<'k> {
    keys: &'k CheckpointKeys,
    vouched: HashSet<ChainHash>,
}

impl<'k> CheckpointOpener<'k> {
    /// An opener that knows these keys.
    pub fn new(keys: &'k CheckpointKeys) -> Self {
        Self { keys, vouched: HashSet::new() }
    }

    /// Opens the next older checkpoint.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn open(&mut self, token: &str) -> Result<Checkpoint, CheckpointError> {
        let unverified = Unverified::parse(token, TYP, false).map_err(|_| CheckpointError::Malformed)?;
        let kid = unverified.header.kid.clone().unwrap_or_default();
        let is_vouched = self.vouched.remove(&ChainHash::of_text(token));
        let opened = match self.keys.find(&kid) {
            Some(key) => unverified.verify(key),
            None if is_vouched => unverified.peek(),
            None => return Err(CheckpointError::UnknownKey(kid)),
        };
        let checkpoint: Checkpoint = opened.map_err(|error| match error {
            JwsError::Signature => CheckpointError::Signature(kid),
            _ => CheckpointError::Malformed,
        })?;
        if checkpoint.iss != MANAGER || !checkpoint.is_possible() {
            return Err(CheckpointError::Malformed);
        }
        self.vouched.extend(checkpoint.prev);
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn checkpoint(seq: i64, prev: Option<&str>) -> Checkpoint {
        Checkpoint {
            iss: MANAGER.into(),
            ledger: ChainHash([1; 32]),
            seq,
            hash: ChainHash([2; 32]),
            from: 0,
            root: Some(ChainHash([3; 32])),
            iat: 1_795_514_400,
            prev: prev.map(ChainHash::of_text),
            begins: None,
        }
    }

    #[test]
    fn the_claims_are_the_documented_ones() {
        let text = serde_json::to_string(&checkpoint(7, None)).unwrap();
        let (one, two, three) = ("01".repeat(32), "02".repeat(32), "03".repeat(32));
        let expected = format!(
            r#"{{"iss":"riposte","ledger":"{one}","seq":7,"hash":"{two}","from":0,"root":"{three}","iat":1795514400}}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), checkpoint(7, None));
        assert_eq!(ChainHash::parse(&"0g".repeat(32)), None);
        assert_eq!(ChainHash::parse("01"), None);
    }

    #[test]
    fn a_checkpoint_counts_by_its_key_or_by_a_later_one_that_names_it() {
        let old = checkpoint(1, None).sign(&key(1)).unwrap();
        let new = checkpoint(2, Some(&old)).sign(&key(2)).unwrap();
        let keys = CheckpointKeys::new([key(2).verifying_key()]);
        let mut opener = CheckpointOpener::new(&keys);
        let unknown = CheckpointError::UnknownKey(key(1).verifying_key().kid());
        assert_eq!(opener.open(&old), Err(unknown.clone()));
        assert_eq!(opener.open(&new).map(|opened| opened.seq), Ok(2));
        assert_eq!(opener.open(&old).map(|opened| opened.seq), Ok(1), "the new one vouches for it");
        let other = checkpoint(1, None).sign(&key(3)).unwrap();
        assert!(matches!(opener.open(&other), Err(CheckpointError::UnknownKey(_))));

        // With the id of the right key, and the signature of another one.
        let forged = jws::sign(&key(3), TYP, &key(2).verifying_key().kid(), &checkpoint(3, None)).unwrap();
        assert!(matches!(opener.open(&forged), Err(CheckpointError::Signature(_))));
        let order = jws::sign(&key(2), "riposte-command+jwt", "k", &checkpoint(3, None)).unwrap();
        assert_eq!(opener.open(&order), Err(CheckpointError::Malformed), "another kind of token");
        // A log cannot begin after what the checkpoint covers.
        let begins = |seq| Some(LogBeginning { seq, hash: ChainHash([4; 32]), at: 1 });
        let late = Checkpoint { from: 1, begins: begins(2), ..checkpoint(3, None) }.sign(&key(2)).unwrap();
        assert_eq!(opener.open(&late), Err(CheckpointError::Malformed));
        let early = Checkpoint { from: 1, begins: begins(1), ..checkpoint(3, None) }.sign(&key(2)).unwrap();
        assert_eq!(Checkpoint::open(&early, &keys).map(|opened| opened.begins), Ok(begins(1)));
        let stranger = Checkpoint { iss: "x".into(), ..checkpoint(3, None) }.sign(&key(2)).unwrap();
        assert_eq!(opener.open(&stranger), Err(CheckpointError::Malformed));
    }
}
