//! Hashes passwords without blocking other requests: on blocking threads, two at a time, because
//! each takes a core and 19 MiB. A bounded number of logins waits for that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::{Refusal, UseCase};
use crate::domain::password::{self, DUMMY, SALT_LENGTH};

/// Passwords that are hashed at the same time.
const HASHING: usize = 2;
/// How long a login waits for its turn.
const TURN: Duration = Duration::from_secs(10);

/// Hashes and verifies passwords.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(HASHING)) }
    }
}

impl Passwords {
    async fn turn(&self) -> UseCase<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(Refusal::Overloaded("too many logins at the same time; retry later"))
    }

    /// Whether `password` has the stored hash. Without one it is compared with the dummy, which
    /// takes the same time and is never equal.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if too many logins wait.
    pub async fn verify(&self, password: String, stored: Option<String>) -> UseCase<bool> {
        let turn = self.turn().await?;
        let verified = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            password::verify(&password, stored.as_deref().unwrap_or(DUMMY))
        });
        verified.await.map_err(|error| Refusal::System(error.to_string()))
    }

    /// Returns the PHC text that is stored of `password`.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] if too many logins wait, [`Refusal::System`] without randomness or
    /// memory.
    pub async fn hash(&self, password: String) -> UseCase<String> {
        let mut salt = [0; SALT_LENGTH];
        getrandom::fill(&mut salt).map_err(|error| Refusal::System(error.to_string()))?;
        let turn = self.turn().await?;
        let hashed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            password::hash(&password, &salt)
        });
        let hashed = hashed.await.map_err(|error| Refusal::System(error.to_string()))?;
        hashed.ok_or_else(|| Refusal::System("a password cannot be hashed: no memory".to_owned()))
    }
}
