//! The backup that `riposte serve` makes of a SQLite ledger before it migrates the schema. It is made in the data
//! directory, verified, and found by `riposte restore` like any other. A start that cannot make it changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use riposte_protocol::time::Timestamp;

use super::backup::{self, LEDGER};
use super::backup_keys::BackupKeyArgs;
use super::keyfiles;
use crate::config::Config;
use crate::store::{Db, doctor};

/// Folder of these backups in the data directory.
const BACKUPS: &str = "backups";
/// How the name of each begins.
const PREFIX: &str = "before-";
/// Name of one that is being made; a start that was killed leaves it behind.
const UNFINISHED: &str = "unfinished";
/// How many are kept, the newest ones.
const KEPT: usize = 3;

/// Backs a SQLite ledger up if this program is about to migrate it. Of PostgreSQL, [`Db::open`] says that there is no
/// backup.
///
/// # Errors
/// If the backup cannot be made or is damaged: what happened, and what to do.
pub(super) async fn make(config: &Config, now: Timestamp) -> anyhow::Result<()> {
    let url = config.database();
    let Some(ledger) = url.strip_prefix("sqlite:") else { return Ok(()) };
    // Created a moment ago, to be locked.
    if fs::metadata(ledger).map_or(0, |file| file.len()) == 0 {
        return Ok(());
    }
    let pending = Db::pending_upgrade(&url).await.context("cannot open the database")?;
    let Some((found, known)) = pending else { return Ok(()) };
    if !config.server.backup_before_upgrade {
        tracing::warn!(
            "the ledger is upgraded from schema {found} to {known} without a backup (backup_before_upgrade is false)"
        );
        return Ok(());
    }
    let folder = config.server.data_dir.join(BACKUPS);
    tracing::info!(
        "the ledger is upgraded from schema {found} to {known}; it is backed up to {} first",
        folder.display()
    );
    let name = format!("{PREFIX}{known:04}-{}", compact(now)?);
    match copy(config, Path::new(ledger), &folder, &name, now).await {
        Ok(made) => {
            tracing::info!("the ledger of before is in {}", made.display());
            Ok(())
        }
        Err(error) => {
            // What is there of it only takes room.
            fs::remove_dir_all(folder.join(UNFINISHED)).ok();
            Err(error.context(format!(
                "the ledger stays at schema {found}, because the backup before its upgrade to {known} failed; make room \
                 in {}, or make a backup elsewhere with the version before and start with backup_before_upgrade = false",
                folder.display()
            )))
        }
    }
}

async fn copy(config: &Config, ledger: &Path, folder: &Path, name: &str, now: Timestamp) -> anyhow::Result<PathBuf> {
    let unfinished = folder.join(UNFINISHED);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    keyfiles::make_data_dir(&unfinished)?;
    backup::copy_ledger(ledger, &unfinished).await?;
    let damage = doctor::damage(&unfinished.join(LEDGER)).await.context("the copy cannot be read")?;
    ensure!(damage.is_none(), "the copy is damaged: {}", damage.unwrap_or_default());
    // The keys are in the data directory already. A copy here would keep one in clear that is encrypted later.
    let keys =
        BackupKeyArgs::without_keys().copy(None, &config.server.data_dir, &config.server.tls_key, &unfinished)?;
    backup::write_manifest(&unfinished, &keys, now)?;
    let before = earlier(folder)?;
    // A migration that fails each time the service manager restarts the program must not replace earlier backups.
    let same = |path: &&PathBuf| {
        backup::sum(&path.join(LEDGER))
            .ok()
            .is_some_and(|sum| backup::sum(&unfinished.join(LEDGER)).is_ok_and(|new| new == sum))
    };
    if let Some(same) = before.last().filter(same) {
        fs::remove_dir_all(&unfinished).context("cannot remove a second copy")?;
        return Ok(same.clone());
    }
    let made = folder.join(name);
    fs::rename(&unfinished, &made).with_context(|| format!("cannot name it {}", made.display()))?;
    fs::File::open(folder)?.sync_all()?;
    for old in before.iter().rev().skip(KEPT - 1) {
        fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        tracing::info!("{} was removed: the newest {KEPT} backups before upgrades are kept", old.display());
    }
    Ok(made)
}

/// The backups before upgrades in `folder`, the oldest first.
fn earlier(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
        if let Some(made) = name.and_then(|name| name.split_once('-')).map(|(_, made)| made.to_owned()) {
            found.push((made, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// A time as names of files have it: `20261129T224500123Z`.
fn compact(time: Timestamp) -> anyhow::Result<String> {
    let text = serde_json::to_value(time)?;
    Ok(text.as_str().unwrap_or_default().replace(['-', ':', '.'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_ordered_by_their_time_whatever_they_are_before() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["before-0030-20260101T000000Z", "before-0029-20260301T000000Z", "unfinished", "mine", "before-x"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names: Vec<_> =
            earlier(dir.path()).unwrap().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["before-0030-20260101T000000Z", "before-0029-20260301T000000Z"]);
        assert_eq!(compact(Timestamp::from_millis(1_790_000_000_123)).unwrap(), "20260921T141320123Z");
    }
}
