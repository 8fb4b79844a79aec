//! The rules for calls, from which clients and addresses for calls come.

use std::net::SocketAddr;
use std::sync::Arc;

use super::client::{ClientSettings, EgressClient};
use super::error::EgressError;
use super::resolver;
use crate::domain::egress::allow_list::{AllowList, Destination};

/// The rules for calls of this manager.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    allowed: Arc<AllowList>,
}

impl Egress {
    /// Rules with what the configuration lists.
    pub fn new(allowed: AllowList) -> Self {
        Self { allowed: Arc::new(allowed) }
    }

    /// These rules, and one more host that an administrator has written into the configuration, such as
    /// the receiver of checkpoints.
    #[must_use]
    pub fn with(&self, destination: &Destination) -> Self {
        Self::new(self.allowed.with(destination))
    }

    /// An HTTP client under these rules.
    ///
    /// # Errors
    /// [`EgressError::Client`].
    pub fn client(&self, settings: ClientSettings) -> Result<EgressClient, EgressError> {
        EgressClient::new(&self.allowed, settings)
    }

    /// Whether a destination may be called, as far as that shows without its name resolved.
    ///
    /// # Errors
    /// [`EgressError::Refused`].
    pub fn allows(&self, destination: &Destination) -> Result<(), EgressError> {
        destination.address().map_or(Ok(()), |address| Ok(destination.check(address, &self.allowed)?))
    }

    /// The addresses of `destination` to which a socket may be connected, for calls that are not HTTP.
    ///
    /// # Errors
    /// [`EgressError::Refused`] or [`EgressError::Name`].
    pub async fn connectable(&self, destination: &Destination) -> Result<Vec<SocketAddr>, EgressError> {
        resolver::checked(destination, &self.allowed).await
    }
}
