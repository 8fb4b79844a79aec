//! `riposte audit`: whether the audit log is as it was written. A running manager is asked, or its
//! ledger or a backup is read without it; checkpoints that were kept elsewhere show what a log alone
//! cannot: a tail that was cut off, and a log that was rewritten as a whole.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use reqwest::Method;
use riposte_protocol::key::VerifyingKey;
use serde_json::{Value, json};

use super::backup_keys;
use super::bundle::{self, BundleArgs};
use super::client::{LONG_TIMEOUT, Remote};
use super::output::say;
use super::reply::Reply;
use super::terminal::{cell, plain};
use crate::config::Config;
use crate::domain::checkpoint::{ChainHash, CheckpointKeys};
use crate::domain::checkpoint_trail::{CheckpointTrail, TrailFault};
use crate::store::Db;
use crate::store::ledger::checkpoints;
use crate::views::audit::{AuditBeginning, AuditProof, AuditRow};
use crate::views::auth::WhoAmI;
use crate::views::page::Page;

/// `riposte audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Recompute the hash chain, and compare it with checkpoints; exit code 1 if something is wrong.
    Verify(Box<VerifyArgs>),
    /// Write one incident to a file that can be verified without the manager.
    Bundle(Box<BundleArgs>),
}

/// Arguments of `riposte audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    remote: Remote,
    /// File of checkpoints that were kept elsewhere, one a line: that of `audit_checkpoint_file`, lines
    /// of a syslog file, or a single one.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Incident bundle to verify (`riposte audit bundle`). Needs no manager and no ledger.
    #[arg(long, value_name = "FILE", conflicts_with = "checkpoint")]
    bundle: Option<PathBuf>,
    /// Public signing key whose checkpoints count too (base64url): that of before a new key was
    /// adopted, or the one that you noted yourself.
    #[arg(long = "public-key", value_name = "KEY", allow_hyphen_values = true)]
    public_keys: Vec<String>,
    #[command(flatten)]
    offline: OfflineArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The ledger to read without its manager.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without a manager")]
struct OfflineArgs {
    /// Data directory of a stopped manager, or a backup.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// postgres://… or sqlite:PATH. May contain a password: prefer --config.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Configuration file of the manager (TOML), which names both.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What was found.
struct AuditVerdict {
    proof: AuditProof,
    /// How many checkpoints of the file fit.
    compared: Option<usize>,
    /// What is wrong with the file of checkpoints, or by it with the log.
    fault: Option<TrailFault>,
}

/// Runs `riposte audit …`.
///
/// # Errors
/// If the log cannot be read.
pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    let args = match command {
        AuditCommand::Verify(args) => args,
        AuditCommand::Bundle(args) => return bundle::export(*args).await,
    };
    let VerifyArgs { remote, checkpoint, bundle, public_keys, offline, json } = *args;
    // Read first: the manager may sign further ones meanwhile.
    let copies = checkpoint.as_deref().map(read).transpose()?;
    let public_keys = public_keys.iter().map(|key| public_key(key)).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = bundle {
        return bundle::verify(&path, &public_keys, json);
    }
    let OfflineArgs { data_dir, database_url, config } = &offline;
    let is_offline = data_dir.is_some() || database_url.is_some() || config.is_some();
    let verdict = if is_offline {
        of_ledger(offline, copies.as_deref(), public_keys).await?
    } else {
        of_manager(&remote, copies.as_deref(), public_keys).await?
    };
    Ok(verdict.tell(checkpoint.as_deref(), json))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read the checkpoints in {}", path.display()))
}

fn public_key(text: &str) -> anyhow::Result<VerifyingKey> {
    VerifyingKey::parse(text.trim()).with_context(|| format!("--public-key {text}"))
}

