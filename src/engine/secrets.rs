//! Random secrets that the manager makes, and the hashes that are stored of them: of API keys, tokens,
//! sessions and logins that are under way.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::refusal::{Refusal, UseCase};

/// Returns the hash that is stored of a secret. Secrets are random, so a plain hash is enough.
pub fn hash_secret(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// Returns 256 random bits as text.
///
/// # Errors
/// If the system has no randomness.
pub fn new_secret() -> UseCase<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Refusal::System(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
