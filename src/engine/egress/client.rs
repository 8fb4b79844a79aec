//! The HTTP client of the manager.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, RequestBuilder, Url};

use super::error::EgressError;
use super::resolver::CheckedResolver;
use crate::domain::egress::allow_list::{AllowList, Destination};

/// Ports for which a client is kept at a time. Beyond it all are dropped, with their idle connections.
const MAX_PORTS: usize = 16;

/// What one purpose asks of its client.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Authorities that are trusted instead of the system's; empty: the system's.
    pub authorities: Vec<Certificate>,
    /// Whether plain HTTP is allowed.
    pub is_plain: bool,
    /// A URL whose host an administrator has written into the configuration for this purpose: it
    /// counts as listed.
    pub listed: Option<Url>,
    /// Time limit of a request with its response.
    pub timeout: Duration,
    /// Time limit for connecting.
    pub connect_timeout: Duration,
}

/// An HTTP client that calls only allowed addresses. Clones share their connections.
#[derive(Clone)]
pub struct EgressClient {
    allowed: Arc<AllowList>,
    settings: Arc<ClientSettings>,
    /// By port: see [`CheckedResolver`].
    by_port: Arc<Mutex<BTreeMap<u16, reqwest::Client>>>,
}

impl fmt::Debug for EgressClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl EgressClient {
    pub(super) fn new(allowed: &Arc<AllowList>, settings: ClientSettings) -> Result<Self, EgressError> {
        let listed = settings.listed.as_ref().map(destination).transpose()?;
        let allowed = listed.as_ref().map_or_else(|| Arc::clone(allowed), |listed| Arc::new(allowed.with(listed)));
        let client = Self { allowed, settings: Arc::new(settings), by_port: Arc::default() };
        // At the start, so that a system without authorities says so there.
        client.for_port(listed.map_or(443, |listed| listed.port()))?;
        Ok(client)
    }

    /// A request to `url`. A name in it is resolved and checked when the request connects; an address is
    /// checked now.
    ///
    /// # Errors
    /// [`EgressError`].
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, EgressError> {
        let destination = destination(url)?;
        if let Some(address) = destination.address() {
            destination.check(address, &self.allowed)?;
        }
        Ok(self.for_port(destination.port())?.request(method, url.clone()))
    }

    fn for_port(&self, port: u16) -> Result<reqwest::Client, EgressError> {
        let mut by_port = self.by_port.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = by_port.get(&port) {
            return Ok(client.clone());
        }
        let client = self.build(port).map_err(EgressError::Client)?;
        if by_port.len() >= MAX_PORTS {
            by_port.clear();
        }
        by_port.insert(port, client.clone());
        Ok(client)
    }

    fn build(&self, port: u16) -> Result<reqwest::Client, reqwest::Error> {
        let ClientSettings { authorities, is_plain, timeout, connect_timeout, .. } = self.settings.as_ref();
        let builder = || {
            let resolver = CheckedResolver { allowed: Arc::clone(&self.allowed), port };
            let builder = reqwest::Client::builder().redirect(Policy::none()).no_proxy().dns_resolver(resolver);
            builder.https_only(!is_plain).timeout(*timeout).connect_timeout(*connect_timeout)
        };
        if !authorities.is_empty() {
            builder().tls_certs_only(authorities.clone()).build()
        } else if *is_plain {
            // A host that is called by plain HTTP can be reached on a system without authorities.
            builder().build().or_else(|_| builder().tls_certs_only([]).build())
        } else {
            builder().build()
        }
    }
}

fn destination(url: &Url) -> Result<Destination, EgressError> {
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(Destination::new(host, port)),
        // Without path and query, which may hold a secret.
        _ => Err(EgressError::NoHost(format!("{}:", url.scheme()))),
    }
}
