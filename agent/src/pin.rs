//! The first contact with a manager whose authority is known by its SHA-256 only, from the
//! enrolment token: one TLS handshake that sends nothing, to get the authority's certificate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time limit for the connection and the handshake.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why the authority was not found.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The manager cannot be reached.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why not.
        why: String,
    },
    /// The certificate at this address is of another authority.
    #[error(
        "{0} is not the manager that made this token: its certificate is of another authority. Nothing was sent. \
         Another program may stand between; ask who gave you the token"
    )]
    OtherAuthority(String),
}

/// Returns the certificate, in PEM, that `url` shows and whose SHA-256 is `authority`. Whether it
/// has signed the manager's certificate is checked by the connections that follow.
///
/// # Errors
/// [`AuthorityError`].
pub async fn authority(url: &str, authority: [u8; 32]) -> Result<Vec<u8>, AuthorityError> {
    let unreachable =
        |why: &dyn std::fmt::Display| AuthorityError::Unreachable { url: url.into(), why: why.to_string() };
    let parsed = Url::parse(url).map_err(|error| unreachable(&error))?;
    let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = parsed.port_or_known_default().unwrap_or(443);
    let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let shown = Arc::new(Collector { provider: Arc::clone(&provider), chain: Mutex::default() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let handshake = async {
        let socket = TcpStream::connect((host.as_str(), port)).await?;
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    };
    // The connection is dropped as it is: nothing was sent on it, and nothing that it says counts.
    match tokio::time::timeout(TIMEOUT, handshake).await {
        Ok(Err(error)) if shown.chain.lock().unwrap_or_else(PoisonError::into_inner).is_empty() => {
            return Err(unreachable(&error));
        }
        // A manager that asks for a client's certificate may end the handshake after it has shown its own.
        Ok(_) => {}
        Err(_) => return Err(unreachable(&format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
    let chain = shown.chain.lock().unwrap_or_else(PoisonError::into_inner);
    let found = chain.iter().find(|certificate| Sha256::digest(certificate)[..] == authority);
    let found = found.ok_or_else(|| AuthorityError::OtherAuthority(url.into()))?;
    Ok(pem(found))
}

fn pem(certificate: &CertificateDer<'_>) -> Vec<u8> {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| [line, b"\n"].concat());
    let body = lines.collect::<Vec<_>>().concat();
    [b"-----BEGIN CERTIFICATE-----\n".as_slice(), &body, b"-----END CERTIFICATE-----\n"].concat()
}

/// Accepts every certificate, to look at it. Only for a connection on which nothing is sent.
#[derive(Debug)]
struct Collector {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Collector {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates);
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = all.map(|one| one.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
