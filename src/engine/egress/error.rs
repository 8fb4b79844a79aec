//! Why a call to another host is not made.

use std::error::Error;

use crate::domain::egress::allow_list::EgressRefusal;

/// Why a call is not made.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The address is not allowed.
    #[error(transparent)]
    Refused(#[from] EgressRefusal),
    /// The URL has no host, or no port is known for its scheme.
    #[error("{0} is no URL of a host")]
    NoHost(String),
    /// The name has no address.
    #[error("the name {0} cannot be resolved")]
    Name(String, #[source] std::io::Error),
    /// No client can be made: usually the system has no certificate authorities.
    #[error("no TLS client can be made; install the system's certificate authorities (ca-certificates)")]
    Client(#[source] reqwest::Error),
}

/// An error with its causes, in one line. A refusal stands for the whole: what is around it says only
/// that the connection failed.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut next) = (error.to_string(), Some(error));
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<EgressRefusal>() {
            return refusal.to_string();
        }
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = error.source();
    }
    text
}
