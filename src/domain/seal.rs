//! Seals of rows that grant power: a keyed hash over what such a row grants, and for each set of rows the
//! number of its members and a digest of their seals. The key is not in the database, so a change that the
//! manager did not make can be told, also a row that is missing or that is an earlier form of itself
//! (`docs/decisions/0034-seals-on-rows-that-grant-power.md`).

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::ledger_key::{LedgerKey, LedgerKeyError};

/// Length of a seal, in bytes.
pub const SEAL_BYTES: usize = 32;
/// The purpose under which the state of the sets is encrypted.
const STATE: &str = "seals";

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedValue {
    /// NULL.
    Null,
    /// A number, a time in milliseconds, or a boolean as 0 or 1.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl SealedValue {
    /// Appends it so that no two lists of values have the same bytes.
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Null => (0, &[]),
            Self::Int(number) => {
                out.push(1);
                return out.extend(number.to_be_bytes());
            }
            Self::Text(text) => (2, text.as_bytes()),
            Self::Bytes(bytes) => (3, bytes),
        };
        out.push(kind);
        out.extend(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend(bytes);
    }
}

/// The keys of the seals.
pub struct SealKey {
    row: hmac::Key,
    member: hmac::Key,
    state: LedgerKey,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealKey")
    }
}

impl SealKey {
    /// The keys that follow from the ledger key.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn new(key: &LedgerKey) -> Result<Self, LedgerKeyError> {
        let derived = |purpose| key.derive(purpose).map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Ok(Self { row: derived("seal of a row")?, member: derived("seal in a set")?, state: key.clone() })
    }

    /// The seal of a row of `set` with these values.
    pub fn seal(&self, set: &str, values: &[SealedValue]) -> Vec<u8> {
        let mut message = Vec::with_capacity(256);
        SealedValue::Text(set.to_owned()).encode(&mut message);
        for value in values {
            value.encode(&mut message);
        }
        hmac::sign(&self.row, &message).as_ref().to_vec()
    }

    /// Whether `seal` is the one of such a row, compared in constant time.
    pub fn is_seal(&self, set: &str, values: &[SealedValue], seal: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.seal(set, values), seal).is_ok()
    }

    /// What a row with this seal adds to the digest of its set. It is secret: who knew those of several rows
    /// could find other rows with the same digest.
    fn member(&self, seal: &[u8]) -> [u8; SEAL_BYTES] {
        let mut member = [0; SEAL_BYTES];
        member.copy_from_slice(hmac::sign(&self.member, seal).as_ref());
        member
    }

    /// Encrypts the state of the sets.
    ///
    /// # Errors
    /// Without randomness, or if the library refuses.
    pub fn close(&self, state: &SealState) -> Result<Vec<u8>, LedgerKeyError> {
        let text = serde_json::to_vec(state).map_err(|_| LedgerKeyError::Library)?;
        self.state.seal(STATE, &text)
    }

    /// Decrypts it.
    ///
    /// # Errors
    /// If it was not encrypted with this key.
    pub fn open(&self, sealed: &[u8]) -> Result<SealState, LedgerKeyError> {
        serde_json::from_slice(&self.state.open(STATE, sealed)?).map_err(|_| LedgerKeyError::Foreign)
    }
}

/// A set of rows as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDigest {
    /// Number of its rows.
    pub count: i64,
    digest: [u8; SEAL_BYTES],
}

impl SetDigest {
    fn toggle(&mut self, key: &SealKey, seal: &[u8]) {
        for (byte, other) in self.digest.iter_mut().zip(key.member(seal)) {
            *byte ^= other;
        }
    }

    /// Adds the row with this seal.
    pub fn add(&mut self, key: &SealKey, seal: &[u8]) {
        self.count += 1;
        self.toggle(key, seal);
    }

    /// Takes out the row with this seal.
    pub fn remove(&mut self, key: &SealKey, seal: &[u8]) {
        self.count -= 1;
        self.toggle(key, seal);
    }
}

/// The state of all sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealState {
    /// Counts the changes: an earlier state is recognised as such.
    pub version: i64,
    /// The last entry of the audit log in the transaction of the last change: a state that was put back does
    /// not fit the log.
    pub seq: i64,
    /// By the name of the set.
    pub sets: BTreeMap<String, SetDigest>,
}

