//! Resolves names, and returns only addresses that may be called.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::error::EgressError;
use crate::domain::egress::allow_list::{AllowList, Destination};

/// The addresses of `destination` that may be called. A name that has others too is called at these only.
///
/// # Errors
/// [`EgressError::Refused`] if there is none, with the first that is refused; [`EgressError::Name`].
pub(super) async fn checked(destination: &Destination, allowed: &AllowList) -> Result<Vec<SocketAddr>, EgressError> {
    let (host, port) = (destination.host(), destination.port());
    if let Some(address) = destination.address() {
        destination.check(address, allowed)?;
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| EgressError::Name(host.to_owned(), error))?;
    select(destination, found, allowed)
}

/// Those of `found` that may be called.
pub(super) fn select(
    destination: &Destination,
    found: impl Iterator<Item = SocketAddr>,
    allowed: &AllowList,
) -> Result<Vec<SocketAddr>, EgressError> {
    let (mut open, mut refusal) = (Vec::new(), None);
    for address in found {
        match destination.check(address.ip(), allowed) {
            Ok(()) => open.push(address),
            Err(refused) => refusal = refusal.or(Some(refused)),
        }
    }
    match refusal {
        _ if !open.is_empty() => Ok(open),
        Some(refusal) => Err(refusal.into()),
        None => Err(EgressError::Name(destination.host().to_owned(), std::io::ErrorKind::NotFound.into())),
    }
}

/// The resolver of the HTTP clients for one port: the library asks for a name without its port, and an
/// entry of the list may be for one port only.
pub(super) struct CheckedResolver {
    pub(super) allowed: Arc<AllowList>,
    pub(super) port: u16,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (allowed, destination) = (Arc::clone(&self.allowed), Destination::new(name.as_str(), self.port));
        Box::pin(async move {
            match checked(&destination, &allowed).await {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                // As itself, so that `words` finds it in the chain.
                Err(EgressError::Refused(refusal)) => Err(refusal.into()),
                Err(error) => Err(error.into()),
            }
        })
    }
}
