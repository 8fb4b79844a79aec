//! Which certificates the agent accepts as its manager's: those of the system's authorities or, if
//! one was given at enrolment, of that authority alone.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The certificate authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of the manager's certificate authority cannot be used: {0}")]
pub struct CaError(String);

/// TLS settings that trust `ca` alone, in PEM; `None` trusts the system's authorities.
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

/// The agent's name in its requests; the manager reads the agent's version from it.
pub const USER_AGENT: &str = concat!("riposte-agent/", env!("CARGO_PKG_VERSION"));

/// An HTTP client with the trust of [`config`] and the settings of `with`, which follows no
/// redirects.
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
        // A system without authorities (a slim container) can still reach a manager on its own
        // loopback address.
        None => builder().build().or_else(|_| builder().tls_certs_only([]).build()),
    }
}
