//! The providers that are configured, and the logins that are under way at them.

use std::time::Duration;

use super::provider::Provider;
use super::tickets::Tickets;
use crate::engine::refusal::{Refusal, UseCase};

/// How long a person may take at the provider.
const LOGIN: Duration = Duration::from_mins(10);
/// How long a login code is good.
const CODE: Duration = Duration::from_mins(1);

/// A login that was begun, until the provider sends the person back.
#[derive(Clone)]
pub struct PendingLogin {
    /// Name of the provider.
    pub provider: String,
    /// In the ID token of this login.
    pub nonce: String,
    /// Verifier of the challenge that the provider got.
    pub verifier: String,
    /// Hash of the cookie of the browser.
    pub browser: Vec<u8>,
    /// Where the program listens that the person logs in with.
    pub redirect_uri: String,
    /// That program's challenge.
    pub challenge: String,
}

/// A login that the provider has proven, until the program exchanges its code for a session.
#[derive(Clone)]
pub struct ProvenLogin {
    /// The user.
    pub user: String,
    /// Issuer of the provider.
    pub issuer: String,
    /// The program's challenge.
    pub challenge: String,
}

/// The configured providers, and the logins at them.
#[derive(Debug)]
pub struct Providers {
    base: String,
    all: Vec<Provider>,
    /// Logins that were begun; the ticket is the `state`.
    pub begun: Tickets<PendingLogin>,
    /// Logins that are proven; the ticket is the login code.
    pub proven: Tickets<ProvenLogin>,
}

impl Providers {
    /// `base` is the URL of this manager for browsers.
    pub fn new(base: &str, all: Vec<Provider>) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { base, all, begun: Tickets::new(LOGIN), proven: Tickets::new(CODE) }
    }

    /// The names of all providers.
    pub fn names(&self) -> Vec<String> {
        self.all.iter().map(|provider| provider.settings.name.clone()).collect()
    }

    /// The provider called `name`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn named(&self, name: &str) -> UseCase<&Provider> {
        let found = self.all.iter().find(|provider| provider.settings.name == name);
        found.ok_or_else(|| Refusal::NotFound(format!("no OpenID provider is called {name:?}")))
    }

    /// The provider with this issuer.
    pub fn of_issuer(&self, issuer: &str) -> Option<&Provider> {
        self.all.iter().find(|provider| provider.settings.issuer == issuer)
    }

    /// Where the provider called `name` sends people back to.
    pub fn callback(&self, name: &str) -> String {
        format!("{}/v1/auth/oidc/{name}/callback", self.base)
    }

    /// Where the console's own logins come back to.
    pub fn console(&self) -> String {
        format!("{}/login/return", self.base)
    }

    /// Whether browsers reach this manager by TLS.
    pub fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }
}
