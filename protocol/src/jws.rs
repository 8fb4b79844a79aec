//! Compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037) only: one algorithm, one key type, one
//! serialisation. There is no choice of `alg`, so algorithms cannot be confused.
//!
//! Why not a JWT crate: see `docs/decisions/0003-own-compact-jws.md`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest token that is read, in bytes: a command with its alert (64 KiB in Wazuh), in base64.
pub const MAX_BYTES: usize = 256 * 1024;

/// The protected header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always `EdDSA`.
    pub alg: String,
    /// The kind of the token, so that one kind can never pass for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// Id of the signing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Extensions the reader must understand (RFC 7515 §4.1.11); we understand none, so a token
    /// with it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crit: Option<serde_json::Value>,
}

/// Why a token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three base64url parts holding JSON, or too large.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm, another kind of token, or an unknown extension.
    #[error("the token is of another kind")]
    Kind,
    /// No key of that id is trusted.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The signature does not belong to this token and key.
    #[error("the signature is wrong")]
    Signature,
}

/// Signs `claims` and returns the compact form.
///
/// # Errors
/// [`JwsError::Malformed`] if the claims cannot be written as JSON.
pub fn sign<C: Serialize>(key: &SigningKey, typ: &str, kid: &str, claims: &C) -> Result<String, JwsError> {
    let header = Header { alg: "EdDSA".into(), typ: Some(typ.into()), kid: Some(kid.into()), crit: None };
    let mut token = String::with_capacity(512);
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(&header).map_err(|_| JwsError::Malformed)?, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims).map_err(|_| JwsError::Malformed)?, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut token);
    Ok(token)
}

/// A parsed token, not verified yet.
pub struct Unverified<'a> {
    signed: &'a [u8],
    payload: &'a str,
    signature: Signature,
    /// The header; untrusted before [`Unverified::verify`].
    pub header: Header,
}

impl<'a> Unverified<'a> {
    /// Parses a compact token. Refuses any algorithm but EdDSA and any `typ` but `typ`; a token
    /// without `typ` is accepted only with `typ_optional`.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] or [`JwsError::Kind`].
    pub fn parse(token: &'a str, typ: &str, typ_optional: bool) -> Result<Self, JwsError> {
        if token.len() > MAX_BYTES {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let header: Header = decode_json(header)?;
        let typ_ok = match &header.typ {
            Some(given) => given.eq_ignore_ascii_case(typ),
            None => typ_optional,
        };
        if header.alg != "EdDSA" || header.crit.is_some() || !typ_ok {
            return Err(JwsError::Kind);
        }
        let signature = decode(signature)?;
        let signature = Signature::from_slice(&signature).map_err(|_| JwsError::Signature)?;
        Ok(Self { signed: signed.as_bytes(), payload, signature, header })
    }

    /// The claims before verification: only to find the key to verify with.
    ///
    /// # Errors
    /// [`JwsError::Malformed`].
    pub fn peek<C: DeserializeOwned>(&self) -> Result<C, JwsError> {
        decode_json(self.payload)
    }

    /// Verifies the signature and returns the claims.
    ///
    /// # Errors
    /// [`JwsError::Signature`], or [`JwsError::Malformed`] if the claims do not have the expected
    /// form.
    pub fn verify<C: DeserializeOwned>(&self, key: &VerifyingKey) -> Result<C, JwsError> {
        // `verify_strict` refuses small-order keys and malleable signatures, which plain RFC 8032
        // accepts.
        key.verify_strict(self.signed, &self.signature).map_err(|_| JwsError::Signature)?;
        decode_json(self.payload)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed)
}

fn decode_json<T: DeserializeOwned>(part: &str) -> Result<T, JwsError> {
    serde_json::from_slice(&decode(part)?).map_err(|_| JwsError::Malformed)
}

/// Parses the text form of a public key: 32 raw bytes in base64url without padding.
///
/// # Errors
/// [`JwsError::Malformed`] if the text is not 32 bytes that are a point on the curve.
pub fn parse_public_key(text: &str) -> Result<VerifyingKey, JwsError> {
    let bytes: [u8; 32] = decode(text.trim_end_matches('='))?.try_into().map_err(|_| JwsError::Malformed)?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| JwsError::Malformed)?;
    if key.is_weak() { Err(JwsError::Malformed) } else { Ok(key) }
}

/// The text form of a public key, as [`parse_public_key`] reads it.
pub fn public_key_text(key: &VerifyingKey) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// RFC 8037, appendix A.4: the standard's example signature.
    #[test]
    fn the_example_of_rfc_8037_verifies() {
        let key = parse_public_key("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let unverified = Unverified::parse(token, "x", true).unwrap();
        // The example's payload is plain text, not JSON: after a good signature it must be
        // "malformed".
        assert_eq!(unverified.verify::<serde_json::Value>(&key), Err(JwsError::Malformed));
        assert_eq!(unverified.verify::<serde_json::Value>(&self::key(1).verifying_key()), Err(JwsError::Signature));
    }

    #[test]
    fn only_the_right_signer_and_kind_are_accepted() {
        let claims = serde_json::json!({"a": 1});
        let token = sign(&key(1), "riposte-command+jwt", "k1", &claims).unwrap();
        let parse = |typ| Unverified::parse(&token, typ, false);
        assert_eq!(parse("riposte-command+jwt").unwrap().verify(&key(1).verifying_key()), Ok(claims));
        let by_other = parse("riposte-command+jwt").unwrap().verify::<serde_json::Value>(&key(2).verifying_key());
        assert_eq!(by_other, Err(JwsError::Signature));
        assert_eq!(parse("JWT").err(), Some(JwsError::Kind));
    }

    #[test]
    fn every_changed_character_breaks_the_token() {
        let token = sign(&key(1), "t", "k1", &serde_json::json!({"seq": 7, "until": null})).unwrap();
        for position in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let verified = Unverified::parse(&changed, "t", false)
                .and_then(|token| token.verify::<serde_json::Value>(&key(1).verifying_key()));
            assert!(verified.is_err(), "position {position}");
        }
    }

    #[test]
    fn other_algorithms_and_unknown_extensions_are_refused() {
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for header in [
            r#"{"alg":"none","typ":"t"}"#,
            r#"{"alg":"HS256","typ":"t"}"#,
            r#"{"alg":"eddsa","typ":"t"}"#,
            r#"{"alg":"EdDSA","typ":"t","crit":["b64"]}"#,
            r#"{"alg":"EdDSA"}"#,
        ] {
            let token = format!("{}.{}.{}", encode(header), encode("{}"), URL_SAFE_NO_PAD.encode([0; 64]));
            assert_eq!(Unverified::parse(&token, "t", false).err(), Some(JwsError::Kind), "{header}");
        }
    }
}
