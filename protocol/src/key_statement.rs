//! A statement of the manager about its keys: which ones sign from now on. An agent believes it if a
//! key that it trusts already has signed it, so keys rotate without a new enrolment. Statements are
//! numbered, and each names the whole set: a lost one in between changes nothing, and an old one
//! is never believed again.

use serde::{Deserialize, Serialize};

use crate::MANAGER;
use crate::command::ManagerKey;
use crate::jws::{self, JwsError, Unverified};
use crate::key::{KeyError, SigningKey, VerifyingKey};

/// The `typ` of a signed statement, so that no order can pass for one.
pub const TYP: &str = "riposte-keys+jwt";
/// Limit of keys in a statement: two during a rotation.
pub const MAX_KEYS: usize = 8;
/// Limit of statements in one message; an agent that missed more gets the rest after its answer.
pub const MAX_STATEMENTS: usize = 32;
/// Longest key id, in bytes.
const MAX_KID_BYTES: usize = 64;

/// The claims of a statement. Unknown claims are ignored, so that a newer manager can add claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatement {
    /// Always [`MANAGER`].
    pub iss: String,
    /// Its number: strictly rising, from 1.
    pub number: u64,
    /// The keys that sign from now on; all others sign no longer.
    pub keys: Vec<ManagerKey>,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
    /// The recovery key, 32 raw bytes in base64url: it signs nothing but a revocation. An agent that
    /// has one keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// In a statement that the recovery key signed: the number of such statements so far. It revokes
    /// all keys of before, whatever `number` their statements had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<u64>,
}

/// What an agent trusts, and so which statements it believes.
#[derive(Clone, Copy, Debug)]
pub struct KeyTrust<'a> {
    /// The keys that sign orders.
    pub keys: &'a [(String, VerifyingKey)],
    /// Number of the last statement that was accepted; 0: none.
    pub number: u64,
    /// The recovery key, if one is known.
    pub recovery: Option<VerifyingKey>,
    /// How many revocations were accepted.
    pub revocations: u64,
}

/// Why an agent does not believe a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The token is not valid.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// It was not issued by a manager.
    #[error("the statement was not issued by a manager")]
    Issuer,
    /// A later one was accepted before.
    #[error("statement {0} is older than the one that was accepted last")]
    Replayed(u64),
    /// It names no key, too many, or two with one id.
    #[error("the statement does not name from 1 to {MAX_KEYS} keys with different ids")]
    Keys,
    /// A key is invalid.
    #[error("a key of the statement is {0}")]
    Key(#[from] KeyError),
}

impl StatementError {
    /// The word in the report to the manager ([`crate::message::RejectedOrders`]).
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Token(JwsError::Kind) => "kind",
            Self::Token(JwsError::UnknownKey) => "unknown_key",
            Self::Token(JwsError::Signature) => "signature",
            Self::Token(JwsError::Malformed) | Self::Keys | Self::Key(_) => "malformed",
            Self::Issuer => "issuer",
            Self::Replayed(_) => "replayed",
        }
    }
}

impl KeyStatement {
    /// Signs the statement.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] if the claims cannot be written as JSON.
    pub fn sign(&self, key: &SigningKey, kid: &str) -> Result<String, JwsError> {
        jws::sign(key, TYP, kid, self)
    }

    /// Verifies a signed statement: signed by a trusted key, issued by a manager, and not older than
    /// the one that was accepted last. A statement of the recovery key is compared with the last
    /// revocation instead: a thief of a signing key can give statements any number.
    ///
    /// # Errors
    /// The first reason not to believe it.
    pub fn open(token: &str, trust: &KeyTrust<'_>) -> Result<Self, StatementError> {
        let unverified = Unverified::parse(token, TYP, false)?;
        let kid = unverified.header.kid.as_deref().unwrap_or_default();
        let recovery = trust.recovery.as_ref().filter(|key| key.kid() == kid);
        let pinned = || trust.keys.iter().find(|(id, _)| id == kid).map(|(_, key)| key);
        let statement: Self = unverified.verify(recovery.or_else(pinned).ok_or(JwsError::UnknownKey)?)?;
        if statement.iss != MANAGER {
            return Err(StatementError::Issuer);
        }
        let replayed = Err(StatementError::Replayed(statement.number));
        match (recovery, statement.revocation) {
            (None, None) if statement.number < trust.number => return replayed,
            (Some(_), Some(revocation)) => {
                let is_known = revocation == trust.revocations && statement.number == trust.number;
                if revocation <= trust.revocations && !is_known {
                    return replayed;
                }
            }
            (None, None) => {}
            // Only the recovery key revokes, and it signs nothing else.
            (None, Some(_)) | (Some(_), None) => return Err(JwsError::Kind.into()),
        }
        if statement.number == 0 {
            return replayed;
        }
        statement.check_keys()?;
        Ok(statement)
    }

