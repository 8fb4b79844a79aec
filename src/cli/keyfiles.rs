//! Secret files of the data directory: created with mode 0600, and replaced atomically, so a crash
//! never leaves a partial file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
/// File name of the first API key.
pub const ADMIN_KEY: &str = "admin.key";
/// File name of the signing keys (`signing_file.rs`), one per line in base64url; the first one signs.
pub const SIGNING_KEY: &str = "signing.key";
/// File that locks a data directory.
pub(super) const LOCK: &str = "lock";
/// Variable with the folder of the credentials that systemd passes to a service.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Creates the directory if needed, accessible only to its owner.
///
/// # Errors
/// If it cannot be created.
pub fn make_data_dir(dir: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the data directory {}", dir.display()))
}

/// Locks the directory for this process, until the file is dropped or the process ends.
///
/// # Errors
/// If another manager holds the lock.
pub fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another manager is running on {}", dir.display());
    }
    Ok(file)
}

/// Locks the ledger's file, if SQLite, because two data directories can name the same file.
///
/// # Errors
/// If another manager holds the lock.
pub fn lock_ledger(database: &str) -> anyhow::Result<Option<File>> {
    let Some(path) = database.strip_prefix("sqlite:") else { return Ok(None) };
    // Resolve links: another path may name the same file.
    let path = std::fs::canonicalize(path).with_context(|| format!("cannot open {path}"))?;
    let lock = path.with_added_extension("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock);
    let file = file.with_context(|| format!("cannot open {}", lock.display()))?;
    if file.try_lock().is_err() {
        bail!("another manager is running on the ledger {}", path.display());
    }
    Ok(Some(file))
}

/// Restricts the ledger's file, if SQLite, to its owner; SQLite copies the mode to its side files.
///
/// # Errors
/// If it can be neither opened nor created.
pub fn keep_private(database: &str) -> anyhow::Result<()> {
    let Some(path) = database.strip_prefix("sqlite:") else { return Ok(()) };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("cannot open {path}"))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).with_context(|| format!("cannot protect {path}"))
}

/// Writes a secret to `dir`/`name`.
///
/// # Errors
/// If it cannot be made durable.
pub fn write_secret(dir: &Path, name: &str, secret: &str) -> io::Result<()> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}.new")));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    // The mode above applies only to a new file; a file left by a crash may have another.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    File::open(dir)?.sync_all()
}

/// Checks that only the owner can read the secrets of the data directory, or replace them.
///
/// # Errors
/// What is exposed, and how to fix it.
pub fn check_private(dir: &Path) -> anyhow::Result<()> {
    let of_dir = std::fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    check_owner(dir, &of_dir)?;
    if of_dir.mode() & 0o022 != 0 {
        let (path, mode) = (dir.display(), of_dir.mode() & 0o7777);
        bail!(
            "{path} has the mode {mode:04o}, so that other accounts can replace the keys in it: run `chmod 700 {path}`"
        );
    }
    for name in [SIGNING_KEY, ADMIN_KEY] {
        let path = dir.join(name);
        match std::fs::metadata(&path) {
            Ok(file) => {
                check_owner(&path, &file)?;
                if let Some(exposed) = exposed(&path, &file) {
                    bail!("{exposed}; rotate the key if it may have been read (docs/security.md, Rotating)");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }
    Ok(())
}

/// Reads a secret that another program made, such as a client secret.
///
/// # Errors
/// If it cannot be read, is empty, or other accounts can read it or own it.
pub fn read_secret(path: &Path) -> anyhow::Result<String> {
    let file = std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    check_owner(path, &file)?;
    if let Some(exposed) = exposed(path, &file) {
        bail!("{exposed}; make a new secret if it may have been read");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(secret.to_owned())
}

/// Why other users can read a secret file, and the remedy; `None` if they cannot.
pub fn exposed(path: &Path, file: &std::fs::Metadata) -> Option<String> {
    // systemd gives a service its credentials by an access list, which the mode shows as the
    // group's: only others are looked at there.
    let of_others = if credentials().is_some_and(|folder| path.starts_with(folder)) { 0o007 } else { 0o077 };
    let (path, mode) = (path.display(), file.mode() & 0o7777);
    (mode & of_others != 0).then(|| {
        format!("{path} has the mode {mode:04o}, so that other accounts have access to it: run `chmod 600 {path}`")
    })
}

/// Folder of the credentials that systemd passes to this service, if it has some.
pub(super) fn credentials() -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS_DIRECTORY).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Refuses a file of another account; root's are as safe as root.
///
/// # Errors
/// Who owns it, and the remedy.
pub(super) fn check_owner(path: &Path, file: &std::fs::Metadata) -> anyhow::Result<()> {
    let (owner, own) = (file.uid(), rustix::process::geteuid().as_raw());
    if owner != own && owner != 0 {
        let path = path.display();
        bail!(
            "{path} belongs to the account {owner}, and the manager runs as {own}: run it as {owner}, or run \
             `chown {own} {path}` after a look at how it came to that"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposed_key_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        write_secret(dir.path(), SIGNING_KEY, "x").unwrap();
        write_secret(dir.path(), ADMIN_KEY, "rip_x_y").unwrap();
        check_private(dir.path()).unwrap();
        let (signing, admin) = (dir.path().join(SIGNING_KEY), dir.path().join(ADMIN_KEY));
        for (path, mode, is_refused) in [
            (&signing, 0o640, true),
            (&signing, 0o604, true),
            (&signing, 0o620, true),
            (&signing, 0o400, false),
            (&admin, 0o644, true),
            (&dir.path().to_owned(), 0o770, true),
            (&dir.path().to_owned(), 0o755, false),
        ] {
            let before = std::fs::metadata(path).unwrap().permissions();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            let checked = check_private(dir.path());
            std::fs::set_permissions(path, before).unwrap();
            assert_eq!(checked.is_err(), is_refused, "{} {mode:o}", path.display());
            if let Err(error) = checked {
                let said = error.to_string();
                assert!(said.contains(&format!("{mode:04o}")) && said.contains("run `chmod "), "{said}");
            }
            // Only root can change a file's owner.
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(path, Some(12345), None).unwrap();
                let said = check_private(dir.path()).unwrap_err().to_string();
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
                assert!(said.contains("belongs to the account 12345") && said.contains("chown 0"), "{said}");
            }
        }
    }

    #[test]
    fn a_data_directory_has_one_manager() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(lock(dir.path()).is_err());
        drop(held);
        assert!(lock(dir.path()).is_ok());
    }
}