/// What is wrong with the row of a set, or with the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// The row was changed or inserted by another program.
    Foreign,
    /// A row is missing, or is an earlier form of itself.
    Incomplete,
    /// The record of all sets is missing, or is an earlier one.
    Stateless,
}

impl Breach {
    /// What happened, with the name of the set and of the row.
    pub fn describe(self, set: &str, row: &str) -> String {
        match self {
            Self::Foreign => format!("{set} {row} was inserted or changed by another program"),
            Self::Incomplete => format!("{set}: a row was removed or put back to an earlier form by another program"),
            Self::Stateless => "the record of the seals was removed or put back to an earlier form".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SealKey {
        SealKey::new(&LedgerKey::new([7; 32])).unwrap()
    }

    fn text(text: &str) -> SealedValue {
        SealedValue::Text(text.to_owned())
    }

    #[test]
    fn a_seal_is_of_its_set_and_values_alone() {
        let key = key();
        let seal = key.seal("api_keys", &[text("a"), text("admin"), SealedValue::Null]);
        assert!(key.is_seal("api_keys", &[text("a"), text("admin"), SealedValue::Null], &seal));
        let others: [(&str, &[SealedValue]); 5] = [
            ("users", &[text("a"), text("admin"), SealedValue::Null]),
            ("api_keys", &[text("aa"), text("dmin"), SealedValue::Null]),
            ("api_keys", &[text("a"), text("admin"), text("")]),
            ("api_keys", &[text("a"), text("admin"), SealedValue::Bytes(Vec::new())]),
            ("api_keys", &[text("a"), text("admin")]),
        ];
        for (set, values) in others {
            assert!(!key.is_seal(set, values, &seal), "{set} {values:?}");
        }
        let other = SealKey::new(&LedgerKey::new([8; 32])).unwrap();
        assert!(!other.is_seal("api_keys", &[text("a"), text("admin"), SealedValue::Null], &seal));
        assert_eq!(format!("{key:?}"), "SealKey");
    }

    #[test]
    fn the_state_is_opened_by_its_key_only_and_shows_no_digest() {
        let mut state = SealState { version: 3, ..SealState::default() };
        state.sets.entry("users".into()).or_default().add(&key(), &[1; 32]);
        let closed = key().close(&state).unwrap();
        assert_eq!(key().open(&closed).unwrap(), state);
        assert!(SealKey::new(&LedgerKey::new([8; 32])).unwrap().open(&closed).is_err());
        let digest = state.sets["users"].digest;
        assert!(!closed.windows(8).any(|window| window == &digest[..8]));
    }

    fn value() -> impl Strategy<Value = SealedValue> {
        prop_oneof![
            Just(SealedValue::Null),
            any::<i64>().prop_map(SealedValue::Int),
            ".{0,8}".prop_map(SealedValue::Text),
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(SealedValue::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn different_values_have_different_bytes(
            one in proptest::collection::vec(value(), 0..4),
            other in proptest::collection::vec(value(), 0..4),
        ) {
            let bytes = |values: &[SealedValue]| {
                let mut out = Vec::new();
                for value in values {
                    value.encode(&mut out);
                }
                out
            };
            prop_assert_eq!(bytes(&one) == bytes(&other), one == other);
        }

        #[test]
        fn a_set_is_the_same_in_whatever_order_rows_come_and_go(seals in proptest::collection::btree_set(any::<[u8; 4]>(), 1..8), at in any::<proptest::sample::Index>()) {
            let (key, seals) = (key(), seals.into_iter().collect::<Vec<_>>());
            let (mut forth, mut back) = (SetDigest::default(), SetDigest::default());
            for seal in &seals {
                forth.add(&key, seal);
            }
            for seal in seals.iter().rev() {
                back.add(&key, seal);
            }
            prop_assert_eq!(forth, back);
            let gone = at.get(&seals);
            forth.remove(&key, gone);
            prop_assert_ne!(forth, back);
            forth.add(&key, gone);
            prop_assert_eq!(forth, back);
        }
    }
}
