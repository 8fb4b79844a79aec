//! TLS of the listener: the certificate and its key from files, read again when they change.
//! Connections that are open stay as they are; new ones get the new certificate.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use riposte_protocol::time::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::Clock;
use crate::config::Server;
use crate::domain::client_certificate::{ClientCertificate, Fingerprint};

/// Name of HTTP/2 in the handshake.
pub(super) const H2: &[u8] = b"h2";
/// Interval between lines in the log about a certificate that ends.
const WARN_EVERY: Duration = Duration::from_hours(24);
/// Interval between looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Remaining validity below which the log warns.
const WARN_BEFORE: Duration = Duration::from_hours(14 * 24);

/// Why the files cannot be used. Each names its file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The key belongs to another certificate.
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    Mismatch {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
}

/// Paths of the files, all in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those that it is signed with.
    certificate: PathBuf,
    /// Its private key.
    key: PathBuf,
    /// Authorities of clients' certificates; none: clients are not asked for one.
    client_ca: Option<PathBuf>,
    /// Whether agents and pipelines may come without a certificate.
    is_optional: bool,
}

impl TlsFiles {
    /// The files of the configuration; `None` if it has none.
    pub fn of(server: &Server) -> Option<Self> {
        let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let client_ca = given(&server.tls_client_ca);
        let is_optional = server.tls_client_optional;
        Some(Self { certificate: given(&server.tls_cert)?, key: given(&server.tls_key)?, client_ca, is_optional })
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| std::fs::metadata(path).ok().map(|file| Stamp::of(&file)))
            .collect()
    }

    /// Reads and checks the files.
    fn load(&self, now: Timestamp) -> Result<Loaded, TlsError> {
        let Self { certificate, key, client_ca, .. } = self;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(certificate)?;
        let not_after = validity(certificate, &chain, now)?;
        let authority = chain.last().filter(|last| is_private_authority(last)).map(|last| Sha256::digest(last).into());
        let certified = CertifiedKey::new(chain, signing_key(key, &provider)?);
        match certified.keys_match() {
            // Unknown: rustls cannot read the key's public half; the handshake would tell.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(TlsError::Mismatch { certificate: certificate.clone(), key: key.clone() }),
        }
        let content = |path: &Path, error: &dyn std::fmt::Display| TlsError::Content {
            path: path.into(),
            message: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| content(certificate, &error))?;
        let mut clients: Option<Arc<dyn ClientCertVerifier>> = None;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|error| content(path, &error))?;
                }
                // People come without one: the callers that need one are refused later.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.allow_unauthenticated().build().map_err(|error| content(path, &error))?;
                clients = Some(Arc::clone(&verifier));
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Ok(Loaded { config: Arc::new(config), not_after, authority, clients })
    }
}

