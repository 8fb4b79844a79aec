//! `signing.key`: the private keys that sign commands, plain or sealed by a passphrase. It is
//! written as a whole, and a file that cannot be read is never replaced.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte_protocol::command::ManagerKey;
use riposte_protocol::key::{SigningKey, VerifyingKey};

use super::keyfiles::{self, SIGNING_KEY};
use super::passphrase::Passphrase;
use super::sealed::{self, Sealed};
use crate::domain::ledger_key::{LEDGER_KEY_BYTES, LedgerKey};
use crate::engine::signer::{KeyStore, NamedKey};

/// What begins the line of the ledger key.
const LEDGER: &str = "ledger ";
/// What a sealed signing key file says that it holds.
const HOLDS: &str = "signing keys";

/// The signing key file of a data directory.
#[derive(Clone, Debug)]
pub(super) struct SigningKeyFile {
    dir: PathBuf,
    passphrase: Option<Passphrase>,
}

/// The content as it is stored.
enum Content {
    Plain(String),
    Sealed(Sealed),
}

impl SigningKeyFile {
    /// The file in `dir`, and the passphrase if it is sealed or is to be.
    pub(super) fn new(dir: &Path, passphrase: Option<&Passphrase>) -> Self {
        Self { dir: dir.to_owned(), passphrase: passphrase.cloned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(SIGNING_KEY)
    }

    fn content(&self) -> anyhow::Result<Option<Content>> {
        let path = self.path();
        let text = match std::fs::metadata(&path) {
            Ok(file) if file.len() > sealed::MAX_BYTES => bail!("{} is too large to be a key", path.display()),
            _ => std::fs::read_to_string(&path),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let sealed = Sealed::parse(&text).with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(Some(sealed.map_or(Content::Plain(text), Content::Sealed)))
    }

    /// The private keys, one a line; `None` without a file.
    fn lines(&self) -> anyhow::Result<Option<String>> {
        let path = self.path();
        let sealed = match self.content()? {
            None => return Ok(None),
            Some(Content::Plain(text)) => {
                if self.passphrase.is_some() {
                    tracing::warn!(
                        "{} is not encrypted, although there is a passphrase for it: stop the manager and run `riposte \
                         signing-key encrypt`",
                        path.display()
                    );
                }
                return Ok(Some(text));
            }
            Some(Content::Sealed(sealed)) => sealed,
        };
        let Some(passphrase) = &self.passphrase else {
            bail!(
                "{} is encrypted: name the file of its passphrase (--key-passphrase-file, \
                 RIPOSTE_KEY_PASSPHRASE_FILE, key_passphrase_file), or pass it as the credential {} of systemd",
                path.display(),
                super::passphrase::CREDENTIAL
            );
        };
        let opened = sealed.open(HOLDS, passphrase);
        let opened = opened.with_context(|| format!("{} cannot be decrypted", path.display()))?;
        let text = String::from_utf8(opened).with_context(|| format!("{} contains no keys", path.display()))?;
        Ok(Some(text))
    }

    /// Reads the keys, or creates the first one.
    ///
    /// # Errors
    /// If the file cannot be read or written, its content is invalid, or the passphrase is wrong or
    /// missing.
    pub(super) fn keys(&self) -> anyhow::Result<Vec<NamedKey>> {
        if let Some(text) = self.lines()? {
            return parse(&self.path(), &text);
        }
        let mut secret = [0_u8; 32];
        getrandom::fill(&mut secret).context("the system's random source failed")?;
        let text = URL_SAFE_NO_PAD.encode(secret);
        self.write(&text)?;
        parse(&self.path(), &text)
    }

    /// Reads the ledger key, or makes it: it stands in the file beside the signing keys, so that it is sealed,
    /// backed up and shared with them.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub(super) fn ledger_key(&self) -> anyhow::Result<LedgerKey> {
        let Some(text) = self.lines()? else { bail!("there is no {}", self.path().display()) };
        if let Some(line) = ledger_line(&text) {
            return parse_ledger_key(line, &self.path());
        }
        let mut bytes = [0; LEDGER_KEY_BYTES];
        getrandom::fill(&mut bytes).context("the system's random source failed")?;
        self.write(&format!("{}\n{LEDGER}{}", text.trim_end(), URL_SAFE_NO_PAD.encode(bytes)))?;
        Ok(LedgerKey::new(bytes))
    }

    /// The ledger key, if the file can be read without a passphrase that was not given, and has one.
    ///
    /// # Errors
    /// If the file cannot be read or opened.
    pub(super) fn known_ledger_key(&self) -> anyhow::Result<Option<LedgerKey>> {
        if self.passphrase.is_none() && self.is_sealed()? != Some(false) {
            return Ok(None);
        }
        let text = self.lines()?;
        text.as_deref().and_then(ledger_line).map(|line| parse_ledger_key(line, &self.path())).transpose()
    }

    /// The public halves, in their order; empty without a file. A sealed file is not opened: its
    /// public keys stand in it.
    ///
    /// # Errors
    /// If the file cannot be read, or its content is invalid.
    pub(super) fn public_keys(&self) -> anyhow::Result<Vec<ManagerKey>> {
        match self.content()? {
            None => Ok(Vec::new()),
            Some(Content::Plain(text)) => Ok(parse(&self.path(), &text)?.iter().map(NamedKey::public).collect()),
            Some(Content::Sealed(sealed)) => clear_keys(&sealed, &self.path()),
        }
    }

    /// Whether the file is sealed; `None` without a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn is_sealed(&self) -> anyhow::Result<Option<bool>> {
        Ok(self.content()?.map(|content| matches!(content, Content::Sealed(_))))
    }

