//! The key by which an alert is recognised when it comes again.

use sha2::{Digest, Sha256};

/// 128 bits of SHA-256 over the identifying parts, each with its length, so that different parts
/// never have equal input.
pub fn dedupe(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_dedupe_key_cannot_run_into_each_other() {
        assert_ne!(dedupe(&["ab", "c"]), dedupe(&["a", "bc"]));
        assert_eq!(dedupe(&["ab", "c"]), dedupe(&["ab", "c"]));
    }
}
