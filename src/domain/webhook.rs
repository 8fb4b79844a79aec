//! Standard Webhooks signatures (<https://www.standardwebhooks.com>), of alerts that come in and of messages that go out: an
//! HMAC-SHA256 of id, time and body, whose secret sender and receiver have.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use riposte_protocol::time::Timestamp;

/// How far the time of a signed request may be from now.
const WINDOW: Duration = Duration::from_mins(5);
/// Maximum number of signatures that are compared; senders have two while a secret is replaced.
const MAX_SIGNATURES: usize = 8;
/// What begins a secret as senders take it.
const SECRET_PREFIX: &str = "whsec_";

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// A header is missing or has another form.
    #[error(
        "the headers webhook-id, webhook-timestamp and webhook-signature must be there, as Standard Webhooks has them"
    )]
    Form,
    /// The time is too far away.
    #[error(
        "webhook-timestamp is more than 5 minutes from now: compare the clocks; an old request is not accepted again"
    )]
    Time,
    /// No signature is right.
    #[error("no signature in webhook-signature is right")]
    Signature,
}

/// The signed parts of a request besides its body.
#[derive(Clone, Copy, Debug)]
pub struct WebhookHeaders<'a> {
    /// `webhook-id`: the same when the request is sent again.
    pub id: &'a str,
    /// `webhook-timestamp`, in seconds.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

/// A secret as a sender takes it.
pub fn sender_secret(secret: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// The signed message: id, time and body.
fn message(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

/// The secret of a receiver of messages. It shows nothing of itself.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret([redacted])")
    }
}

impl WebhookSecret {
    /// Parses a secret as receivers give it out: `whsec_` and 24 to 64 bytes in base64.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The value of `webhook-signature` for a message; `timestamp` is in seconds.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), &message(id, timestamp, body));
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    }
}

impl WebhookHeaders<'_> {
    /// Checks the form and the time, before the body is read.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, now: Timestamp) -> Result<(), WebhookError> {
        let is_id =
            (1..=200).contains(&self.id.len()) && self.id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
        let seconds: i64 = self.timestamp.parse().map_err(|_| WebhookError::Form)?;
        if !is_id {
            return Err(WebhookError::Form);
        }
        let window = i64::try_from(WINDOW.as_secs()).unwrap_or(i64::MAX);
        if now.as_secs().saturating_sub(seconds).saturating_abs() > window { Err(WebhookError::Time) } else { Ok(()) }
    }

    /// Checks the signature of `body`.
    ///
    /// # Errors
    /// [`WebhookError::Signature`].
    pub fn verify(&self, secret: &[u8], body: &[u8]) -> Result<(), WebhookError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let message = message(self.id, self.timestamp, body);
        let given = self.signature.split_ascii_whitespace().filter_map(|one| one.strip_prefix("v1,"));
        let is_right = |one: &str| STANDARD.decode(one).is_ok_and(|tag| hmac::verify(&key, &message, &tag).is_ok());
        if given.take(MAX_SIGNATURES).any(is_right) { Ok(()) } else { Err(WebhookError::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &str = "{\"test\": 2432232314}";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers(signature: &'static str) -> WebhookHeaders<'static> {
        WebhookHeaders { id: ID, timestamp: "1614265330", signature }
    }

    #[test]
    fn the_example_of_the_specification_is_right_and_a_change_is_not() {
        let secret = STANDARD.decode(SECRET).unwrap();
        assert_eq!(sender_secret(&secret), format!("whsec_{SECRET}"));
        let signed = headers(SIGNATURE);
        assert_eq!(signed.verify(&secret, BODY.as_bytes()), Ok(()));
        let two = headers("v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(two.verify(&secret, BODY.as_bytes()), Ok(()));
        for (headers, body) in [
            (signed, "{\"test\": 2432232315}"),
            (WebhookHeaders { timestamp: "1614265331", ..signed }, BODY),
            (WebhookHeaders { id: "msg_other", ..signed }, BODY),
            (headers("v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="), BODY),
            (headers(""), BODY),
        ] {
            assert_eq!(headers.verify(&secret, body.as_bytes()), Err(WebhookError::Signature), "{headers:?}");
        }
    }

    #[test]
    fn a_message_is_signed_as_the_specification_says() {
        let secret = WebhookSecret::parse(&format!("whsec_{SECRET}")).unwrap();
        assert_eq!(secret.sign(ID, "1614265330", BODY.as_bytes()), SIGNATURE);
        assert_eq!(format!("{secret:?}"), "WebhookSecret([redacted])");
        for wrong in ["", SECRET, "whsec_", "whsec_AAAA", "whsec_not base64 not base64 not base64"] {
            assert!(WebhookSecret::parse(wrong).is_none(), "{wrong}");
        }
        assert!(WebhookSecret::parse(&sender_secret(&[7; 65])).is_none());
    }

    #[test]
    fn an_old_or_future_request_is_refused() {
        let at = |secs: i64| headers(SIGNATURE).check(Timestamp::from_millis(secs * 1000));
        assert_eq!((at(1_614_265_330), at(1_614_265_630), at(1_614_265_030)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((at(1_614_265_631), at(1_614_265_029)), (Err(WebhookError::Time), Err(WebhookError::Time)));
        let broken = WebhookHeaders { timestamp: "soon", ..headers(SIGNATURE) };
        assert_eq!(broken.check(Timestamp::from_millis(0)), Err(WebhookError::Form));
        let dotted = WebhookHeaders { id: "a.b", ..headers(SIGNATURE) };
        assert_eq!(dotted.check(Timestamp::from_millis(1_614_265_330_000)), Err(WebhookError::Form));
    }
}
