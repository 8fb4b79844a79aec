//! Hashes of passwords: argon2id (RFC 9106), stored as a PHC text with its parameters, so that
//! others can follow later. Each call takes about 20 ms of processor time and 19 MiB: callers run it
//! on a blocking thread behind a semaphore.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;

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

fn derive(password: &str, salt: &[u8], (memory, passes, lanes): (u32, u32, u32)) -> Option<[u8; HASH_LENGTH]> {
    let params = Params::new(memory, passes, lanes, Some(HASH_LENGTH)).ok()?;
    let mut hash = [0; HASH_LENGTH];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password.as_bytes(), salt, &mut hash).ok()?;
    Some(hash)
}

/// Hashes `password` with a random `salt`; returns a PHC text. `None` without memory for it.
pub fn hash(password: &str, salt: &[u8; SALT_LENGTH]) -> Option<String> {
    let (memory, passes, lanes) = COSTS;
    let hash = derive(password, salt, COSTS)?;
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    Some(format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}"))
}

/// Whether `password` is the one that the PHC text `stored` was made of.
pub fn verify(password: &str, stored: &str) -> bool {
    let Some((costs, salt, expected)) = parse(stored) else { return false };
    let hash = derive(password, &salt, costs);
    hash.is_some_and(|hash| hash.as_slice().ct_eq(&expected).into())
}

type Parsed = ((u32, u32, u32), Vec<u8>, Vec<u8>);

fn parse(stored: &str) -> Option<Parsed> {
    let mut parts = stored.strip_prefix("$argon2id$v=19$")?.split('$');
    let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let mut costs = costs.split(',');
    let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let costs = (cost("m=")?, cost("t=")?, cost("p=")?);
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok();
    (costs.0 <= MAX_MEMORY_KIB && parts.next().is_none()).then_some((costs, decode(salt)?, decode(hash)?))
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
        for broken in ["", "$argon2id$v=19$m=19456,t=2$x$y", &stored[..stored.len() - 1], &format!("{stored}$")] {
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
        let (costs, salt, hash) = parse(DUMMY).unwrap();
        assert_eq!((costs, salt.len(), hash.len()), (COSTS, SALT_LENGTH, HASH_LENGTH));
        assert!(!verify("", DUMMY));
    }
}
