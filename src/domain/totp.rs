//! One-time codes by time (RFC 6238): HMAC-SHA1, steps of 30 seconds, six digits, which is what
//! authenticator programs can do.

use hmac::{Hmac, KeyInit as _, Mac as _};
use riposte_protocol::time::Timestamp;
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

/// Length of a secret, in bytes.
pub const TOTP_SECRET_LENGTH: usize = 20;
/// Length of a step, in seconds.
const STEP_SECS: i64 = 30;
/// Steps that a code may be early or late, because the clock of a device differs.
const TOLERANCE: i64 = 1;

/// The code of a step. `None` only if the library refuses the secret.
fn code(secret: &[u8], step: i64) -> Option<String> {
    let mut mac = <Hmac<Sha1>>::new_from_slice(secret).ok()?;
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest.last()? & 0xf);
    let four: [u8; 4] = digest.get(offset..offset + 4)?.try_into().ok()?;
    Some(format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000))
}

/// The step that `given` is the code of, if that is near `now`. The caller accepts each step once.
pub fn matching_step(secret: &[u8], given: &str, now: Timestamp) -> Option<i64> {
    let current = now.as_secs().div_euclid(STEP_SECS);
    let given = given.trim().replace(' ', "");
    (current - TOLERANCE..=current + TOLERANCE).find(|step| {
        let code = code(secret, *step);
        code.is_some_and(|code| code.as_bytes().ct_eq(given.as_bytes()).into())
    })
}

/// The URI that authenticator programs read, with the secret in base32 (RFC 4648). A user's name needs no escaping.
pub fn uri(user: &str, secret: &str) -> String {
    format!("otpauth://totp/Riposte:{user}?secret={secret}&issuer=Riposte&algorithm=SHA1&digits=6&period={STEP_SECS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, whose codes have eight digits: the last six.
    #[test]
    fn the_codes_are_those_of_the_standard() {
        let secret = b"12345678901234567890";
        for (secs, expected) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(code(secret, secs / STEP_SECS).unwrap(), expected);
        }
        let now = Timestamp::from_millis(59_000);
        assert_eq!(matching_step(secret, " 287 082", now), Some(1));
        assert_eq!(matching_step(secret, "287082", Timestamp::from_millis(89_000)), Some(1));
        assert_eq!(matching_step(secret, "287082", Timestamp::from_millis(90_000)), None);
        assert_eq!(matching_step(secret, "", now), None);
    }
}