/// Asks the manager, and compares its entries with the checkpoints here.
async fn of_manager(
    remote: &Remote,
    copies: Option<&str>,
    mut keys: Vec<VerifyingKey>,
) -> anyhow::Result<AuditVerdict> {
    let request = remote.request_within(LONG_TIMEOUT, Method::GET, "/v1/audit/verify").await?;
    let proof: AuditProof = Reply::read(remote.start(request).await?).await?.done()?;
    let Some(copies) = copies else { return Ok(AuditVerdict { proof, compared: None, fault: None }) };
    let who: WhoAmI = remote.get("/v1/whoami").await?;
    ensure!(
        who.scopes.is_empty(),
        "this credential has a scope, which hides entries of the audit log: use one without, or --data-dir on the manager's host"
    );
    for key in &proof.keys {
        keys.push(VerifyingKey::parse(&key.public_key).context("the manager's public key")?);
    }
    let trail = match CheckpointTrail::read(copies, &CheckpointKeys::new(keys)) {
        Ok(trail) => trail,
        Err(fault) => return Ok(AuditVerdict { proof, compared: None, fault: Some(fault) }),
    };
    let (mut fault, mut entries, mut cursor) = (None, None, String::new());
    if let Some(begins) = &proof.begins {
        fault = trail.check_ledger(begins.ledger).and_then(|()| trail.check(begins.after, begins.hash)).err();
    }
    loop {
        let page: Page<AuditRow> = remote.get(&format!("/v1/audit?limit=500{cursor}")).await?;
        for AuditRow { seq, hash, .. } in page.items {
            entries.get_or_insert(seq);
            // Newest first, so the last one that is found is the first one of the log.
            fault = compare(&trail, seq, hash)?.or(fault);
        }
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let cut = trail.check_end(entries.unwrap_or_default()).err();
    let compared = Some(compared(&trail, &proof));
    Ok(AuditVerdict { proof, compared, fault: fault.or(cut) })
}

fn compare(trail: &CheckpointTrail, seq: i64, hash: Vec<u8>) -> anyhow::Result<Option<TrailFault>> {
    let Ok(hash) = hash.try_into() else { bail!("entry {seq} has a hash of another length") };
    Ok(trail.check(seq, ChainHash(hash)).err())
}

/// How many checkpoints are of entries that the log has.
fn compared(trail: &CheckpointTrail, proof: &AuditProof) -> usize {
    trail.count_from(proof.begins.as_ref().map_or(0, |begins| begins.after))
}

/// Reads a ledger without its manager.
async fn of_ledger(
    offline: OfflineArgs,
    copies: Option<&str>,
    mut keys: Vec<VerifyingKey>,
) -> anyhow::Result<AuditVerdict> {
    let OfflineArgs { data_dir, database_url, config: file } = offline;
    let mut config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    let has_dir = data_dir.is_some() || file.is_some();
    config.server.data_dir = data_dir.unwrap_or(config.server.data_dir);
    config.server.database_url = database_url.unwrap_or(config.server.database_url);
    if has_dir {
        for own in backup_keys::public_keys(&config.server.data_dir)? {
            keys.push(VerifyingKey::parse(&own.public_key)?);
        }
    }
    let keys = CheckpointKeys::new(keys);
    ensure!(
        copies.is_none() || !keys.all().is_empty(),
        "no public key to verify the checkpoints with: name the manager's data directory, or --public-key"
    );
    let url = config.database();
    if let Some(path) = url.strip_prefix("sqlite:") {
        ensure!(Path::new(path).is_file(), "there is no ledger at {path}");
    }
    let (trail, unread) = match copies.map(|text| CheckpointTrail::read(text, &keys)).transpose() {
        Ok(trail) => (trail, None),
        Err(fault) => (None, Some(fault)),
    };
    let db = Db::open_to_look(&url).await.context("cannot open the ledger")?;
    let (mut fault, mut entries) = (unread, 0);
    let each = |seq, hash| {
        entries = seq;
        if let (Some(trail), None) = (&trail, &fault) {
            fault = trail.check(seq, ChainHash(hash)).err();
        }
    };
    let proof = if keys.all().is_empty() {
        checkpoints::prove_chain(&db, each).await
    } else {
        checkpoints::prove(&db, &keys, None, None, each).await
    };
    db.close().await;
    let proof = proof.context("the ledger cannot be read")?;
    let other = trail.as_ref().zip(proof.begins.as_ref());
    let other = other.and_then(|(trail, begins)| trail.check_ledger(begins.ledger).err());
    // Where the beginning is unknown, no entry was read.
    let read = trail.as_ref().filter(|_| proof.intact || entries > 0);
    let cut = read.and_then(|trail| trail.check_end(entries).err());
    let compared = trail.map(|trail| compared(&trail, &proof));
    Ok(AuditVerdict { proof, compared, fault: other.or(fault).or(cut) })
}

impl AuditVerdict {
    /// Prints it, and returns the exit code.
    fn tell(&self, file: Option<&Path>, json: bool) -> ExitCode {
        let Self { proof, compared, fault } = self;
        let is_right = proof.intact && fault.is_none();
        let file = file.map(|path| path.display().to_string()).unwrap_or_default();
        if json {
            say(&self.json(is_right).to_string());
        } else {
            say(&plain(&self.chain()));
            match (fault, compared) {
                (Some(fault), _) => say(&plain(&format!("BROKEN, by the checkpoints in {file}: {fault}"))),
                (None, Some(count)) => say(&plain(&format!("it is what all {count} checkpoints in {file} say"))),
                (None, None) => {}
            }
        }
        if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// What the log says by itself.
    fn chain(&self) -> String {
        let AuditProof { entries, intact, broken_at, checkpoints, begins, why, forgotten, .. } = &self.proof;
        let from = begins.as_ref().map_or_else(String::new, |begins| {
            let AuditBeginning { after, moved_at, .. } = begins;
            format!(
                "; verified from entry {} on, retention removed the earlier ones on {moved_at}, as the checkpoints say",
                after + 1
            )
        });
        let without = match forgotten {
            0 => String::new(),
            count => format!("; {count} of them are about people who were forgotten, and have no texts"),
        };
        match why {
            _ if *intact && *checkpoints > 0 => {
                format!("intact: {entries} entries, {checkpoints} stored checkpoints{from}{without}")
            }
            _ if *intact => format!("intact: {entries} entries{from}{without}"),
            Some(why) => format!("BROKEN at entry {}: {why}", cell(*broken_at)),
            None => format!("BROKEN at entry {}: it, or an entry before it, was changed or deleted", cell(*broken_at)),
        }
    }

    fn json(&self, is_right: bool) -> Value {
        let Self { proof, compared, fault } = self;
        json!({
            "entries": proof.entries,
            "intact": is_right,
            "forgotten": self.proof.forgotten,
            "broken_at": proof.broken_at,
            "why": proof.why,
            "begins": proof.begins,
            "checkpoints": proof.checkpoints,
            "keys": proof.keys,
            "compared": compared,
            "checkpoint_fault": fault.as_ref().map(ToString::to_string),
        })
    }
}
