//! Checks that the data directory's signing key is the one that this ledger's agents trust. Agents
//! reject commands with another signature, so the manager does not start with another key.

use std::path::Path;

use anyhow::bail;
use riposte_protocol::key::SigningKey;
use riposte_protocol::time::Timestamp;

use super::backup_keys;
use super::keyfiles::SIGNING_KEY;
use super::passphrase::Passphrase;
use super::signing_file::SigningKeyFile;
use crate::domain::actor::Actor;
use crate::engine::ManagerKeys;
use crate::engine::signer::{KeyStore as _, NamedKey, Signer, is_rotated_out};
use crate::store::Db;
use crate::store::configured::agents;
use crate::store::configured::key_statements::{self, StoredStatement};
use crate::store::configured::signing_keys::{self, KnownKey};
use crate::store::ledger::audit::LedgerTx;

/// Maximum number of agents named in a message.
const NAMED: usize = 20;

/// Compares the signing key with the ledger's. The first start, or the first after an upgrade,
/// records it; `adopt` replaces it. With `accept`, rows that other programs have changed count as the manager's own.
///
/// # Errors
/// If the ledger has another key and `adopt` is not set; then nothing is changed.
pub(super) async fn agree(
    db: &Db,
    data_dir: &Path,
    passphrase: Option<&Passphrase>,
    (adopt, accept): (bool, bool),
    now: Timestamp,
) -> anyhow::Result<ManagerKeys> {
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
    let file = SigningKeyFile::new(data_dir, passphrase);
    let mut keys = file.keys()?;
    // The ledger says which of the keys signs; the first one does if it knows none of them.
    let is_current =
        |named: &NamedKey| known.as_ref().is_some_and(|known| known.public_key == named.public().public_key);
    let is_known = keys.iter().any(is_current);
    let at = keys.iter().position(is_current).unwrap_or_default();
    let current = keys.remove(at);
    let mut statements = key_statements::all(db).await?;
    if !is_known {
        let why = match &known {
            None => "the first start that notes it".to_owned(),
            Some(known) => format!("in the place of {}, by --adopt-signing-key", known.kid),
        };
        let mut ledger = LedgerTx::begin(db).await?;
        signing_keys::adopt(&mut ledger, &current.public(), &why, &Actor::Riposte, now).await?;
        if let Some(known) = &known {
            // Agents of before can learn nothing that comes after it.
            let number = statements.last().map_or(0, |last| last.number) + 1;
            let (signed_by, keys) = (known.kid.clone(), vec![current.public()]);
            let made_by = Actor::Riposte.to_string();
            // With the key its recovery key is gone: agents that enrol from now on get another one.
            let (recovery, revocation) = (None, None);
            let cut =
                StoredStatement { number, token: None, signed_by, keys, recovery, revocation, made_at: now, made_by };
            key_statements::add(&mut ledger, &cut, &Actor::Riposte).await?;
            statements.push(cut);
        }
        ledger.commit().await?;
        if known.is_some() {
            let agents = enrolled(db).await?;
            tracing::warn!(
                kid = current.kid,
                "a new signing key was adopted; these agents must be enrolled again: {agents}"
            );
        }
    }
    let is_over = |named: &NamedKey| is_rotated_out(&statements, &named.kid);
    if keys.iter().any(is_over) {
        // A manager that was killed at the end of a rotation left it there.
        keys.retain(|named| !is_over(named));
        let kept: Vec<SigningKey> = std::iter::once(&current).chain(&keys).map(|named| named.key.clone()).collect();
        file.replace(&kept).map_err(|why| anyhow::anyhow!(why))?;
    }
    let ledger_key = file.ledger_key()?;
    let numbers = key_statements::numbers(db).await?;
    let signer = Signer::new(current, keys, statements, Box::new(file));
    signer.load_numbers(numbers);
    // With another signing key comes another ledger key, which made no seal.
    let accepts = accept.then_some("by --accept-ledger-changes").or(adopt.then_some("by --adopt-signing-key"));
    Ok(ManagerKeys { signer, ledger_key, accepts })
}

/// How the signing key of a data directory or a backup differs from the ledger's, if it does.
///
/// # Errors
/// If the key file cannot be read.
pub(super) fn difference(known: Option<&KnownKey>, data_dir: &Path) -> anyhow::Result<Option<String>> {
    let Some(known) = known else { return Ok(None) };
    let since = Timestamp::from(known.adopted_at);
    let keys = backup_keys::public_keys(data_dir)?;
    let Some(own) = keys.first() else {
        let dir = data_dir.display();
        return Ok(Some(format!(
            "{dir} has no {SIGNING_KEY}, and this ledger's commands are signed with {}",
            known.kid
        )));
    };
    let is_there = keys.iter().any(|key| key.public_key == known.public_key);
    Ok((!is_there).then(|| {
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
