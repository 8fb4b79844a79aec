//! Whom the agent believes to be its manager, below the signatures: the system's authorities, or, if one was given at
//! enrolment, that authority alone.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The given authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of the manager's certificate authority cannot be used: {0}")]
pub struct CaError(String);

/// The settings of a client that believes `ca` alone, in PEM; `None` leaves the choice to the system.
///
/// # Errors
/// When `ca` holds no certificate, or one that cannot be read.
pub fn config(ca: Option<&[u8]>) -> Result<Option<Arc<ClientConfig>>, CaError> {
    let Some(pem) = ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| CaError(error.to_string()))?;
        roots.add(certificate).map_err(|error| CaError(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CaError("it holds no certificate in PEM".into()));
    }
    Ok(Some(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())))
}

/// How the agent names itself to the manager, which learns its version from it.
pub const USER_AGENT: &str = concat!("riposte-agent/", env!("CARGO_PKG_VERSION"));

/// An HTTP client that believes the same, follows no redirects, and has the settings that `with` gives it.
///
/// # Errors
/// When `ca` cannot be read.
pub fn client(
    ca: Option<&[u8]>,
    with: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, reqwest::Error> {
    let builder = || {
        let builder = reqwest::Client::builder().user_agent(USER_AGENT).redirect(reqwest::redirect::Policy::none());
        with(builder)
    };
    match ca {
        Some(pem) => builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?).build(),
        // A system without authorities (a slim container) can still reach a manager on its own loopback.
        None => builder().build().or_else(|_| builder().tls_certs_only([]).build()),
    }
}
