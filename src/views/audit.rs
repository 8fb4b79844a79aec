//! `/v1/audit`: who did what, and the proof that the log was not edited.

use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::columns::Millis;
use crate::domain::audit::EntryRef;
use crate::domain::checkpoint::{ChainHash, CheckpointKeys, LogBeginning};
use crate::domain::commitments::Commitments;
use crate::domain::forgotten::PSEUDONYM_PREFIX;

/// An entry of the audit log.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditRow {
    /// Position in the chain.
    pub seq: i64,
    /// Time of the change.
    pub at: Millis,
    /// Actor: `key:ID`, `agent:ID`, `policy:NAME`, or `riposte` itself.
    pub actor: String,
    /// Action, such as `created`.
    pub verb: String,
    /// Kind of the object.
    pub noun: String,
    /// Id of the object.
    pub noun_id: String,
    /// Reason or further detail; for changes of who or what has power, with the address of the request.
    pub detail: String,
    /// Hash over the previous entry's hash and this entry, in hexadecimal.
    #[serde(with = "hex")]
    #[schema(value_type = String)]
    pub hash: Vec<u8>,
    /// Of an entry that can name a person, in hexadecimal: its hash covers commitments to actor, id and detail. For each
    /// of them this is `01` and the salt, or `02` and the commitment, if the text was removed with the name of a person.
    #[serde(default, with = "hex_option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub commitments: Option<Vec<u8>>,
}

impl AuditRow {
    /// What its hash covers.
    pub fn entry(&self) -> EntryRef<'_> {
        let Self { at, actor, verb, noun, noun_id, detail, .. } = self;
        EntryRef { at: (*at).into(), actor, verb, noun, noun_id, detail, commitments: self.commitments() }
    }

    /// The pseudonyms that stand in the place of removed names; `None` if it has all its texts. None at all if something
    /// else stands where a text was removed.
    pub fn pseudonyms(&self) -> Option<Vec<&str>> {
        let [is_actor, is_noun_id, is_detail] = self.commitments()?.removed();
        if !is_actor && !is_noun_id && !is_detail {
            return None;
        }
        let actor = is_actor.then(|| self.actor.strip_prefix("user:").unwrap_or_default());
        let names: Vec<&str> = actor.into_iter().chain(is_noun_id.then_some(self.noun_id.as_str())).collect();
        let are_pseudonyms = names.iter().all(|name| name.starts_with(PSEUDONYM_PREFIX));
        let is_right = is_detail && self.detail.is_empty() && are_pseudonyms;
        Some(if is_right { names } else { Vec::new() })
    }

    /// What is stored about its texts. Bytes that are no such thing have no hash that fits.
    pub fn commitments(&self) -> Option<Commitments> {
        self.commitments.as_deref().and_then(Commitments::parse)
    }
}

/// What a check of the whole chain found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditProof {
    /// How many entries were checked.
    pub entries: i64,
    /// Whether every entry is as it was written, none missing.
    pub intact: bool,
    /// The first entry that is not, if any.
    pub broken_at: Option<i64>,
    /// How many of them lost texts because a person was forgotten; the log says so of each.
    #[serde(default)]
    pub forgotten: i64,
    /// How many stored checkpoints were compared with the log.
    #[serde(default)]
    pub checkpoints: i64,
    /// Where the log begins, if retention removed the entries before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<AuditBeginning>,
    /// Why the log is not intact, where a checkpoint says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The public keys under whose signatures checkpoints count.
    #[serde(default)]
    pub keys: Vec<CheckpointKey>,
}

impl AuditProof {
    /// The proof of a chain alone.
    pub const fn of(entries: i64, broken_at: Option<i64>) -> Self {
        Self {
            entries,
            intact: broken_at.is_none(),
            broken_at,
            forgotten: 0,
            checkpoints: 0,
            begins: None,
            why: None,
            keys: Vec::new(),
        }
    }
}

/// Where an audit log begins whose older entries were removed by retention, as the last checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditBeginning {
    /// The last entry that may be missing, with all before it.
    pub after: i64,
    /// The hash of that entry, in hexadecimal.
    #[schema(value_type = String)]
    pub hash: ChainHash,
    /// When the manager moved the beginning there.
    pub moved_at: Timestamp,
    /// Which ledger: the hash of the very first entry.
    #[schema(value_type = String)]
    pub ledger: ChainHash,
}

impl AuditBeginning {
    /// The beginning of this ledger's log.
    pub const fn of(begins: &LogBeginning, ledger: ChainHash) -> Self {
        Self { after: begins.seq, hash: begins.hash, moved_at: begins.moved_at(), ledger }
    }
}

/// A public key under whose signature a checkpoint counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckpointKey {
    /// Its id, as in the header of a checkpoint.
    pub kid: String,
    /// Ed25519, in base64url.
    pub public_key: String,
}

impl CheckpointKey {
    /// All of these keys.
    pub fn all(keys: &CheckpointKeys) -> Vec<Self> {
        keys.all().iter().map(|key| Self { kid: key.kid(), public_key: key.text() }).collect()
    }
}

/// Bytes as hexadecimal digits.
mod hex {
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let text = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        digits(&text).ok_or_else(|| D::Error::custom("not hexadecimal digits in pairs"))
    }

    pub(super) fn digits(text: &str) -> Option<Vec<u8>> {
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        pairs.collect()
    }

    fn digit(byte: u8) -> Option<u8> {
        char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
    }
}

/// Optional bytes as hexadecimal digits.
mod hex_option {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde gives the field as it is")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::hex::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let read = |text: String| super::hex::digits(&text).ok_or_else(|| D::Error::custom("not hexadecimal digits"));
        Option::<String>::deserialize(deserializer)?.map(read).transpose()
    }
}