/// What tells whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), size: file.len(), changed: (file.mtime(), file.mtime_nsec()) }
    }
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    not_after: Timestamp,
    /// SHA-256 of the last certificate of the file, if it is an authority that signed itself.
    authority: Option<[u8; 32]>,
    /// Checks clients' certificates, if they are asked for one.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// The certificate in use.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
    /// Why the files as they are now cannot be used.
    fault: Mutex<Option<String>>,
    clock: Clock,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn load(files: TlsFiles, clock: Clock) -> Result<Self, TlsError> {
        let loaded = files.load(clock.now())?;
        warn_of_end(&files.certificate, loaded.not_after, clock.now());
        Ok(Self { files, current: ArcSwap::from_pointee(loaded), fault: Mutex::default(), clock })
    }

    /// The acceptor for the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// SHA-256 of the authority that agents pin; `None` if the file does not end with one, as that
    /// of a public authority, which agents know from their system.
    pub fn private_authority(&self) -> Option<[u8; 32]> {
        self.current.load().authority
    }

    /// Whether agents and pipelines must show a certificate.
    pub fn wants_client_certificates(&self) -> bool {
        self.files.client_ca.is_some() && !self.files.is_optional
    }

    /// Reads a client's certificate, and those that it is signed with, and checks it as the handshake will.
    ///
    /// # Errors
    /// Why the handshake would refuse it, in a sentence.
    pub fn client_certificate(&self, text: &str) -> Result<ClientCertificate, String> {
        let clients = self.current.load().clients.clone().ok_or("needs tls_client_ca, the authority of clients")?;
        let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, pem::Error>>();
        let chain = chain.map_err(|error| format!("is not PEM: {error}"))?;
        let [certificate, above @ ..] = chain.as_slice() else {
            return Err("holds no certificate in PEM".into());
        };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| format!("cannot be read: {error}"))?;
        let not_after = parsed.validity().not_after.timestamp();
        let now = UnixTime::since_unix_epoch(Duration::from_millis(self.clock.now().as_millis().unsigned_abs()));
        let checked = clients.verify_client_cert(certificate, above, now);
        checked.map_err(|error| format!("would be refused: {error}"))?;
        let not_after = Timestamp::from_millis(not_after.saturating_mul(1000));
        Ok(ClientCertificate { fingerprint: Fingerprint::of(certificate), not_after })
    }

    /// Why the files as they are now cannot be used, or that the certificate in use has expired.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_ended = self.current.load().not_after <= self.clock.now();
        let ended =
            || has_ended.then(|| format!("the certificate in {} has expired", self.files.certificate.display()));
        fault.or_else(ended)
    }

    /// Reads the files again whenever they change. Files that cannot be used leave the certificate
    /// as it is.
    pub async fn watch(&self) {
        let mut seen = self.files.stamps();
        let mut warned_at = self.clock.now();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.clock.now();
            let end = self.current.load().not_after;
            let has_just_ended = warned_at < end && end <= now;
            if has_just_ended || now.since(warned_at) >= WARN_EVERY {
                warn_of_end(&self.files.certificate, end, now);
                warned_at = now;
            }
            let stamps = self.files.stamps();
            if stamps == seen {
                continue;
            }
            seen = stamps;
            self.reload();
        }
    }

    /// Reads the files again.
    fn reload(&self) {
        let fault = match self.files.load(self.clock.now()) {
            Ok(loaded) => {
                tracing::info!("the certificate in {} is in use for new connections", self.files.certificate.display());
                warn_of_end(&self.files.certificate, loaded.not_after, self.clock.now());
                self.current.store(Arc::new(loaded));
                None
            }
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::from(error));
                tracing::error!("the changed TLS files are not used, the certificate before stays: {why}");
                Some(format!("the changed TLS files are not used: {why}"))
            }
        };
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |message: String| TlsError::Content { path: path.into(), message };
    let chain = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, pem::Error>>();
    let chain = chain.map_err(|error| content(format!("not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(content("holds no certificate in PEM".into()));
    }
    Ok(chain)
}

fn signing_key(path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn rustls::sign::SigningKey>, TlsError> {
    let content = |message: String| TlsError::Content { path: path.into(), message };
    let key = PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => content("holds no private key in PEM".into()),
        error => content(format!("not PEM: {error}")),
    })?;
    provider.key_provider.load_private_key(key).map_err(|error| content(format!("the key cannot be used: {error}")))
}

/// Checks the period of every certificate; returns the end of the first one's.
fn validity(path: &Path, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Timestamp, TlsError> {
    let content = |message: String| TlsError::Content { path: path.into(), message };
    let mut ends = Vec::with_capacity(chain.len());
    for (index, der) in chain.iter().enumerate() {
        let number = index + 1;
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| content(format!("certificate {number} cannot be read: {error}")))?;
        let period = certificate.validity();
        let begin = Timestamp::from_millis(period.not_before.timestamp().saturating_mul(1000));
        let end = Timestamp::from_millis(period.not_after.timestamp().saturating_mul(1000));
        if end <= now {
            return Err(content(format!("certificate {number} expired at {end}")));
        }
        if begin > now {
            return Err(content(format!("certificate {number} is not valid before {begin}")));
        }
        ends.push(end);
    }
    Ok(ends[0])
}

fn is_private_authority(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| certificate.is_ca() && certificate.subject() == certificate.issuer())
}

fn warn_of_end(path: &Path, end: Timestamp, now: Timestamp) {
    let (path, left) = (path.display(), end.since(now));
    if end <= now {
        tracing::error!("the certificate in {path} expired at {end}: clients refuse it; renew it");
    } else if left < WARN_BEFORE {
        let days = left.as_secs() / 86_400;
        tracing::warn!("the certificate in {path} expires in {days} days, at {end}: renew it");
    }
}
