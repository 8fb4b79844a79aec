//! Compact JWS (RFC 7515) with EdDSA over Ed25519 (RFC 8037) only: one algorithm, one key type, one
//! serialisation. There is no choice of `alg`, so algorithms cannot be confused.
//!
//! `jsonwebtoken` signs and verifies; the header, its checks and the limits are ours, because its
//! `encode` and `decode` would change the bytes and the reasons of a refusal
//! (`docs/decisions/0020-jsonwebtoken-signs-and-verifies.md`).

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::constants::EIGHT_TORSION;
use jsonwebtoken::{Algorithm, crypto};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::key::{SigningKey, VerifyingKey};

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
/// [`JwsError::Malformed`] if the claims cannot be written as JSON, or the library cannot sign, for
/// example without memory.
pub fn sign<C: Serialize>(key: &SigningKey, typ: &str, kid: &str, claims: &C) -> Result<String, JwsError> {
    let header = Header { alg: "EdDSA".into(), typ: Some(typ.into()), kid: Some(kid.into()), crit: None };
    let mut token = String::with_capacity(512);
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(&header).map_err(|_| JwsError::Malformed)?, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims).map_err(|_| JwsError::Malformed)?, &mut token);
    let signature = crypto::sign(token.as_bytes(), key.private(), Algorithm::EdDSA).map_err(|_| JwsError::Malformed)?;
    token.push('.');
    token.push_str(&signature);
    Ok(token)
}

/// The encodings of the points of small order. A signature whose first half (`R`) is one of them can
/// be made without the signer's random part, and plain RFC 8032 accepts it.
static SMALL_ORDER: LazyLock<[[u8; 32]; 8]> = LazyLock::new(|| EIGHT_TORSION.map(|point| point.compress().0));

/// A parsed token, not verified yet.
pub struct Unverified<'a> {
    signed: &'a [u8],
    payload: &'a str,
    signature: &'a str,
    /// The first half of the signature, a point on the curve.
    r: [u8; 32],
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
        let bytes: [u8; 64] = decode(signature)?.try_into().map_err(|_| JwsError::Signature)?;
        let (r, _) = bytes.split_first_chunk().ok_or(JwsError::Signature)?;
        Ok(Self { signed: signed.as_bytes(), payload, signature, r: *r, header })
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
        // The library refuses malleable signatures; keys of small order are no `VerifyingKey`.
        let is_right = crypto::verify(self.signature, self.signed, &key.public(), Algorithm::EdDSA);
        if !is_right.is_ok_and(|is_right| is_right) || SMALL_ORDER.contains(&self.r) {
            return Err(JwsError::Signature);
        }
        decode_json(self.payload)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed)
}

fn decode_json<T: DeserializeOwned>(part: &str) -> Result<T, JwsError> {
    serde_json::from_slice(&decode(part)?).map_err(|_| JwsError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    /// RFC 8037, appendix A.4: the standard's example signature.
    #[test]
    fn the_example_of_rfc_8037_verifies() {
        let key = VerifyingKey::parse("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
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

    /// A token as it was before `jsonwebtoken` signed: agents and managers of all versions agree on it.
    #[test]
    fn a_token_is_the_same_to_the_last_byte() {
        let claims = serde_json::json!({"seq": 7, "until": null});
        assert_eq!(
            sign(&key(1), "riposte-command+jwt", "k1", &claims).unwrap(),
            concat!(
                "eyJhbGciOiJFZERTQSIsInR5cCI6InJpcG9zdGUtY29tbWFuZCtqd3QiLCJraWQiOiJrMSJ9.",
                "eyJzZXEiOjcsInVudGlsIjpudWxsfQ.",
                "tPUzANlA3DnnwXG0Y1n3nDCFghs2snVsV0EZ2c9ykh98wgBGYtGtrqmu-zTiRqzq2MNSYXDtlu-fKmfvGDgYCQ"
            )
        );
    }

    /// Plain RFC 8032 accepts the first of these tokens, made for its key by its owner.
    #[test]
    fn signatures_of_small_order_and_malleable_ones_are_refused() {
        let owner = VerifyingKey::parse("UdPqjLr7hnd-4OgBW0kV4lewZU4X4f2Q_yLzqPtPgQY").unwrap();
        let small = "eyJhbGciOiJFZERTQSIsInR5cCI6InQifQ.eyJuIjowfQ.AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACQQ-sJl0ZIGTNi03omy0gmW3AsjoWj9hmeMpMI0BVECg";
        let refused = Unverified::parse(small, "t", false).unwrap().verify::<serde_json::Value>(&owner);
        assert_eq!(refused, Err(JwsError::Signature));
        let (signed, signature) = small.rsplit_once('.').unwrap();
        assert!(crypto::verify(signature, signed.as_bytes(), &owner.public(), Algorithm::EdDSA).unwrap());

        // The second half is a number modulo the order of the curve's base point; added to it, the
        // order changes the text of a signature and not its meaning.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let token = sign(&key(1), "t", "k1", &serde_json::json!({})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = decode(signature).unwrap();
        let mut carry = 0;
        for (byte, more) in bytes[32..].iter_mut().zip(ORDER) {
            carry += u16::from(*byte) + u16::from(more);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
        let refused = Unverified::parse(&token, "t", false).unwrap();
        assert_eq!(refused.verify::<serde_json::Value>(&key(1).verifying_key()), Err(JwsError::Signature));
    }

    #[test]
    fn a_token_that_is_too_large_or_no_token_is_refused() {
        let large = format!("{}.{}.{}", "A".repeat(MAX_BYTES), "A", "A");
        for token in [large.as_str(), "", "a.b", "..", "a.b.c.d"] {
            assert_eq!(Unverified::parse(token, "t", true).err(), Some(JwsError::Malformed));
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
