//! `riposte backup`, `restore` and `doctor`: an online copy of a SQLite manager's data, a data
//! directory from such a copy, and consistency checks of a store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::backup_keys::{self, BackupKeyArgs, BackupKeys, SEALED_KEYS, TLS_KEY};
use super::output::{complain, say};
use super::passphrase::Passphrase;
use super::signing_file::SigningKeyFile;
use super::{keyfiles, signing};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::configured::signing_keys;
use crate::store::doctor::Finding;
use crate::store::seals::whole;
use crate::store::{Db, doctor};

/// Name of the ledger's file in a data directory and in a backup.
pub(super) const LEDGER: &str = "riposte.db";
/// Name of the list of a backup's files with their checksums.
const MANIFEST: &str = "backup.json";

/// The store to use.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "RIPOSTE_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory of the manager.
    #[arg(long, env = "RIPOSTE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// postgres://… or sqlite:PATH.
    #[arg(long, env = "RIPOSTE_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl StoreArgs {
    /// The configuration, with what the flags say.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn config(self) -> anyhow::Result<Config> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
        config.server.data_dir = self.data_dir.unwrap_or(config.server.data_dir);
        config.server.database_url = self.database_url.unwrap_or(config.server.database_url);
        Ok(config)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// Version of the program that made the backup.
    version: String,
    /// Creation time, RFC 3339.
    created_at: String,
    /// SHA-256 of each file.
    files: BTreeMap<String, String>,
    /// Keys that were left out, by their paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

/// `riposte backup`
pub(super) async fn backup(store: StoreArgs, keys: BackupKeyArgs, to: PathBuf) -> anyhow::Result<ExitCode> {
    let passphrase = keys.passphrase()?;
    let config = store.config()?;
    let database = config.database();
    let Some(ledger) = database.strip_prefix("sqlite:") else {
        bail!(
            "this copies SQLite; a PostgreSQL database is backed up with pg_dump, and the keys in {} beside it",
            config.server.data_dir.display()
        );
    };
    ensure!(Path::new(ledger).is_file(), "there is no ledger at {ledger}");
    ensure!(!to.exists(), "{} exists already; a backup needs a new folder", to.display());
    keyfiles::make_data_dir(&to)?;
    let server = &config.server;
    // Before the ledger: a rotation that ends in between leaves the new key in both.
    let keys = keys.copy(passphrase.as_ref(), &server.data_dir, &server.tls_key, &to)?;
    copy_ledger(Path::new(ledger), &to).await?;
    if let Some(why) = key_difference(&to.join(LEDGER), &server.data_dir).await? {
        complain(&format!("riposte: a manager cannot start on this backup: {why}"));
    }
    let count = write_manifest(&to, &keys, Clock::system().now())?;
    report(&keys, count, &to);
    Ok(ExitCode::SUCCESS)
}

/// Copies the ledger at `ledger` into the backup `to`.
///
/// # Errors
/// If it cannot be read or written.
pub(super) async fn copy_ledger(ledger: &Path, to: &Path) -> anyhow::Result<()> {
    doctor::copy(ledger, &to.join(LEDGER)).await.context("the ledger cannot be copied")?;
    keyfiles::keep_private(&format!("sqlite:{}", to.join(LEDGER).display()))?;
    // SQLite does not sync a copy.
    fs::File::open(to.join(LEDGER))?.sync_all()?;
    Ok(())
}

/// Writes the list of the files in the backup `to`; returns how many files it has.
///
/// # Errors
/// If a file cannot be read or written.
pub(super) fn write_manifest(to: &Path, keys: &BackupKeys, now: Timestamp) -> anyhow::Result<usize> {
    let mut files = BTreeMap::new();
    for name in [LEDGER, keyfiles::SIGNING_KEY, keyfiles::ADMIN_KEY, SEALED_KEYS] {
        if to.join(name).is_file() {
            files.insert(name.to_owned(), sum(&to.join(name))?);
        }
    }
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        created_at: serde_json::to_value(now)?.as_str().unwrap_or_default().to_owned(),
        files,
        missing: if let BackupKeys::Missing(paths) = keys { paths.clone() } else { Vec::new() },
    };
    keyfiles::write_secret(to, MANIFEST, &serde_json::to_string_pretty(&manifest)?)?;
    Ok(manifest.files.len() + 1)
}

