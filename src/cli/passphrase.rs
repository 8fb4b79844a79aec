//! The passphrase that seals keys: from a file, or a credential of systemd. It is never an argument
//! or an environment variable, which other programs can read.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::keyfiles;

/// Name of the credential (`LoadCredential=`) that is used without `key_passphrase_file`.
pub(super) const CREDENTIAL: &str = "riposte-key-passphrase";
/// Fewest characters: argon2id slows guessing down, and cannot make a short word a long one.
const MIN_CHARS: usize = 12;
/// Largest file, in bytes.
const MAX_BYTES: u64 = 1024;

/// A passphrase.
#[derive(Clone)]
pub(super) struct Passphrase(String);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase([redacted])")
    }
}

impl Passphrase {
    /// Parses the content of a file; a line break at its end does not count.
    ///
    /// # Errors
    /// If it is too short, or has more than one line.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        ensure!(!text.contains(['\n', '\r', '\0']), "a passphrase is one line of text");
        let count = text.chars().count();
        ensure!(count >= MIN_CHARS, "a passphrase has at least {MIN_CHARS} characters, and this one has {count}");
        Ok(Self(text.to_owned()))
    }

    /// Reads a file that only its owner can read.
    ///
    /// # Errors
    /// What is wrong with the file, and the remedy.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let cannot = || format!("cannot read the passphrase file {shown}");
        let file = File::open(path).with_context(cannot)?;
        let about = file.metadata().with_context(cannot)?;
        ensure!(!about.is_dir(), "the passphrase file {shown} is a directory");
        check_private(path, &about)?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).with_context(cannot)?;
        ensure!(text.len() as u64 <= MAX_BYTES, "the passphrase file {shown} has more than {MAX_BYTES} bytes");
        let Ok(text) = String::from_utf8(text) else { bail!("the passphrase file {shown} is not text in UTF-8") };
        Self::parse(&text).with_context(|| format!("the passphrase file {shown}"))
    }

    /// Reads the file of `key_passphrase_file`; if that is empty, the credential. `None` without
    /// either.
    ///
    /// # Errors
    /// As [`Passphrase::read`].
    pub(super) fn of(key_passphrase_file: &Path) -> anyhow::Result<Option<Self>> {
        if !key_passphrase_file.as_os_str().is_empty() {
            return Self::read(key_passphrase_file).map(Some);
        }
        match keyfiles::credentials().map(|folder| folder.join(CREDENTIAL)) {
            Some(path) if path.exists() => Self::read(&path).map(Some),
            _ => Ok(None),
        }
    }

    /// Its bytes.
    pub(super) const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn check_private(path: &Path, file: &std::fs::Metadata) -> anyhow::Result<()> {
    if let Some(exposed) = keyfiles::exposed(path, file) {
        bail!("{exposed}; it opens the keys, so choose another passphrase if it may have been read");
    }
    if keyfiles::credentials().is_some_and(|folder| path.starts_with(folder)) {
        return Ok(());
    }
    keyfiles::check_owner(path, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, content: &[u8], mode: u32) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_passphrase_is_one_line_of_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for content in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            write(&path, content.as_bytes(), 0o600);
            assert_eq!(Passphrase::read(&path).unwrap().as_bytes(), b"correct horse");
        }
        let long = "x".repeat(1025);
        for (content, mode, said) in [
            (b"correct horse".as_slice(), 0o644, "chmod 600"),
            (b"correct horse", 0o640, "chmod 600"),
            (b"short", 0o600, "at least 12 characters"),
            (b"\n", 0o600, "at least 12 characters"),
            (b"correct horse\nbattery", 0o600, "one line"),
            (b"correct horse \xff", 0o600, "UTF-8"),
            (long.as_bytes(), 0o600, "more than 1024 bytes"),
        ] {
            write(&path, content, mode);
            let refused = format!("{:#}", Passphrase::read(&path).unwrap_err());
            assert!(refused.contains(said) && refused.contains("passphrase"), "{refused}");
        }
        assert!(!format!("{:?}", Passphrase::parse("correct horse").unwrap()).contains("horse"));
    }
}
