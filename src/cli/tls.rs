//! `riposte tls`: a certificate for a first day, of an authority that only this site knows.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::ServerName;

use super::output::say;

/// Validity of the authority, in days.
const AUTHORITY_DAYS: i64 = 3650;
/// Validity of the manager's certificate, in days: what clients accept of public ones.
const CERTIFICATE_DAYS: i64 = 397;
/// How far back both begin, in hours: clients' clocks may be slow.
const BEGINS_HOURS_AGO: i64 = 24;
const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Certificates.
#[derive(Debug, Subcommand)]
pub(super) enum TlsCommand {
    /// Make a certificate for the manager, and the authority that signs it; with an authority in
    /// the folder, only the certificate is renewed.
    SelfSigned {
        /// Name or address under which agents and people reach the manager; may be repeated.
        #[arg(long = "name", required = true, value_name = "HOST")]
        names: Vec<String>,
        /// Folder of the files.
        #[arg(long, default_value = "tls", value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Runs one of them.
///
/// # Errors
/// If a file cannot be read or written, or a name is none.
pub(super) fn run(command: TlsCommand) -> anyhow::Result<ExitCode> {
    let TlsCommand::SelfSigned { names, dir } = command;
    self_signed(names, &dir)
}

/// `riposte tls self-signed`
fn self_signed(names: Vec<String>, dir: &Path) -> anyhow::Result<ExitCode> {
    for name in &names {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        ensure!(
            ServerName::try_from(plain).is_ok(),
            "{name:?} is neither a host name nor an address: write it without scheme, port and path"
        );
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let at = |name: &str| dir.join(name);
    let (has_certificate, has_key) = (at(AUTHORITY).exists(), at(AUTHORITY_KEY).exists());
    ensure!(has_certificate == has_key, "{} holds only one of {AUTHORITY} and {AUTHORITY_KEY}", dir.display());
    let is_renewal = has_certificate;
    let (issuer, authority) = if is_renewal {
        let pem = read(&at(AUTHORITY))?;
        let key = KeyPair::from_pem(&read(&at(AUTHORITY_KEY))?).context("the authority's key cannot be used")?;
        (Issuer::from_ca_cert_pem(&pem, key).context("the authority's certificate cannot be used")?, pem)
    } else {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = params(AUTHORITY_DAYS, "Riposte authority of this site", vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("cannot make the authority's certificate")?;
        write(&at(AUTHORITY_KEY), &key.serialize_pem(), 0o600)?;
        write(&at(AUTHORITY), &certificate.pem(), 0o644)?;
        (Issuer::new(params, key), certificate.pem())
    };
    let first = names.first().cloned().unwrap_or_default();
    let mut params = params(CERTIFICATE_DAYS, &first, names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params.signed_by(&key, &issuer).context("cannot make the certificate")?;
    // The key first: a manager that looks in between keeps the pair that it has.
    write(&at(KEY), &key.serialize_pem(), 0o600)?;
    // With the authority behind it, so that enrolment tokens can name it.
    write(&at(CERTIFICATE), &format!("{}{authority}", certificate.pem()), 0o644)?;
    say(&format!("{} {}", if is_renewal { "Renewed" } else { "Made" }, at(CERTIFICATE).display()));
    if is_renewal {
        say("A running manager takes it for new connections within seconds.");
    } else {
        let (certificate, key) = (at(CERTIFICATE).display().to_string(), at(KEY).display().to_string());
        say(&format!("Serve with it:   riposte serve --tls-cert {certificate} --tls-key {key}"));
        let host = if first.contains(':') { format!("[{first}]") } else { first };
        say(&format!("Commands use:    --ca {} --manager https://{host}:8480", at(AUTHORITY).display()));
        say("Agents need nothing: an enrolment token names this authority.");
        say(&format!("Keep {} away from the manager: its holder can pose as it.", at(AUTHORITY_KEY).display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn params(days: i64, name: &str, names: Vec<String>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("a name is no host name and no address")?;
    let now = rcgen_now()?;
    params.not_before = now - time::Duration::hours(BEGINS_HOURS_AGO);
    params.not_after = now + time::Duration::days(days);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// The system's time, in the type of rcgen.
fn rcgen_now() -> anyhow::Result<time::OffsetDateTime> {
    let now = crate::clock::Clock::system().now();
    time::OffsetDateTime::from_unix_timestamp(now.as_secs()).context("the system's time is not a time")
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Replaces a file as a whole, so that a manager never reads half of one.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        // A remainder of an attempt that was cut off could have another mode.
        if let Err(error) = std::fs::remove_file(&fresh)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        // A renewal keeps the owner: the packaged service reads its key under an account of its own.
        if rustix::process::geteuid().is_root()
            && let Ok(before) = std::fs::metadata(path)
        {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