    fn check_keys(&self) -> Result<(), StatementError> {
        let is_id = |kid: &str| (1..=MAX_KID_BYTES).contains(&kid.len());
        let is_single = |(nth, key): (usize, &ManagerKey)| {
            is_id(&key.kid) && self.keys.iter().take(nth).all(|before| before.kid != key.kid)
        };
        if !(1..=MAX_KEYS).contains(&self.keys.len()) || !self.keys.iter().enumerate().all(is_single) {
            return Err(StatementError::Keys);
        }
        let recovery = self.recovery.iter().map(String::as_str);
        for key in self.keys.iter().map(|key| key.public_key.as_str()).chain(recovery) {
            VerifyingKey::parse(key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn key(seed: u8) -> ManagerKey {
        ManagerKey { kid: format!("k{seed}"), public_key: signer(seed).verifying_key().text() }
    }

    fn statement() -> KeyStatement {
        KeyStatement {
            iss: MANAGER.into(),
            number: 3,
            keys: vec![key(1), key(2)],
            iat: 1_795_514_400,
            recovery: None,
            revocation: None,
        }
    }

    #[test]
    fn the_claims_are_the_documented_ones() {
        insta::assert_json_snapshot!(statement(), @r#"
        {
          "iss": "riposte",
          "number": 3,
          "keys": [
            {
              "kid": "k1",
              "public_key": "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"
            },
            {
              "kid": "k2",
              "public_key": "gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q"
            }
          ],
          "iat": 1795514400
        }
        "#);
    }

    #[test]
    fn only_a_trusted_key_introduces_another_and_never_by_an_old_statement() {
        let trusted = [("k1".to_owned(), signer(1).verifying_key())];
        let open = |statement: &KeyStatement, seed: u8, kid: &str, accepted| {
            let trust = KeyTrust { keys: &trusted, number: accepted, recovery: None, revocations: 0 };
            KeyStatement::open(&statement.sign(&signer(seed), kid).unwrap(), &trust)
        };
        assert_eq!(open(&statement(), 1, "k1", 2), Ok(statement()));
        assert_eq!(open(&statement(), 1, "k1", 3), Ok(statement()), "a repeated one is known");
        assert_eq!(open(&statement(), 1, "k1", 4), Err(StatementError::Replayed(3)));
        assert_eq!(open(&statement(), 2, "k2", 2), Err(JwsError::UnknownKey.into()));
        assert_eq!(open(&statement(), 2, "k1", 2), Err(JwsError::Signature.into()));
        let change = |change: fn(&mut KeyStatement)| {
            let mut changed = statement();
            change(&mut changed);
            open(&changed, 1, "k1", 0)
        };
        assert_eq!(change(|s| s.iss = "stranger".into()), Err(StatementError::Issuer));
        assert_eq!(change(|s| s.number = 0), Err(StatementError::Replayed(0)));
        assert_eq!(change(|s| s.keys.clear()), Err(StatementError::Keys));
        assert_eq!(change(|s| s.keys[1].kid = "k1".into()), Err(StatementError::Keys));
        assert_eq!(change(|s| s.keys[1].kid.clear()), Err(StatementError::Keys));
        assert_eq!(change(|s| s.keys[0].public_key = "AAAA".into()), Err(StatementError::Key(KeyError::Public)));
        let many: Vec<ManagerKey> = (1..=9).map(key).collect();
        assert_eq!(
            open(&KeyStatement { keys: many[..8].to_vec(), ..statement() }, 1, "k1", 0).map(|s| s.keys.len()),
            Ok(8)
        );
        assert_eq!(open(&KeyStatement { keys: many, ..statement() }, 1, "k1", 0), Err(StatementError::Keys));
        // An order is no statement.
        let order = jws::sign(&signer(1), crate::command::TYP, "k1", &statement()).unwrap();
        let trust = KeyTrust { keys: &trusted, number: 0, recovery: None, revocations: 0 };
        assert_eq!(KeyStatement::open(&order, &trust), Err(JwsError::Kind.into()));
    }

    #[test]
    fn the_recovery_key_revokes_whatever_number_a_thief_has_used() {
        let trusted = [("k1".to_owned(), signer(1).verifying_key())];
        let recovery = signer(9).verifying_key();
        let trust = KeyTrust { keys: &trusted, number: u64::MAX, recovery: Some(recovery), revocations: 1 };
        let revokes = |revocation| KeyStatement { number: 5, keys: vec![key(3)], revocation, ..statement() };
        let open = |statement: &KeyStatement, seed: u8, kid: &str, trust: &KeyTrust<'_>| {
            KeyStatement::open(&statement.sign(&signer(seed), kid).unwrap(), trust)
        };
        let kid = recovery.kid();
        assert_eq!(open(&revokes(Some(2)), 9, &kid, &trust), Ok(revokes(Some(2))));
        assert_eq!(open(&revokes(Some(1)), 9, &kid, &trust), Err(StatementError::Replayed(5)));
        assert_eq!(open(&revokes(None), 9, &kid, &trust), Err(JwsError::Kind.into()), "it signs nothing else");
        assert_eq!(open(&revokes(Some(2)), 1, "k1", &trust), Err(JwsError::Kind.into()), "no other key revokes");
        assert_eq!(open(&revokes(Some(2)), 1, &kid, &trust), Err(JwsError::Signature.into()));
        let unknown = KeyTrust { recovery: None, ..trust };
        assert_eq!(open(&revokes(Some(2)), 9, &kid, &unknown), Err(JwsError::UnknownKey.into()));
        let known = KeyTrust { number: 5, revocations: 2, ..trust };
        assert_eq!(open(&revokes(Some(2)), 9, &kid, &known), Ok(revokes(Some(2))), "a repeated one is known");
    }
}
