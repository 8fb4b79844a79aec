//! ID tokens of OpenID providers: which signatures are accepted, and which claims must hold. The
//! algorithms are asymmetric ones that the provider announces too, so that neither `none` nor a
//! signature by a text that is public can pass.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use riposte_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::people::is_subject;

/// Algorithms that are accepted, by their names.
const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];
/// Largest ID token, in bytes: one with hundreds of groups has some tens of KiB.
pub const MAX_TOKEN: usize = 128 * 1024;
/// Keys of a provider that are read.
const MAX_KEYS: usize = 64;
/// How far the provider's clock may be off, in seconds.
const LEEWAY_SECS: i64 = 60;

/// Why an ID token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Not a signed JSON document with the claims that every ID token has.
    #[error("the ID token is malformed")]
    Malformed,
    /// The algorithm is not accepted, or not announced by the provider.
    #[error(
        "the ID token's algorithm is not one that Riposte accepts (RS256, PS256, ES256, EdDSA) and the provider announces"
    )]
    Algorithm,
    /// The provider publishes no such key.
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature of the ID token is wrong")]
    Signature,
    /// A claim has another value than required.
    #[error("the claim {0} of the ID token is not the expected one")]
    Claim(&'static str),
    /// It has expired, or is dated ahead.
    #[error("the ID token is not valid now ({0}): check the clocks of this host and of the provider")]
    Time(&'static str),
}

/// What an ID token must say.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedToken<'a> {
    /// The provider's issuer.
    pub issuer: &'a str,
    /// This manager's client at the provider.
    pub client_id: &'a str,
    /// The nonce of this login.
    pub nonce: &'a str,
    /// Now.
    pub now: Timestamp,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct IdClaims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: i64,
    iat: i64,
    nonce: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A person, as the provider knows it.
#[derive(Clone, Debug)]
pub struct ProvenPerson {
    /// Id of the person at the provider, which never changes.
    pub subject: String,
    /// The other claims.
    pub claims: Map<String, Value>,
}

/// The public keys of a provider.
#[derive(Clone, Debug, Default)]
pub struct ProviderKeys(Vec<Jwk>);

impl ProviderKeys {
    /// Reads a key set (RFC 7517). Keys of kinds that are unknown here are left out.
    pub fn read(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?;
        Some(Self(keys.iter().take(MAX_KEYS).filter_map(|key| Jwk::deserialize(key).ok()).collect()))
    }

    /// The keys that a token with this header can be signed with.
    fn of(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Jwk> {
        self.0.iter().filter(move |key| {
            let common = &key.common;
            let is_kind = match algorithm {
                Algorithm::RS256 | Algorithm::PS256 => matches!(key.algorithm, AlgorithmParameters::RSA(_)),
                Algorithm::ES256 => matches!(key.algorithm, AlgorithmParameters::EllipticCurve(_)),
                _ => matches!(key.algorithm, AlgorithmParameters::OctetKeyPair(_)),
            };
            let is_for = common.key_algorithm.is_none_or(|named| named.to_string() == name(algorithm));
            let is_named = kid.is_none_or(|kid| common.key_id.as_deref() == Some(kid));
            let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
            is_kind && is_for && is_named && signs
        })
    }
}

fn name(algorithm: Algorithm) -> &'static str {
    ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map_or("", |(name, _)| name)
}

/// The accepted algorithms that a provider announces.
pub fn accepted(announced: &[String]) -> Vec<Algorithm> {
    let is_announced = |name: &str| announced.iter().any(|word| word == name);
    ALGORITHMS.iter().filter(|(name, _)| is_announced(name)).map(|(_, algorithm)| *algorithm).collect()
}

/// Verifies an ID token.
///
/// # Errors
/// The first reason not to accept it.
pub fn verify(
    token: &str,
    keys: &ProviderKeys,
    algorithms: &[Algorithm],
    expected: ExpectedToken<'_>,
) -> Result<ProvenPerson, IdTokenError> {
    if token.len() > MAX_TOKEN {
        return Err(IdTokenError::Malformed);
    }
    // A header with an algorithm that the library does not know, such as `none`, cannot be read.
    let header = jsonwebtoken::decode_header(token).map_err(|_| IdTokenError::Algorithm)?;
    if !algorithms.contains(&header.alg) {
        return Err(IdTokenError::Algorithm);
    }
    if header.crit.is_some() || header.enc.is_some() {
        return Err(IdTokenError::Malformed);
    }
    // Only the signature is the library's matter: it would read the system's clock.
    let mut signature_alone = Validation::new(header.alg);
    signature_alone.validate_exp = false;
    signature_alone.validate_aud = false;
    signature_alone.required_spec_claims.clear();
    let mut outcome = Err(IdTokenError::UnknownKey);
    for key in keys.of(header.kid.as_deref(), header.alg) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        outcome = match jsonwebtoken::decode::<IdClaims>(token, &key, &signature_alone) {
            Ok(verified) => Ok(verified.claims),
            Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_)) => {
                Err(IdTokenError::Malformed)
            }
            Err(_) => Err(IdTokenError::Signature),
        };
        if !matches!(outcome, Err(IdTokenError::Signature)) {
            break;
        }
    }
    check(outcome?, expected)
}

fn check(claims: IdClaims, expected: ExpectedToken<'_>) -> Result<ProvenPerson, IdTokenError> {
    let IdClaims { iss, sub, aud, azp, exp, iat, nonce, others } = claims;
    if iss != expected.issuer {
        return Err(IdTokenError::Claim("iss"));
    }
    let audiences = match aud {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    };
    if !audiences.iter().any(|audience| audience == expected.client_id) {
        return Err(IdTokenError::Claim("aud"));
    }
    // With several audiences, the one that asked for the token must be named.
    if azp.as_ref().map_or(audiences.len() > 1, |azp| azp != expected.client_id) {
        return Err(IdTokenError::Claim("azp"));
    }
    if !bool::from(nonce.unwrap_or_default().as_bytes().ct_eq(expected.nonce.as_bytes())) {
        return Err(IdTokenError::Claim("nonce"));
    }
    if !is_subject(&sub) {
        return Err(IdTokenError::Claim("sub"));
    }
    let now = expected.now.as_secs();
    if exp.saturating_add(LEEWAY_SECS) <= now {
        return Err(IdTokenError::Time("exp"));
    }
    if iat > now.saturating_add(LEEWAY_SECS) {
        return Err(IdTokenError::Time("iat"));
    }
    Ok(ProvenPerson { subject: sub, claims: others })
}
