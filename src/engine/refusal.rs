//! Why a use case is not carried out. The API turns each kind into an HTTP status; nothing was changed.

use crate::domain::fault::Fault;
use crate::domain::scope::OutOfScope;
use crate::store::StoreError;

/// Why a use case is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Parts of what was asked are wrong.
    #[error("{} faults were found", .0.len())]
    Invalid(Vec<Fault>),
    /// There is no such thing; the text says what.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as things stand; the text says why.
    #[error("{0}")]
    Conflict(String),
    /// The principal may not do it; the text says why.
    #[error("{0}")]
    Forbidden(String),
    /// It has changed since the caller read it.
    #[error("{0}")]
    Changed(String),
    /// The idempotency key was used before, for another request.
    #[error("this Idempotency-Key was used for another request; send a new key")]
    KeyReused,
    /// A login or a refresh failed; the words are the same for all reasons.
    #[error("{0}")]
    Credentials(&'static str),
    /// The password is right, and a one-time code is needed too.
    #[error("this user needs a one-time code: send it as `totp`")]
    TotpRequired,
    /// The password is right and temporary.
    #[error("the password is temporary: change it first (`POST /v1/auth/password`), then log in with the new one")]
    PasswordChangeRequired,
    /// An OpenID provider does not answer; the text says which.
    #[error("{0}")]
    ProviderAway(String),
    /// Too many attempts; the number is the wait in seconds.
    #[error("{0}; retry after {1} s")]
    TooMany(&'static str, u64),
    /// Too much work waits already.
    #[error("{0}")]
    Overloaded(&'static str),
    /// The system has no randomness, or a file cannot be written.
    #[error("{0}")]
    System(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Result of a use case.
pub type UseCase<T> = Result<T, Refusal>;

impl From<OutOfScope> for Refusal {
    fn from(error: OutOfScope) -> Self {
        Self::Forbidden(error.to_string())
    }
}

impl Refusal {
    /// One fault, at `pointer`.
    pub fn fault(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault::at(pointer, detail)])
    }
}
