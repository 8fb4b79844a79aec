//! Tokens that name a caller: an agent's identity and a person's access token. No token of one kind
//! passes for the other, and what is accepted names the right one and ends in time.

use std::sync::LazyLock;

use riposte::domain::access_token::{self, AccessKeys};
use riposte_protocol::identity;
use riposte_protocol::jws;
use riposte_protocol::key::SigningKey;
use riposte_protocol::time::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::input::text;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[1; 32]).unwrap());
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
static ACCESS: LazyLock<AccessKeys> = LazyLock::new(|| AccessKeys::derive(&KEY, NOW).unwrap());
const AGENT: Uuid = Uuid::from_u128(1);

/// A token, or the claims of one.
pub(crate) fn check(input: &[u8]) {
    let given = text(input);
    // The keys are in this file alone.
    assert!(identity::check(&given, &KEY.verifying_key(), AGENT, NOW).is_err() || given.starts_with("eyJ"));
    assert!(ACCESS.verify(&given, NOW).is_err() || given.starts_with("eyJ"));
    let claimed = identity::claimed_agent(&given);
    let Ok(claims) = RawValue::from_string(given) else { return };
    assert!(claimed.is_err(), "claims are no token");
    let access = access_key();
    let signed = |key: &SigningKey, typ: &str| jws::sign(key, typ, &ACCESS.all()[1].kid, &claims).unwrap();
    let (agent, person) = (signed(&KEY, "JWT"), signed(&access, access_token::TYP));
    if let Ok(token) = identity::check(&agent, &KEY.verifying_key(), AGENT, NOW) {
        assert_eq!((token.iss, token.sub, token.aud.as_str()), (AGENT, AGENT, "riposte"));
        assert_eq!(identity::claimed_agent(&agent), Ok(AGENT), "the key is looked up by the agent that is checked");
        // Not wrapping at the ends of the clock.
        assert!(token.exp - token.iat <= 300 && (token.iat - NOW.as_secs()) <= 60 && NOW.as_secs() - token.exp <= 60);
    }
    if let Ok(token) = ACCESS.verify(&person, NOW) {
        assert_eq!((token.iss.as_str(), token.aud.as_str()), ("riposte", "riposte"));
        assert!(token.exp > NOW.as_secs() && token.exp - token.iat <= 900 && token.iat <= NOW.as_secs() + 60);
        assert_eq!(ACCESS.verify(&ACCESS.sign(&token).unwrap(), NOW), Ok(token));
    }
    for wrong in [&agent, &signed(&access, "JWT"), &signed(&KEY, access_token::TYP)] {
        assert!(ACCESS.verify(wrong, NOW).is_err(), "{wrong}");
    }
    for wrong in [&person, &signed(&access, "JWT"), &signed(&KEY, access_token::TYP)] {
        assert!(identity::check(wrong, &KEY.verifying_key(), AGENT, NOW).is_err(), "{wrong}");
    }
}

/// The current key of access tokens, derived a second time.
fn access_key() -> SigningKey {
    let key = KEY.derive(&format!("riposte access token, period {}", access_token::period(NOW))).unwrap();
    assert_eq!(key.verifying_key().as_bytes(), ACCESS.all()[1].public().as_bytes());
    key
}
