//! `riposte audit bundle` and `riposte audit verify --bundle`: one incident as a file, and what that file
//! proves without the manager and its database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use reqwest::Method;
use riposte_protocol::jws::JwsError;
use riposte_protocol::key::VerifyingKey;
use riposte_protocol::time::Timestamp;
use serde_json::json;

use super::client::{LONG_TIMEOUT, Remote, segment};
use super::output::say;
use super::reply::{Reply, Said};
use super::terminal::plain;
use crate::domain::audit::leaf;
use crate::domain::checkpoint::{Checkpoint, CheckpointError, CheckpointKeys, CheckpointOpener};
use crate::domain::incident_seal::IncidentSeal;
use crate::domain::merkle;
use crate::views::audit::AuditRow;
use crate::views::bundle::{EntryProof, FORMAT, IncidentBundle, IncidentContents};

/// Arguments of `riposte audit bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    #[command(flatten)]
    remote: Remote,
    /// Id of the response.
    #[arg(value_name = "RESPONSE")]
    response: String,
    /// New file to write, readable by its owner only; must not exist.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Runs `riposte audit bundle`.
///
/// # Errors
/// If the manager refuses, or the file cannot be written.
pub(super) async fn export(args: BundleArgs) -> anyhow::Result<ExitCode> {
    let BundleArgs { remote, response, output } = args;
    let path = format!("/v1/responses/{}/bundle", segment(&response));
    let request = remote.request_within(LONG_TIMEOUT, Method::GET, &path).await?;
    let bundle: Said<IncidentBundle> = Reply::read(remote.start(request).await?).await?.done()?;
    let place = output.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&output);
    let mut file = file.with_context(|| format!("cannot create {place}"))?;
    file.write_all(format!("{}\n", bundle.json).as_bytes()).with_context(|| format!("cannot write {place}"))?;
    file.sync_all().with_context(|| format!("cannot write {place}"))?;
    let found = examine(&bundle.view, &[])?;
    say(&plain(&format!(
        "{place}: {} audit entries, {} of them under a signed checkpoint",
        found.entries, found.proven
    )));
    if found.proven < found.entries {
        say("the others are newer than the last checkpoint, or from before there were any: export again in a minute");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `riposte audit verify --bundle`.
///
/// # Errors
/// If the file cannot be read, or is not a bundle that a trusted key has sealed.
pub(super) fn verify(path: &Path, keys: &[VerifyingKey], json: bool) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bundle: IncidentBundle =
        serde_json::from_str(&text).with_context(|| format!("{} is not an incident bundle", path.display()))?;
    let found = match examine(&bundle, keys) {
        Ok(found) => found,
        Err(error) if json => {
            say(&json!({"intact": false, "why": error.to_string()}).to_string());
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => {
            say(&plain(&format!("BROKEN: {error:#}")));
            return Ok(ExitCode::FAILURE);
        }
    };
    if json {
        say(&found.json().to_string());
    } else {
        found.tell();
    }
    Ok(ExitCode::SUCCESS)
}

/// What a bundle proves.
#[derive(Debug)]
struct BundleFindings {
    response: String,
    made_at: Timestamp,
    made_by: String,
    kid: String,
    is_own_key: bool,
    entries: usize,
    proven: usize,
    /// Entries that lost texts because a person was forgotten.
    forgotten: usize,
    /// Checkpoints that an earlier signing key has signed: only the seal vouches for them.
    by_seal: usize,
    last: Option<Timestamp>,
}

/// Verifies a bundle with `keys`, or with its own ones if there are none.
fn examine(bundle: &IncidentBundle, keys: &[VerifyingKey]) -> anyhow::Result<BundleFindings> {
    let IncidentBundle { format, contents: text, seal } = bundle;
    ensure!(format == FORMAT, "the format {format} is unknown; this version reads {FORMAT}");
    let contents: IncidentContents = serde_json::from_str(text).context("the contents are not an incident")?;
    let own = contents.keys.iter().map(|key| VerifyingKey::parse(&key.public_key)).collect::<Result<Vec<_>, _>>();
    let is_own_key = keys.is_empty();
    let keys = if is_own_key { own.context("a key of the bundle")? } else { keys.to_vec() };
    let (seal, kid) = IncidentSeal::open(seal, &keys).map_err(|error| {
        anyhow::anyhow!(match error {
            JwsError::UnknownKey => "it is sealed with another key than the one that you named",
            JwsError::Signature => "the seal is forged or was changed",
            JwsError::Malformed | JwsError::Kind => "the seal is not that of an incident",
        })
    })?;
    let response = contents.response.response.response.id.clone();
    let is_sealed =
        IncidentSeal::of(seal.response, text, contents.made_at) == seal && seal.response.to_string() == response;
    ensure!(is_sealed, "the contents were changed after they were sealed");
    let (checkpoints, by_seal) = checkpoints(&contents.checkpoints, &CheckpointKeys::new(keys))?;
    let proven = proven(&contents, &checkpoints)?;
    let last = checkpoints.values().next_back().map(Checkpoint::issued_at);
    let IncidentContents { made_at, made_by, audit, .. } = contents;
    let (entries, forgotten) = (audit.len(), audit.iter().filter(|row| row.pseudonyms().is_some()).count());
    Ok(BundleFindings { response, made_at, made_by, kid, is_own_key, entries, proven, forgotten, by_seal, last })
}

/// The checkpoints of a bundle by their entry, and how many of them only the seal vouches for.
fn checkpoints(tokens: &[String], keys: &CheckpointKeys) -> anyhow::Result<(BTreeMap<i64, Checkpoint>, usize)> {
    let (mut opener, mut opened, mut by_seal) = (CheckpointOpener::new(keys), BTreeMap::new(), 0);
    for token in tokens.iter().rev() {
        let checkpoint = match opener.open(token) {
            Ok(checkpoint) => checkpoint,
            Err(CheckpointError::UnknownKey(_)) => {
                by_seal += 1;
                Checkpoint::peek(token).context("a checkpoint of the bundle cannot be read")?
            }
            Err(error) => bail!("a checkpoint of the bundle {error}"),
        };
        opened.insert(checkpoint.seq, checkpoint);
    }
    Ok((opened, by_seal))
}

/// How many of the entries are under a checkpoint. Each must be about the incident, and stand once.
fn proven(contents: &IncidentContents, checkpoints: &BTreeMap<i64, Checkpoint>) -> anyhow::Result<usize> {
    let view = &contents.response;
    let response = std::iter::once(("response", view.response.response.id.as_str()));
    let commands = view.commands.iter().map(|command| ("command", command.id.as_str()));
    let effects = view.effects.iter().map(|effect| ("effect", effect.id.as_str()));
    let about: BTreeSet<(&str, &str)> = response.chain(commands).chain(effects).collect();
    let mut entries: BTreeMap<i64, &AuditRow> = BTreeMap::new();
    for row in &contents.audit {
        let is_about = about.contains(&(row.noun.as_str(), row.noun_id.as_str()));
        ensure!(
            is_about && entries.insert(row.seq, row).is_none(),
            "the audit entry {} does not belong there",
            row.seq
        );
    }
    let mut proven = BTreeSet::new();
    for EntryProof { seq, checkpoint, path } in &contents.proofs {
        let wrong = || format!("the audit entry {seq} is not the one under the checkpoint of entry {checkpoint}");
        let row = entries.get(seq).with_context(wrong)?;
        ensure!(row.pseudonyms().is_none_or(|names| !names.is_empty()), wrong());
        let Checkpoint { from, seq: last, root, .. } = checkpoints.get(checkpoint).with_context(wrong)?;
        let after = |seq: i64| seq.checked_sub(*from).and_then(|after| u64::try_from(after).ok());
        let index = after(*seq).and_then(|after| after.checked_sub(1)).with_context(wrong)?;
        let count = after(*last).with_context(wrong)?;
        let path: Vec<merkle::TreeHash> = path.iter().map(|hash| hash.0).collect();
        let leads_to = merkle::root_of_path(leaf(*seq, &row.entry()), index, count, &path);
        ensure!(leads_to.is_some() && leads_to == root.map(|root| root.0), wrong());
        proven.insert(*seq);
    }
    Ok(proven.len())
}

impl BundleFindings {
    fn tell(&self) {
        let Self { response, made_at, made_by, kid, is_own_key, entries, proven, forgotten, by_seal, last } = self;
        say(&plain(&format!("intact: the response {response}, as the manager sealed it at {made_at} for {made_by}")));
        let last = last.map_or_else(String::new, |last| format!(", the last of {last}"));
        say(&plain(&format!("proven: {proven} of {entries} audit entries are under signed checkpoints{last}")));
        if *forgotten > 0 {
            say(&format!(
                "{forgotten} entries have no details, and a pseudonym for a person who was forgotten: who it was is not proven"
            ));
        }
        if *by_seal > 0 {
            say(&format!("{by_seal} of the checkpoints are signed with an earlier key; the seal vouches for them"));
        }
        say(
            "not proven: that what the manager recorded is true; that there are no later entries; when the alert was sent",
        );
        if *is_own_key {
            say(&plain(&format!(
                "the file itself names the key {kid}: compare it with that of the manager, or name the manager's with --public-key"
            )));
        } else {
            say(&plain(&format!("sealed with the key {kid}, which you named")));
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "intact": true,
            "response": self.response,
            "made_at": self.made_at,
            "made_by": self.made_by,
            "kid": self.kid,
            "key_is_trusted": !self.is_own_key,
            "entries": self.entries,
            "proven": self.proven,
            "forgotten": self.forgotten,
            "checkpoints_by_seal": self.by_seal,
            "last_checkpoint_at": self.last,
        })
    }
}
