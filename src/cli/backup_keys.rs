//! The keys of a backup: sealed by a passphrase, left out, or in clear. It says which of the three a
//! folder has, and what is missing; `backup.rs` copies the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use riposte_protocol::command::ManagerKey;

use super::keyfiles::{self, ADMIN_KEY, SIGNING_KEY};
use super::passphrase::Passphrase;
use super::sealed::{self, Sealed};
use super::signing_file::{self, SigningKeyFile};

/// File of the sealed keys.
pub(super) const SEALED_KEYS: &str = "keys.sealed";
/// Name of the private key of the manager's certificate, in a backup and after a restore.
pub(super) const TLS_KEY: &str = "tls.key";
/// What a file of sealed keys says that it holds.
const HOLDS: &str = "keys of a backup";

/// What to do with the keys.
#[derive(Debug, Args)]
pub(super) struct BackupKeyArgs {
    /// File of a passphrase that encrypts the keys in the backup; only its owner may read it.
    #[arg(long, env = "RIPOSTE_BACKUP_PASSPHRASE_FILE", value_name = "FILE", conflicts_with = "without_keys")]
    passphrase_file: Option<PathBuf>,
    /// Leave the keys out, and name what is missing.
    #[arg(long)]
    without_keys: bool,
    /// Private key of the manager's certificate, to encrypt with the others.
    #[arg(long, env = "RIPOSTE_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

/// What became of the keys.
#[derive(Debug)]
pub(super) enum BackupKeys {
    /// They are in clear: these files.
    Plain(Vec<&'static str>),
    /// They are sealed: these.
    Sealed(Vec<&'static str>),
    /// They were left out: these, by their paths.
    Missing(Vec<String>),
}

/// Where the keys of a manager are.
struct Sources(Vec<(&'static str, PathBuf)>);

impl Sources {
    fn of(data_dir: &Path, tls_key: &Path) -> Self {
        let mut sources: Vec<_> = [SIGNING_KEY, ADMIN_KEY].map(|name| (name, data_dir.join(name))).into();
        if !tls_key.as_os_str().is_empty() {
            sources.push((TLS_KEY, tls_key.to_owned()));
        }
        sources.retain(|(_, path)| path.is_file());
        Self(sources)
    }

    fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn read(&self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let read = |(name, path): &(&'static str, PathBuf)| {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((*name, text.trim_end().to_owned()))
        };
        self.0.iter().map(read).collect()
    }
}

impl BackupKeyArgs {
    /// Leaves the keys out.
    pub(super) const fn without_keys() -> Self {
        Self { passphrase_file: None, without_keys: true, tls_key: None }
    }

    /// The passphrase, read before anything is written.
    ///
    /// # Errors
    /// As [`Passphrase::read`].
    pub(super) fn passphrase(&self) -> anyhow::Result<Option<Passphrase>> {
        self.passphrase_file.as_deref().map(Passphrase::read).transpose()
    }

    /// Writes the keys of `data_dir` to the backup `to`, in the way that is asked for.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(super) fn copy(
        &self,
        passphrase: Option<&Passphrase>,
        data_dir: &Path,
        tls_key: &Path,
        to: &Path,
    ) -> anyhow::Result<BackupKeys> {
        let sources = Sources::of(data_dir, self.tls_key.as_deref().unwrap_or(tls_key));
        let write = |name: &str, text: &str| {
            keyfiles::write_secret(to, name, text).with_context(|| format!("cannot write {name}"))
        };
        if self.without_keys {
            return Ok(BackupKeys::Missing(sources.0.iter().map(|(_, path)| path.display().to_string()).collect()));
        }
        let Some(passphrase) = passphrase else {
            let mut names = sources.names();
            // The key of the certificate was never in a plain backup.
            names.retain(|name| *name != TLS_KEY);
            let texts = sources.read()?;
            for name in &names {
                write(name, texts.get(name).map_or("", String::as_str))?;
            }
            return Ok(BackupKeys::Plain(names));
        };
        let public_keys = SigningKeyFile::new(data_dir, None).public_keys()?;
        let public_keys = public_keys.into_iter().map(|key| key.public_key).collect();
        let secret = serde_json::to_vec(&sources.read()?)?;
        let sealed = Sealed::seal(&secret, HOLDS, public_keys, passphrase).context("the keys cannot be encrypted")?;
        write(SEALED_KEYS, &sealed.text()?)?;
        Ok(BackupKeys::Sealed(sources.names()))
    }
}

/// The public keys beside a ledger: of `signing.key`, or of the sealed keys of a backup.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn public_keys(dir: &Path) -> anyhow::Result<Vec<ManagerKey>> {
    match read_sealed(dir)? {
        Some(sealed) => signing_file::clear_keys(&sealed, &dir.join(SEALED_KEYS)),
        None => SigningKeyFile::new(dir, None).public_keys(),
    }
}

/// Opens the sealed keys of a backup: texts by file name. `None` if it has none.
///
/// # Errors
/// If there are some and the passphrase is missing or wrong.
pub(super) fn open(from: &Path, passphrase_file: Option<&Path>) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let path = from.join(SEALED_KEYS);
    let Some(sealed) = read_sealed(from)? else {
        if passphrase_file.is_some() {
            bail!("the backup {} has no encrypted keys: leave --passphrase-file out", from.display());
        }
        return Ok(None);
    };
    let Some(passphrase_file) = passphrase_file else {
        bail!("the keys of this backup are encrypted: name the file of its passphrase with --passphrase-file");
    };
    let opened = sealed.open(HOLDS, &Passphrase::read(passphrase_file)?);
    let opened = opened.with_context(|| format!("{} cannot be decrypted", path.display()))?;
    let texts: BTreeMap<String, String> =
        serde_json::from_slice(&opened).with_context(|| format!("{} holds no keys", path.display()))?;
    for name in texts.keys() {
        ensure!([SIGNING_KEY, ADMIN_KEY, TLS_KEY].contains(&name.as_str()), "{name} is not a key of a backup");
    }
    Ok(Some(texts))
}

fn read_sealed(dir: &Path) -> anyhow::Result<Option<Sealed>> {
    let path = dir.join(SEALED_KEYS);
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        Ok(file) => ensure!(file.len() <= sealed::MAX_BYTES, "{} is too large", path.display()),
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let sealed = Sealed::parse(&text).with_context(|| format!("{} cannot be used", path.display()))?;
    sealed.with_context(|| format!("{} is not encrypted", path.display())).map(Some)
}