    /// Writes the keys as they are, under `after`: sealed by it, or plain without one.
    ///
    /// # Errors
    /// If the file cannot be read, opened or written, or there is none.
    pub(super) fn rewrite(&self, after: Option<&Passphrase>) -> anyhow::Result<()> {
        let Some(text) = self.lines()? else { bail!("there is no {}", self.path().display()) };
        Self::new(&self.dir, after).write(&text)
    }

    fn write(&self, lines: &str) -> anyhow::Result<()> {
        let path = self.path();
        let public_keys = parse(&path, lines)?.iter().map(|named| named.public().public_key).collect();
        let text = match &self.passphrase {
            None => lines.trim_end().to_owned(),
            Some(passphrase) => {
                Sealed::seal(lines.as_bytes(), HOLDS, public_keys, passphrase).and_then(|sealed| sealed.text())?
            }
        };
        let written = keyfiles::write_secret(&self.dir, SIGNING_KEY, &text);
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

impl KeyStore for SigningKeyFile {
    fn replace(&self, keys: &[SigningKey]) -> Result<(), String> {
        let mut lines: Vec<String> = keys.iter().map(|key| URL_SAFE_NO_PAD.encode(key.seed())).collect();
        let before = self.lines().map_err(|error| format!("{error:#}"))?;
        lines.extend(before.as_deref().and_then(ledger_line).map(|line| format!("{LEDGER}{line}")));
        self.write(&lines.join("\n")).map_err(|error| format!("{error:#}"))
    }
}

/// The public keys that stand in clear in a sealed file.
///
/// # Errors
/// If there are none, or one is invalid.
pub(super) fn clear_keys(sealed: &Sealed, path: &Path) -> anyhow::Result<Vec<ManagerKey>> {
    let key = |text: &String| {
        let key = VerifyingKey::parse(text).with_context(|| format!("{}: public_keys", path.display()))?;
        Ok(ManagerKey { kid: key.kid(), public_key: key.text() })
    };
    let keys: Vec<ManagerKey> = sealed.public_keys().iter().map(key).collect::<anyhow::Result<_>>()?;
    ensure!(!keys.is_empty(), "{}: public_keys names no key", path.display());
    Ok(keys)
}

fn parse_ledger_key(line: &str, path: &Path) -> anyhow::Result<LedgerKey> {
    let bytes = URL_SAFE_NO_PAD.decode(line).ok().and_then(|bytes| <[u8; LEDGER_KEY_BYTES]>::try_from(bytes).ok());
    let bytes = bytes.with_context(|| format!("{}: the ledger key is not 32 bytes in base64url", path.display()))?;
    Ok(LedgerKey::new(bytes))
}

/// The ledger key as it is written.
fn ledger_line(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix(LEDGER))
}

fn parse(path: &Path, text: &str) -> anyhow::Result<Vec<NamedKey>> {
    let mut keys = Vec::new();
    for (number, line) in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(LEDGER)).enumerate()
    {
        let bytes = URL_SAFE_NO_PAD.decode(line).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let Some(bytes) = bytes else {
            bail!("{}: line {} is not a key (32 bytes in base64url)", path.display(), number + 1);
        };
        let key = SigningKey::from_seed(&bytes)
            .with_context(|| format!("{}: line {} cannot be used", path.display(), number + 1))?;
        keys.push(NamedKey { kid: key.verifying_key().kid(), key });
    }
    if keys.is_empty() {
        bail!("{} contains no key", path.display());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::passphrase::CREDENTIAL;

    fn public(file: &SigningKeyFile) -> Vec<ManagerKey> {
        file.keys().unwrap().iter().map(NamedKey::public).collect()
    }

    #[test]
    fn secrets_are_for_their_owner_and_keys_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::parse("correct horse battery").unwrap();
        let (plain, sealed) =
            (SigningKeyFile::new(dir.path(), None), SigningKeyFile::new(dir.path(), Some(&passphrase)));
        let mode = || std::fs::metadata(dir.path().join(SIGNING_KEY)).unwrap().permissions().mode() & 0o777;
        let first = public(&plain);
        assert_eq!((public(&plain), mode()), (first.clone(), 0o600));
        assert_eq!(plain.is_sealed().unwrap(), Some(false));
        let secret = std::fs::read_to_string(dir.path().join(SIGNING_KEY)).unwrap();

        plain.rewrite(Some(&passphrase)).unwrap();
        assert_eq!((public(&sealed), mode()), (first.clone(), 0o600));
        assert_eq!(plain.public_keys().unwrap(), first, "without the passphrase");
        assert!(!std::fs::read_to_string(dir.path().join(SIGNING_KEY)).unwrap().contains(secret.trim()));
        let missing = format!("{:#}", plain.keys().unwrap_err());
        assert!(missing.contains("--key-passphrase-file") && missing.contains(CREDENTIAL), "{missing}");
        let other = Passphrase::parse("another passphrase").unwrap();
        let wrong = format!("{:#}", SigningKeyFile::new(dir.path(), Some(&other)).keys().unwrap_err());
        assert!(wrong.contains("is not the one that it was encrypted with"), "{wrong}");

        sealed.rewrite(None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(SIGNING_KEY)).unwrap(), secret);
    }

    #[test]
    fn a_new_key_is_sealed_if_there_is_a_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::parse("correct horse battery").unwrap();
        let file = SigningKeyFile::new(dir.path(), Some(&passphrase));
        let made = public(&file);
        assert_eq!((file.is_sealed().unwrap(), public(&file)), (Some(true), made));
    }

    #[test]
    fn a_damaged_key_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "AAAA", "{}", "{\"riposte_sealed\": 1}"] {
            std::fs::write(dir.path().join(SIGNING_KEY), text).unwrap();
            assert!(SigningKeyFile::new(dir.path(), None).keys().is_err(), "{text:?}");
            assert_eq!(std::fs::read_to_string(dir.path().join(SIGNING_KEY)).unwrap(), text);
        }
    }
}
