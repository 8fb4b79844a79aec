//! Which certificates the agent accepts as its manager's: those of the system's authorities or, if
//! one was given or named at enrolment, of that authority alone; and which one it shows itself.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// What the agent's connections trust and show.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The authority of the manager's certificate, in PEM; `None`: the system's authorities.
    pub ca: Option<Vec<u8>>,
    /// The agent's own certificate and its key, in PEM, for a manager that asks for one.
    pub client: Option<Vec<u8>>,
}

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// That of the manager's authority.
    #[error("the file of the manager's certificate authority cannot be used: {0}")]
    Authority(String),
    /// The agent's own.
    #[error("the file of the agent's certificate and its key cannot be used: {0}")]
    Client(String),
}

/// TLS settings of the stream; `None`: trust the system's authorities, and show nothing.
///
/// # Errors
/// If a file holds no certificate, or one that cannot be used.
pub fn config(trust: &Trust) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    if trust.ca.is_none() && trust.client.is_none() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match &trust.ca {
        Some(pem) => {
            let authority = |error: &dyn std::fmt::Display| TlsError::Authority(error.to_string());
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| authority(&error))?;
                roots.add(certificate).map_err(|error| authority(&error))?;
            }
            if roots.is_empty() {
                return Err(authority(&"it holds no certificate in PEM"));
            }
        }
        // Authorities of the system that cannot be read certify nobody, so they can be left out.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match &trust.client {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let client = |error: &dyn std::fmt::Display| TlsError::Client(error.to_string());
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| client(&error))?;
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| client(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| client(&error))?
        }
    };
    Ok(Some(Arc::new(config)))
}

/// The agent's name in its requests; the manager reads the agent's version from it.
pub const USER_AGENT: &str = concat!("riposte-agent/", env!("CARGO_PKG_VERSION"));

/// An HTTP client with the trust of [`config`] and the settings of `with`, which follows no
/// redirects.
///
/// # Errors
/// When a certificate cannot be used.
pub fn client(
    trust: &Trust,
    with: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, reqwest::Error> {
    let own = trust.client.as_deref().map(reqwest::Identity::from_pem).transpose()?;
    let builder = || {
        let builder = reqwest::Client::builder().user_agent(USER_AGENT).redirect(reqwest::redirect::Policy::none());
        with(match own.clone() {
            Some(own) => builder.identity(own),
            None => builder,
        })
    };
    match &trust.ca {
        Some(pem) => builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?).build(),
        // A system without authorities (a slim container) can still reach a manager on its own
        // loopback address.
        None => builder().build().or_else(|_| builder().tls_certs_only([]).build()),
    }
}
