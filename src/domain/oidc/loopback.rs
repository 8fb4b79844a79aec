//! What a program that logs a person in sends: the loopback address at which it listens (RFC 8252),
//! and the challenge that ties the login code to it (RFC 7636, S256).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Largest address, in bytes.
const MAX_ADDRESS: usize = 256;
/// Length of an S256 challenge, in characters.
const CHALLENGE_LENGTH: usize = 43;

/// Whether `text` is an address of this host's loopback interface: `http`, an address and not a
/// name, a port, and a plain path without a query. A name such as `localhost` may lead elsewhere.
pub fn is_loopback(text: &str) -> bool {
    let rest = text.strip_prefix("http://127.0.0.1:").or_else(|| text.strip_prefix("http://[::1]:"));
    let Some((port, path)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    text.len() <= MAX_ADDRESS && is_port && path.bytes().all(is_plain)
}

/// Whether `text` is a challenge: 32 bytes in base64url.
pub fn is_challenge(text: &str) -> bool {
    text.len() == CHALLENGE_LENGTH && URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// The S256 challenge of a verifier.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Whether `verifier` is the one of `expected`. The time does not tell how much of it is right.
pub fn is_verifier_of(verifier: &str, expected: &str) -> bool {
    challenge(verifier).as_bytes().ct_eq(expected.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_loopback_interface_are_accepted() {
        for address in ["http://127.0.0.1:4711/", "http://[::1]:65535/a/b-c_d", "http://127.0.0.1:1/x"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in [
            "",
            "http://127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:+80/",
            "http://127.0.0.1:80",
            "http://127.0.0.1:80@evil.example/",
            "http://127.0.0.1.evil.example:80/",
            "http://localhost:80/",
            "http://0.0.0.0:80/",
            "https://127.0.0.1:80/",
            "HTTP://127.0.0.1:80/",
            "http://127.0.0.1:80/?x=1",
            "http://127.0.0.1:80/#x",
            "http://127.0.0.1:80/a b",
            "http://127.0.0.1:80/\r\nx",
            "https://evil.example/",
            &format!("http://127.0.0.1:80/{}", "a".repeat(256)),
        ] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    /// RFC 7636, appendix B.
    #[test]
    fn the_example_of_rfc_7636_verifies() {
        let (verifier, expected) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_challenge(expected) && is_verifier_of(verifier, expected));
        assert!(!is_verifier_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl", expected) && !is_verifier_of("", ""));
        for text in ["", "E9Melhoa", &"=".repeat(43), verifier.trim_end_matches('k')] {
            assert!(!is_challenge(text), "{text}");
        }
    }
}
