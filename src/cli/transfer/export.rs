//! `riposte export`: the whole ledger into one file, from one snapshot. Nothing is changed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::file::{ExportWriter, Head};
use super::progress::Progress;
use super::proof;
use crate::cli::backup::StoreArgs;
use crate::cli::keyfiles;
use crate::cli::output::{complain, say};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::Db;
use crate::store::database::import_marker;
use crate::store::transfer::source::LedgerSnapshot;
use crate::store::transfer::tables::TABLES;

/// Arguments of `riposte export`.
#[derive(Debug, Args)]
pub struct LedgerExportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Export although a manager runs: what it writes from then on is not in the file.
    #[arg(long)]
    while_running: bool,
    /// New file; must not exist. It contains hashes of passwords and keys: protect it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `riposte export`.
///
/// # Errors
/// If a manager runs, the ledger is none of this version, or something cannot be read or written.
pub async fn run(args: LedgerExportArgs) -> anyhow::Result<ExitCode> {
    let LedgerExportArgs { store, while_running, file } = args;
    let config = store.config()?;
    let url = config.database();
    if let Some(path) = url.strip_prefix("sqlite:") {
        ensure!(Path::new(path).is_file(), "there is no ledger at {path}");
    }
    ensure!(!file.exists(), "{} exists already; an export needs a new file", file.display());
    let locks = if while_running { None } else { Some(lock(&config)?) };
    let db = Db::open_to_look(&url).await.context("cannot open the ledger")?;
    let exported = export(&db, &config, while_running, &file).await;
    db.close().await;
    drop(locks);
    exported?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps managers out that use files: of the data directory, and of a SQLite ledger.
pub(super) fn lock(config: &Config) -> anyhow::Result<Vec<std::fs::File>> {
    const STOP: &str = "stop the manager first";
    let mut locks = Vec::new();
    if config.server.data_dir.is_dir() {
        locks.push(keyfiles::lock(&config.server.data_dir).context(STOP)?);
    }
    locks.extend(keyfiles::lock_ledger(&config.database()).context(STOP)?);
    Ok(locks)
}

async fn refuse_running(db: &Db) -> anyhow::Result<()> {
    if let Some(name) = import_marker::running(db).await.context("the ledger cannot be read")? {
        bail!(
            "a manager runs on this ledger: {name}. What it writes after the export would be missing: stop it first. For a copy to try \
             with, use --while-running"
        );
    }
    Ok(())
}

async fn export(db: &Db, config: &Config, while_running: bool, path: &Path) -> anyhow::Result<()> {
    if !while_running {
        refuse_running(db).await?;
    }
    let (found, known) = db.schema_versions().await.context("the ledger cannot be read")?;
    ensure!(
        found == known,
        "the ledger has schema {found}, and this version exports schema {known}: export with the version that runs on it, or start this \
         version on it once"
    );
    if let Err(error) = proof::prove(db, config).await {
        complain(&format!(
            "riposte: warning: `riposte import` will refuse this ledger: {error:#}. `riposte doctor` says more"
        ));
    }
    let mut snapshot = LedgerSnapshot::begin(db).await.context("the ledger cannot be read")?;
    let counts = snapshot.counts().await.context("the ledger cannot be read")?;
    let made_at = serde_json::to_value(Clock::system().now())?.as_str().unwrap_or_default().to_owned();
    let head = Head::new(found, made_at, &counts);
    let rows = head.rows();
    let mut progress = Progress::new("exported", 0, rows);
    let mut writer = ExportWriter::create(path, &head)?;
    let mut digests = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let (mut replaced, mut column) = (0_u64, "");
        let digest = snapshot.each_line(table, |line| {
            if let Some(first) = line.replaced.first() {
                (replaced, column) = (replaced + 1, first);
            }
            progress.add(1, table.name);
            writer.line(line.text)
        });
        digests.push(digest.await.with_context(|| format!("the table {} cannot be exported", table.name))?);
        if replaced > 0 {
            complain(&format!(
                "riposte: warning: U+0000 was replaced by U+FFFD in {replaced} rows of {}, such as in {column}: no manager writes it",
                table.name
            ));
        }
    }
    if !while_running {
        refuse_running(db).await?;
    }
    writer.finish(&digests)?;
    say(&format!(
        "{rows} rows in {}. It contains hashes of passwords and keys: protect it, and delete it after the import. The signing key stays in {}",
        path.display(),
        config.server.data_dir.display()
    ));
    Ok(())
}
