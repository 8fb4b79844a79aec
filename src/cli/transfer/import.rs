//! `riposte import`: a file of `riposte export` into an empty database. The file is checked as a whole
//! first. An import that was killed goes on at the next call, and a manager starts only after everything
//! was verified.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::export::lock;
use super::file::{Checked, ExportReader};
use super::progress::Progress;
use super::proof::{self, Proof};
use crate::cli::backup::StoreArgs;
use crate::cli::output::{complain, say};
use crate::cli::{keyfiles, signing};
use crate::config::Config;
use crate::store::Db;
use crate::store::configured::signing_keys::{self, KnownKey};
use crate::store::transfer::row::LinesDigest;
use crate::store::transfer::source::LedgerSnapshot;
use crate::store::transfer::tables::TABLES;
use crate::store::transfer::target;

/// Rows of one transaction, at most.
const BATCH_ROWS: usize = 2048;
/// Bytes of the lines of one transaction, at most; one line more can be in it.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Arguments of `riposte import`.
#[derive(Debug, Args)]
pub struct LedgerImportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// File created by `export`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `riposte import`.
///
/// # Errors
/// If the file is damaged or of another version, the database is not empty or in use, or what was imported
/// is not what was exported.
pub async fn run(args: LedgerImportArgs) -> anyhow::Result<ExitCode> {
    let LedgerImportArgs { store, file } = args;
    let config = store.config()?;
    let known = Db::known_schema();
    let reader = ExportReader::open(&file, known)?;
    let rows = reader.head.rows();
    complain(&format!(
        "riposte: checking {}: {rows} rows, exported at {} by version {}",
        file.display(),
        reader.head.made_at,
        reader.head.version
    ));
    let checked = reader.check()?;
    if config.server.database_url.is_empty() {
        keyfiles::make_data_dir(&config.server.data_dir)?;
    }
    keyfiles::keep_private(&config.database())?;
    let locks = lock(&config)?;
    let db = Db::open_to_import(&config.database()).await.context("cannot open the database")?;
    let imported = import(&db, &config, &file, &checked, rows).await;
    db.close().await;
    drop(locks);
    imported?;
    Ok(ExitCode::SUCCESS)
}

async fn import(db: &Db, config: &Config, file: &Path, checked: &Checked, rows: u64) -> anyhow::Result<()> {
    let begun = target::begin(db, &checked.sha256, rows).await.context("cannot import")?;
    if begun > 0 {
        complain(&format!("riposte: {begun} of {rows} rows are there already; going on after them"));
    }
    load(db, file, begun, rows).await?;
    complain("riposte: comparing what is there with the file");
    // On connections without the time limits of a manager.
    let look = Db::open_to_verify(&config.database()).await.context("cannot open the database")?;
    let verified = verify(&look, config, &checked.digests, rows).await;
    let known = signing_keys::current(&look).await.context("the ledger cannot be read");
    look.close().await;
    let (proof, known) = (verified?, known?);
    target::finish(db).await.context("the import cannot be ended")?;
    tell(config, &proof, known.as_ref(), rows)
}

/// Compares what was imported with the file, and checks it as a ledger.
async fn verify(db: &Db, config: &Config, expected: &[LinesDigest], rows: u64) -> anyhow::Result<Proof> {
    let refused = "what was imported is not right, and no manager starts on it. Make the database anew";
    compare(db, expected, rows).await.context(refused)?;
    proof::prove(db, config).await.with_context(|| {
        format!("{refused}. If the old ledger says the same (`riposte doctor`), mend it there and export again")
    })
}

/// Says what was imported, and what is left to do.
fn tell(config: &Config, proof: &Proof, known: Option<&KnownKey>, rows: u64) -> anyhow::Result<()> {
    let data_dir = config.server.data_dir.display();
    say(&format!(
        "{rows} rows imported; every one is as it was, and the audit log of {} entries is intact",
        proof.entries
    ));
    if proof.has_seals {
        say("the seals of rows that grant power fit the key in the data directory");
    } else {
        complain(&format!(
            "riposte: warning: seals were not checked, because {data_dir} has no signing.key, or an encrypted one and no \
             key_passphrase_file is configured; the manager checks them when it starts"
        ));
    }
    if let Some(why) = signing::difference(known, &config.server.data_dir)? {
        complain(&format!(
            "riposte: warning: a manager needs the data directory of the old one beside this ledger: {why}"
        ));
    }
    Ok(())
}

/// Writes the rows of the file after the first `begun` ones.
async fn load(db: &Db, file: &Path, begun: u64, rows: u64) -> anyhow::Result<()> {
    let mut progress = Progress::new("imported", begun, rows);
    let mut reader = ExportReader::open(file, Db::known_schema())?;
    let (mut seen, mut done) = (0, begun);
    let (mut batch, mut bytes, mut of) = (Vec::new(), 0, 0);
    loop {
        let next = reader.row()?;
        let is_other = next.as_ref().is_none_or(|(nth, _)| *nth != of);
        if !batch.is_empty() && (is_other || batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES) {
            let table = &TABLES[of];
            done = target::write(db, table, &batch, done).await.with_context(|| {
                format!("the import stopped after {done} of {rows} rows, in {}; run it again to go on", table.name)
            })?;
            progress.add(batch.len() as u64, table.name);
            batch.clear();
            bytes = 0;
        }
        let Some((nth, line)) = next else { break };
        (seen, of) = (seen + 1, nth);
        if seen > begun {
            bytes += line.len();
            batch.push(line);
        }
    }
    ensure!(done == rows, "{} has other rows than a moment ago", file.display());
    Ok(())
}

/// Compares every row of the database with the file.
async fn compare(db: &Db, expected: &[LinesDigest], rows: u64) -> anyhow::Result<()> {
    let mut progress = Progress::new("compared", 0, rows);
    let mut snapshot = LedgerSnapshot::begin(db).await?;
    for (table, expected) in TABLES.iter().zip(expected) {
        let found = snapshot.each_line(table, |_| {
            progress.add(1, table.name);
            anyhow::Ok(())
        });
        let found = found.await?;
        ensure!(
            found == *expected,
            "{} has {} rows instead of {}, or others than the file",
            table.name,
            found.lines,
            expected.lines
        );
    }
    Ok(())
}