/// Says what became of the keys.
fn report(keys: &BackupKeys, count: usize, to: &Path) {
    let to = to.display();
    match keys {
        BackupKeys::Plain(names) => {
            complain(&format!(
                "riposte: warning: this backup holds {} in clear: its reader can command every agent. Encrypt the keys \
                 with --passphrase-file FILE, or leave them out with --without-keys. The version after next refuses a \
                 backup with keys in clear.",
                names.join(" and ")
            ));
            say(&format!("{count} files in {to}; protect it like a root password: it contains the signing key"));
        }
        BackupKeys::Sealed(names) => say(&format!(
            "{count} files in {to}; {} {} encrypted. Keep the passphrase elsewhere: without it they are lost.",
            names.join(", "),
            if names.len() == 1 { "is" } else { "are" }
        )),
        BackupKeys::Missing(paths) => {
            say(&format!("{count} files in {to}, without keys. Keep these elsewhere:"));
            for path in paths {
                say(&format!("  {path}"));
            }
            say("Without signing.key, a restored manager needs every agent to enrol again.");
        }
    }
}

/// How the signing key beside a ledger's file differs from the ledger's. Ledgers of earlier
/// versions have none.
async fn key_difference(ledger: &Path, dir: &Path) -> anyhow::Result<Option<String>> {
    let db = Db::open_to_look(&format!("sqlite:{}", ledger.display())).await?;
    let known = signing_keys::current(&db).await.ok().flatten();
    db.close().await;
    signing::difference(known.as_ref(), dir)
}

