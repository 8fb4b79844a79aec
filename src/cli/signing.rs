//! Checks that the data directory's signing key is the one that this ledger's agents trust. Agents
//! reject commands with another signature, so the manager does not start with another key.

use std::path::Path;

use anyhow::bail;
use riposte_protocol::time::Timestamp;

use super::backup_keys;
use super::keyfiles::SIGNING_KEY;
use super::passphrase::Passphrase;
use super::signing_file::SigningKeyFile;
use crate::engine::deliver::Signer;
use crate::store::Db;
use crate::store::configured::agents;
use crate::store::configured::signing_keys::{self, KnownKey};
use crate::store::ledger::audit::LedgerTx;

/// Maximum number of agents named in a message.
const NAMED: usize = 20;

/// Compares the signing key with the ledger's. The first start, or the first after an upgrade,
/// records it; `adopt` replaces it.
///
/// # Errors
/// If the ledger has another key and `adopt` is not set; then nothing is changed.
pub(super) async fn agree(
    db: &Db,
    data_dir: &Path,
    passphrase: Option<&Passphrase>,
    adopt: bool,
    now: Timestamp,
) -> anyhow::Result<Signer> {
    let known = signing_keys::current(db).await?;
    if let Some(why) = difference(known.as_ref(), data_dir)?
        && !adopt
    {
        bail!(
            "{why}. Every agent would reject this manager's commands. Put the right {SIGNING_KEY} into {} (a backup has it). If it is lost, start \
             once with `riposte serve --adopt-signing-key`, and enrol these agents again: {}",
            data_dir.display(),
            enrolled(db).await?
        );
    }
    let signer = SigningKeyFile::new(data_dir, passphrase).signer()?;
    let Some(own) = signer.pinned().into_iter().next() else { bail!("{SIGNING_KEY} contains no key") };
    let is_known = known.as_ref().is_some_and(|known| known.public_key == own.public_key);
    if !is_known {
        let why = match &known {
            None => "the first start that notes it".to_owned(),
            Some(known) => format!("in the place of {}, by --adopt-signing-key", known.kid),
        };
        let mut ledger = LedgerTx::begin(db).await?;
        signing_keys::adopt(&mut ledger, &own, &why, now).await?;
        ledger.commit().await?;
        if known.is_some() {
            let agents = enrolled(db).await?;
            tracing::warn!(
                kid = own.kid,
                "a new signing key was adopted; these agents must be enrolled again: {agents}"
            );
        }
    }
    Ok(signer)
}

/// How the signing key of a data directory or a backup differs from the ledger's, if it does.
///
/// # Errors
/// If the key file cannot be read.
pub(super) fn difference(known: Option<&KnownKey>, data_dir: &Path) -> anyhow::Result<Option<String>> {
    let Some(known) = known else { return Ok(None) };
    let since = Timestamp::from(known.adopted_at);
    let Some(own) = backup_keys::public_key(data_dir)? else {
        let dir = data_dir.display();
        return Ok(Some(format!(
            "{dir} has no {SIGNING_KEY}, and this ledger's commands are signed with {}",
            known.kid
        )));
    };
    Ok((own.public_key != known.public_key).then(|| {
        format!(
            "the signing key in {} ({}) is not the one that signs this ledger's commands ({}, since {since})",
            data_dir.display(),
            own.kid,
            known.kid
        )
    }))
}

/// The names of the enrolled agents.
async fn enrolled(db: &Db) -> anyhow::Result<String> {
    let agents = agents::all(db).await?;
    let mut names: Vec<String> =
        agents.into_iter().filter(|agent| agent.revoked_at.is_none()).map(|agent| agent.name).collect();
    let count = names.len();
    names.truncate(NAMED);
    Ok(match count {
        0 => "none is enrolled".to_owned(),
        count if count > NAMED => format!("{} and {} more (`riposte agent list`)", names.join(", "), count - NAMED),
        _ => names.join(", "),
    })
}
