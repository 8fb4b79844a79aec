//! Incident bundles: which signed checkpoints cover the entries of an incident, the proofs of that,
//! and the seal. It reads the audit log between two checkpoints, about a minute of it, for each
//! checkpoint that is needed.

use std::collections::BTreeMap;

use super::Engine;
use crate::domain::checkpoint::{ChainHash, Checkpoint};
use crate::domain::merkle;
use crate::store::StoreError;
use crate::store::ledger::checkpoints::{self, StoredCheckpoint};
use crate::views::audit::AuditRow;
use crate::views::bundle::EntryProof;

/// Proofs, and the checkpoints that they lead to.
#[derive(Debug, Default)]
pub struct Proven {
    /// One for each entry that a checkpoint covers.
    pub proofs: Vec<EntryProof>,
    /// Compact JWS, oldest first.
    pub checkpoints: Vec<String>,
}

/// Proves that these entries, oldest first, are under signed checkpoints. Entries that are newer than
/// the last checkpoint, or older than the first, have no proof.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn prove(engine: &Engine, entries: &[AuditRow]) -> Result<Proven, StoreError> {
    let mut by_checkpoint: BTreeMap<i64, (StoredCheckpoint, Vec<i64>)> = BTreeMap::new();
    for AuditRow { seq, .. } in entries {
        let known = by_checkpoint.last_entry().filter(|last| *last.key() >= *seq);
        if let Some(mut known) = known {
            known.get_mut().1.push(*seq);
        } else if let Some(covering) = checkpoints::covering(&engine.db, *seq).await? {
            by_checkpoint.insert(covering.seq, (covering, vec![*seq]));
        }
    }
    let mut proven = Proven::default();
    for (last, (StoredCheckpoint { token, .. }, covered)) in by_checkpoint {
        let Some(Checkpoint { from, root: Some(root), .. }) = Checkpoint::peek(&token) else { continue };
        let leaves = checkpoints::leaves(&engine.db, from, last, None).await?.leaves;
        if ChainHash(merkle::root(&leaves)) != root {
            // The log was changed since: a proof would lead nowhere.
            continue;
        }
        for seq in covered {
            let Some(index) = usize::try_from(seq - from - 1).ok().filter(|index| *index < leaves.len()) else {
                continue;
            };
            let path = merkle::path(&leaves, index).into_iter().map(ChainHash).collect();
            proven.proofs.push(EntryProof { seq, checkpoint: last, path });
        }
        proven.checkpoints.push(token);
    }
    Ok(proven)
}
