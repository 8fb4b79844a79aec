//! Signed commands: only what a pinned key signed for this agent is opened, unchanged to the last
//! byte.

use std::sync::LazyLock;

use riposte_protocol::command::{Command, Refusal, TYP};
use riposte_protocol::jws::{self, JwsError};
use riposte_protocol::key::{SigningKey, VerifyingKey};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::input::{number, parts, text};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[1; 32]).unwrap());
const AGENT: Uuid = Uuid::from_u128(1);

fn open(token: &str) -> Result<Command, Refusal> {
    let keys: [(String, VerifyingKey); 1] = [("k1".to_owned(), KEY.verifying_key())];
    Command::open(token, &keys, AGENT)
}

/// A token or the claims of one, and a change.
pub(crate) fn check(input: &[u8]) {
    let [given, change] = parts(input);
    let given = text(given);
    // The private key is in this file alone: what is opened here was signed here.
    assert!(open(&given).is_err() || given.starts_with("eyJ"), "{given}");
    let Ok(claims) = RawValue::from_string(given) else { return };
    let token = jws::sign(&KEY, TYP, "k1", &claims).unwrap();
    match open(&token) {
        Ok(command) => {
            assert_eq!((command.iss.as_str(), command.aud), ("riposte", AGENT));
            let again = command.sign(&KEY, "k1").unwrap();
            assert_eq!(open(&again).as_ref(), Ok(&command), "signed again");
            changed(&token, change);
        }
        Err(refusal) => assert!(
            matches!(refusal, Refusal::Issuer | Refusal::Audience | Refusal::Token(JwsError::Malformed)),
            "{refusal:?}"
        ),
    }
    for typ in ["JWT", "at+jwt"] {
        let other = jws::sign(&KEY, typ, "k1", &claims).unwrap();
        assert_eq!(open(&other), Err(JwsError::Kind.into()), "a token of another kind");
    }
    let other = jws::sign(&SigningKey::from_seed(&[2; 32]).unwrap(), TYP, "k1", &claims).unwrap();
    assert!(open(&other).is_err(), "signed by another key");
}

/// No changed token is opened.
fn changed(token: &str, change: &[u8]) {
    let mut bytes = token.as_bytes().to_vec();
    let at = number(change) % (bytes.len() + 1);
    match change.get(7..).unwrap_or_default() {
        [] => bytes.truncate(at),
        more => drop(bytes.splice(at..(at + more.len()).min(token.len()), more.iter().copied())),
    }
    let changed = text(&bytes);
    assert!(changed == token || open(&changed).is_err(), "{changed} instead of {token}");
}
