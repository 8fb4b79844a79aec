//! Hashes of passwords: argon2id (RFC 9106), stored as a PHC text with its parameters, so that
//! others can follow later. Each call takes about 20 ms of processor time and 19 MiB: callers run it
//! on a blocking thread behind a semaphore.

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher as _, PasswordVerifier as _, Version};

/// Memory in KiB, passes and lanes, as OWASP recommends for argon2id.
const COSTS: (u32, u32, u32) = (19_456, 2, 1);
/// Largest memory in KiB that a stored text may ask for.
const MAX_MEMORY_KIB: u32 = 1 << 20;
/// Length of a hash, in bytes.
const HASH_LENGTH: usize = 32;
/// Length of a salt, in bytes.
pub const SALT_LENGTH: usize = 16;

/// A hash that no password has, with the usual costs. A login of an unknown user is compared with
/// it, so that it takes the time of any other.
pub const DUMMY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes `password` with a random `salt`; returns a PHC text. `None` without memory for it.
pub fn hash(password: &str, salt: &[u8; SALT_LENGTH]) -> Option<String> {
    let (memory, passes, lanes) = COSTS;
    let params = Params::new(memory, passes, lanes, Some(HASH_LENGTH)).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Some(argon2.hash_password_with_salt(password.as_bytes(), salt).ok()?.to_string())
}

/// Whether `password` is the one that the PHC text `stored` was made of.
pub fn verify(password: &str, stored: &str) -> bool {
    let Some((stored, _)) = parse(stored) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &stored).is_ok()
}

/// Reads a PHC text, unless it asks for too much memory.
fn parse(stored: &str) -> Option<(PasswordHash, Params)> {
    let hash = PasswordHash::new(stored).ok()?;
    let params = Params::try_from(&hash).ok().filter(|params| params.m_cost() <= MAX_MEMORY_KIB)?;
    (hash.algorithm.as_str() == "argon2id").then_some((hash, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_one_that_was_hashed() {
        let stored = hash("correct horse battery", &[7; SALT_LENGTH]).unwrap();
        assert!(verify("correct horse battery", &stored));
        assert!(!verify("correct horse batterz", &stored) && !verify("", &stored));
        assert_ne!(hash("correct horse battery", &[8; SALT_LENGTH]).unwrap(), stored);
        for broken in [
            "",
            "$argon2id$v=19$m=19456,t=2$x$y",
            &stored[..stored.len() - 1],
            &format!("{stored}$"),
            &stored.replace("m=19456", "m=1048577"),
            &stored.replace("argon2id", "argon2i"),
        ] {
            assert!(!verify("correct horse battery", broken), "{broken}");
        }
    }

    /// A vector of the reference implementation, so that other programs can read our hashes.
    #[test]
    fn the_form_is_the_one_of_the_reference_implementation() {
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(verify("password", stored));
    }

    #[test]
    fn the_dummy_costs_as_much_as_a_stored_password() {
        let (dummy, params) = parse(DUMMY).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), COSTS);
        assert_eq!((dummy.salt.unwrap().len(), dummy.hash.unwrap().len()), (SALT_LENGTH, HASH_LENGTH));
        assert!(!verify("", DUMMY));
    }
}
