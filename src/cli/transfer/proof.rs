//! The checks of a moved ledger: the hash chain of its audit log with the checkpoints, and the seals of the
//! rows that grant power. They are those of `riposte audit verify` and `riposte doctor`.

use anyhow::{Context as _, bail};
use riposte_protocol::key::VerifyingKey;

use crate::cli::backup_keys;
use crate::cli::passphrase::Passphrase;
use crate::cli::signing_file::SigningKeyFile;
use crate::config::Config;
use crate::domain::checkpoint::CheckpointKeys;
use crate::store::Db;
use crate::store::ledger::checkpoints;
use crate::store::seals::whole;

/// What was found right.
pub(super) struct Proof {
    /// How many entries the audit log has.
    pub(super) entries: i64,
    /// Whether the seals were checked; not without `signing.key`.
    pub(super) has_seals: bool,
}

/// Checks a ledger by the keys of the configured data directory, as far as they are there.
///
/// # Errors
/// What is wrong with the ledger, or that it cannot be read.
pub(super) async fn prove(db: &Db, config: &Config) -> anyhow::Result<Proof> {
    let data_dir = &config.server.data_dir;
    let public = backup_keys::public_keys(data_dir)?;
    let public = public.iter().map(|key| VerifyingKey::parse(&key.public_key)).collect::<Result<Vec<_>, _>>()?;
    let proof = if public.is_empty() {
        checkpoints::prove_chain(db, |_, _| ()).await
    } else {
        checkpoints::prove(db, &CheckpointKeys::new(public), None, None, |_, _| ()).await
    };
    let proof = proof.context("the ledger cannot be read")?;
    if !proof.intact {
        let at = proof.broken_at.map_or_else(String::new, |seq| format!(" at entry {seq}"));
        let why = proof.why.map_or_else(String::new, |why| format!(": {why}"));
        bail!("the audit log is broken{at}{why}");
    }
    let passphrase = Passphrase::of(&config.server.key_passphrase_file)?;
    let key = SigningKeyFile::new(data_dir, passphrase.as_ref()).known_ledger_key()?;
    if let Some(key) = &key {
        let breaches = whole::inspect(db, key).await.context("the ledger cannot be read")?;
        if let Some(first) = breaches.first() {
            bail!(
                "another program has changed rows that grant power: {} ({} in all)",
                first.describe(),
                breaches.len()
            );
        }
    }
    Ok(Proof { entries: proof.entries, has_seals: key.is_some() })
}