/// The SHA-256 of a file.
pub(super) fn sum(path: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    std::io::copy(&mut file, &mut HashWriter(&mut hash))?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `riposte restore`
pub(super) async fn restore(
    from: PathBuf,
    data_dir: PathBuf,
    passphrase_file: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let key = from.join(keyfiles::SIGNING_KEY);
    if let Some(exposed) = fs::metadata(&key).ok().and_then(|file| keyfiles::exposed(&key, &file)) {
        complain(&format!("riposte: warning: {exposed}; it is a signing key"));
    }
    let manifest = from.join(MANIFEST);
    let text = fs::read_to_string(&manifest).with_context(|| format!("{} is not a backup", from.display()))?;
    let manifest: Manifest =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", manifest.display()))?;
    for (name, expected) in &manifest.files {
        ensure!(
            [LEDGER, keyfiles::SIGNING_KEY, keyfiles::ADMIN_KEY, SEALED_KEYS].contains(&name.as_str()),
            "{name} is not a file of a backup"
        );
        ensure!(
            sum(&from.join(name))? == *expected,
            "{} has changed since the backup was made",
            from.join(name).display()
        );
    }
    ensure!(manifest.files.contains_key(LEDGER), "the backup contains no ledger");
    if let Some(damage) = doctor::damage(&from.join(LEDGER)).await? {
        bail!("the backup's ledger is damaged: {damage}");
    }
    let opened = backup_keys::open(&from, passphrase_file.as_deref())?;
    if manifest.missing.is_empty()
        && let Some(why) = key_difference(&from.join(LEDGER), &from).await?
    {
        complain(&format!("riposte: the manager will not start on this without --adopt-signing-key: {why}"));
    }
    keyfiles::make_data_dir(&data_dir)?;
    let lock = keyfiles::lock(&data_dir)?;
    ensure!(
        !data_dir.join(LEDGER).exists(),
        "there is a ledger in {} already; restore into an empty directory",
        data_dir.display()
    );
    let is_plain = |name: &&String| ![LEDGER, SEALED_KEYS].contains(&name.as_str());
    for name in manifest.files.keys().filter(is_plain) {
        keyfiles::write_secret(&data_dir, name, fs::read_to_string(from.join(name))?.trim_end())?;
    }
    for (name, text) in opened.iter().flatten() {
        keyfiles::write_secret(&data_dir, name, text)?;
    }
    let temporary = data_dir.join("riposte.db.new");
    fs::copy(from.join(LEDGER), &temporary).context("the ledger cannot be copied")?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, data_dir.join(LEDGER))?;
    give_to_owner(&data_dir)?;
    fs::File::open(&data_dir)?.sync_all()?;
    drop(lock);
    say(&format!(
        "restored what was backed up at {}. Agents that have seen more since then are recognised when they connect",
        manifest.created_at
    ));
    if opened.is_some_and(|texts| texts.contains_key(TLS_KEY)) {
        let path = data_dir.join(TLS_KEY);
        say(&format!("the certificate's private key is in {}: name it in tls_key", path.display()));
    }
    let is_elsewhere = |path: &&String| !(Path::new(path).starts_with(&data_dir) && Path::new(path).is_file());
    let missing: Vec<&String> = manifest.missing.iter().filter(is_elsewhere).collect();
    if !missing.is_empty() {
        let dir = data_dir.display();
        say(&format!("this backup has no keys. Put copies of these in place before the manager starts on {dir}:"));
        for path in missing {
            say(&format!("  {path}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives what root restored into the directory of a service's account to that account.
fn give_to_owner(data_dir: &Path) -> anyhow::Result<()> {
    let dir = fs::metadata(data_dir)?;
    if !rustix::process::geteuid().is_root() || dir.uid() == 0 {
        return Ok(());
    }
    for name in [LEDGER, keyfiles::LOCK, keyfiles::SIGNING_KEY, keyfiles::ADMIN_KEY, TLS_KEY] {
        let path = data_dir.join(name);
        let Ok(file) = fs::symlink_metadata(&path) else { continue };
        // A file with another name elsewhere is not one that was made here.
        if file.is_file() && file.uid() == 0 && file.nlink() == 1 {
            let given = std::os::unix::fs::lchown(&path, Some(dir.uid()), Some(dir.gid()));
            given.with_context(|| format!("cannot give {} to the owner of its folder", path.display()))?;
        }
    }
    Ok(())
}

/// The keys that a backup in this folder has left out; none if it is no backup.
fn left_out(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join(MANIFEST)).unwrap_or_default();
    serde_json::from_str::<Manifest>(&text).map(|manifest| manifest.missing).unwrap_or_default()
}

/// `riposte doctor`
pub(super) async fn doctor(store: StoreArgs, json: bool) -> anyhow::Result<ExitCode> {
    let config = store.config()?;
    let url = config.database();
    if let Some(path) = url.strip_prefix("sqlite:") {
        ensure!(Path::new(path).is_file(), "there is no ledger at {path}");
    }
    let db = Db::open_to_look(&url)
        .await
        .with_context(|| format!("cannot open the ledger of {}", config.server.data_dir.display()))?;
    let mut findings = doctor::examine(&db, Clock::system().now()).await.context("the ledger cannot be read")?;
    let known = signing_keys::current(&db).await.context("the ledger cannot be read")?;
    let passphrase = Passphrase::of(&config.server.key_passphrase_file)?;
    let keys = SigningKeyFile::new(&config.server.data_dir, passphrase.as_ref());
    if let Some(key) = keys.known_ledger_key()? {
        let breaches = whole::inspect(&db, &key).await.context("the ledger cannot be read")?;
        findings.extend(doctor::of_breaches(&breaches));
    } else {
        complain(
            "riposte: rows that grant power were not checked, because signing.key is missing, or encrypted and no key_passphrase_file is configured",
        );
    }
    db.close().await;
    let left_out = left_out(&config.server.data_dir);
    if !left_out.is_empty() {
        findings.push(Finding {
            level: "incident",
            what: "this backup was made without keys",
            help: "A manager needs them beside the ledger: put copies of these in place after the restore.",
            examples: left_out,
        });
    } else if let Some(why) = signing::difference(known.as_ref(), &config.server.data_dir)? {
        findings.push(Finding {
            level: "violation",
            what: "the data directory's signing key is not the ledger's",
            help: "Every agent would reject this manager's commands, so it does not start. Put the right signing.key there (a backup has it), or start \
                   it with --adopt-signing-key and enrol the agents again.",
            examples: vec![why],
        });
    }
    let is_violated = findings.iter().any(|finding| finding.level == "violation");
    if json {
        say(&serde_json::to_string_pretty(&serde_json::json!({"healthy": findings.is_empty(), "findings": findings}))?);
    } else if findings.is_empty() {
        say("healthy: every rule holds, the audit log is intact");
    } else {
        for finding in &findings {
            say(&format!(
                "{}: {}\n  {}\n  {}",
                finding.level,
                finding.what,
                finding.help,
                finding.examples.join("\n  ")
            ));
        }
    }
    Ok(if is_violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
