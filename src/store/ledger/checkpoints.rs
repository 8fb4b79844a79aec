//! Checkpoints of the audit log, as they are stored beside it (`domain/checkpoint.rs`). They are never
//! changed, and deleted only with the entries that they cover (`retention.rs`).

use riposte_protocol::time::Timestamp;

use super::audit::{self, LedgerTx};
use super::retention;
use crate::domain::audit::{GENESIS, hash as audit_hash, leaf};
use crate::domain::checkpoint::{
    ChainHash, Checkpoint, CheckpointError, CheckpointKeys, CheckpointOpener, LogBeginning,
};
use crate::domain::forgotten::ForgettingKey;
use crate::domain::merkle::TreeHash;
use crate::store::database::{Db, Result, StoreError, binds, statements};
use crate::views::audit::{AuditBeginning, AuditProof, CheckpointKey};

statements! {
    LAST = "SELECT seq, token FROM audit_checkpoints ORDER BY seq DESC LIMIT 1";
    AFTER = "SELECT seq, token FROM audit_checkpoints WHERE seq > $1 ORDER BY seq LIMIT $2";
    BEFORE = "SELECT seq, token FROM audit_checkpoints WHERE seq < $1 ORDER BY seq DESC LIMIT $2";
    FROM = "SELECT seq, token FROM audit_checkpoints WHERE seq >= $1 ORDER BY seq LIMIT 1";
    AT = "SELECT seq, token FROM audit_checkpoints WHERE seq = $1";
    ADD = "INSERT INTO audit_checkpoints (seq, at, token) VALUES ($1, $2, $3)";
    HASH = "SELECT hash FROM audit WHERE seq = $1";
    BACKWARD = "SELECT audit_checkpoints.seq, audit_checkpoints.token, audit.hash FROM audit_checkpoints
        LEFT JOIN audit ON audit.seq = audit_checkpoints.seq
        WHERE audit_checkpoints.seq < $1 ORDER BY audit_checkpoints.seq DESC LIMIT $2";
}

/// A stored checkpoint.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StoredCheckpoint {
    /// The last entry that it covers.
    pub seq: i64,
    /// Compact JWS.
    pub token: String,
}

#[derive(sqlx::FromRow)]
struct HashRow {
    hash: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct ComparedRow {
    seq: i64,
    token: String,
    hash: Option<Vec<u8>>,
}

/// The last checkpoint.
pub async fn last(db: &Db) -> Result<Option<StoredCheckpoint>> {
    db.optional(LAST, vec![]).await
}

/// The checkpoint of an entry.
pub async fn at(db: &Db, seq: i64) -> Result<Option<StoredCheckpoint>> {
    db.optional(AT, binds![seq]).await
}

/// The first checkpoint that covers an entry.
pub async fn covering(db: &Db, seq: i64) -> Result<Option<StoredCheckpoint>> {
    db.optional(FROM, binds![seq]).await
}

/// The checkpoints after an entry, oldest first.
pub async fn after(db: &Db, seq: i64, limit: i64) -> Result<Vec<StoredCheckpoint>> {
    db.all(AFTER, binds![seq, limit]).await
}

/// The hash of an entry of the audit log.
pub async fn hash(db: &Db, seq: i64) -> Result<Option<ChainHash>> {
    let row: Option<HashRow> = db.optional(HASH, binds![seq]).await?;
    row.map(|row| of_bytes(row.hash)).transpose()
}

fn of_bytes(bytes: Vec<u8>) -> Result<ChainHash> {
    bytes.try_into().map(ChainHash).map_err(|_| StoreError::Corrupt("a hash of the audit log".into()))
}

/// Stores a checkpoint, unless there is one of that entry or a later one.
pub async fn add(ledger: &mut LedgerTx, seq: i64, token: &str, now: Timestamp) -> Result<()> {
    let last: Option<StoredCheckpoint> = ledger.tx.optional(LAST, vec![]).await?;
    if last.is_none_or(|last| last.seq < seq) {
        ledger.tx.execute(ADD, binds![seq, now, token]).await?;
    }
    Ok(())
}

/// A part of the audit log, as the leaves of a tree.
#[derive(Debug)]
pub struct Leaves {
    /// The hash of each entry by itself.
    pub leaves: Vec<TreeHash>,
    /// The hash of the chain at the last one; `None` if an entry is missing or does not fit the chain.
    pub chain: Option<ChainHash>,
}

/// The entries after `from`, up to `to`; `start` is the hash of `from` where that entry was removed.
pub async fn leaves(db: &Db, from: i64, to: i64, start: Option<ChainHash>) -> Result<Leaves> {
    const PAGE_ROWS: i64 = 1000;
    let mut chain = match start {
        Some(start) => Some(start),
        None if from == 0 => Some(ChainHash(GENESIS)),
        None => hash(db, from).await?,
    };
    let (mut leaves, mut seq) = (Vec::new(), from);
    while seq < to {
        let rows = audit::after(db, seq, PAGE_ROWS.min(to - seq)).await?;
        if rows.is_empty() {
            return Ok(Leaves { leaves, chain: None });
        }
        for row in rows {
            seq += 1;
            leaves.push(leaf(seq, &row.entry()));
            chain = chain.map(|before| ChainHash(audit_hash(&before.0, seq, &row.entry())));
            chain = chain.filter(|chain| row.seq == seq && row.hash == chain.0);
        }
    }
    Ok(Leaves { leaves, chain })
}

/// What is known about the beginning of the log.
enum Beginning {
    /// It has its first entry.
    Whole,
    /// A checkpoint says that it begins later, and of which ledger it is.
    Cut(LogBeginning, ChainHash),
    /// Entries are missing at the beginning, and nothing that counts says so; the text says why.
    Missing(String),
}

/// Where the log begins. What a checkpoint says of it counts only if one of `keys` itself has signed it: a
/// later one that names it would vouch also for a forged one. `None`: no signature is verified.
/// `trusted` is what this manager has signed before its key was replaced.
async fn beginning(
    db: &Db,
    first: Option<i64>,
    keys: Option<&CheckpointKeys>,
    trusted: Option<&LogBeginning>,
) -> Result<Beginning> {
    let Some(first) = first.filter(|first| *first > 1) else { return Ok(Beginning::Whole) };
    let missing =
        |why: String| Ok(Beginning::Missing(format!("the entries 1 to {} are missing, and {why}", first - 1)));
    let Some(StoredCheckpoint { seq, token }) = last(db).await? else {
        return missing("no checkpoint says that retention removed them".into());
    };
    let claimed = Checkpoint::peek(&token);
    let opened = match keys {
        None => claimed.clone().ok_or(CheckpointError::Malformed),
        Some(keys) => Checkpoint::open(&token, keys),
    };
    let opened = match (opened, claimed) {
        (Err(CheckpointError::UnknownKey(_)), Some(claimed))
            if trusted.is_some() && claimed.begins.as_ref() == trusted =>
        {
            Ok(claimed)
        }
        (opened, _) => opened,
    };
    match opened {
        Err(error) => missing(format!("the last stored checkpoint, of entry {seq}, {error}")),
        Ok(Checkpoint { begins: Some(begins), ledger, .. }) => Ok(Beginning::Cut(begins, ledger)),
        Ok(_) => match earlier(db, keys).await? {
            Some((begins, ledger)) => Ok(Beginning::Cut(begins, ledger)),
            None => missing("no checkpoint of this manager says that retention removed them".into()),
        },
    }
}

/// The newest beginning that one of `keys` has signed. It is needed if the signing key was lost: the
/// manager does not repeat what it cannot verify, and `--public-key` names the key of before.
async fn earlier(db: &Db, keys: Option<&CheckpointKeys>) -> Result<Option<(LogBeginning, ChainHash)>> {
    const PAGE_ROWS: i64 = 1000;
    let mut before = i64::MAX;
    loop {
        let rows: Vec<StoredCheckpoint> = db.all(BEFORE, binds![before, PAGE_ROWS]).await?;
        let Some(oldest) = rows.last() else { return Ok(None) };
        before = oldest.seq;
        let opened = rows.iter().filter_map(|row| match keys {
            None => Checkpoint::peek(&row.token),
            Some(keys) => Checkpoint::open(&row.token, keys).ok(),
        });
        let mut said = opened.filter_map(|checkpoint| Some((checkpoint.begins?, checkpoint.ledger)));
        if let Some(found) = said.next() {
            return Ok(Some(found));
        }
    }
}

/// Recomputes the hash chain from where the log begins. Passes on each entry of the chain, as
/// [`audit::walk`] does. Without keys no signature is verified.
async fn recompute(
    db: &Db,
    keys: Option<&CheckpointKeys>,
    trusted: Option<&LogBeginning>,
    forgetting: Option<&ForgettingKey>,
    mut each: impl FnMut(i64, [u8; 32]),
) -> Result<AuditProof> {
    let mut first = retention::first_entry(db).await?;
    loop {
        let (begins, ledger) = match beginning(db, first, keys, trusted).await? {
            Beginning::Whole => (None, None),
            Beginning::Cut(begins, ledger) => (Some(begins), Some(ledger)),
            Beginning::Missing(why) => return Ok(AuditProof { why: Some(why), ..AuditProof::of(0, Some(1)) }),
        };
        let mut proof = audit::walk(db, begins.as_ref(), forgetting, &mut each).await?;
        let now = retention::first_entry(db).await?;
        if proof.intact || now == first {
            proof.begins = begins.zip(ledger).map(|(begins, ledger)| AuditBeginning::of(&begins, ledger));
            return Ok(proof);
        }
        // Entries were removed while they were read.
        first = now;
    }
}

/// Recomputes the hash chain alone, without a look at signatures.
pub async fn prove_chain(db: &Db, each: impl FnMut(i64, [u8; 32])) -> Result<AuditProof> {
    recompute(db, None, None, None, each).await
}

/// Recomputes the hash chain, and compares it with the stored checkpoints. Passes on each entry of the
/// chain, as [`audit::walk`] does. `trusted` is the beginning of the log that this manager knows of, and `forgetting` the
/// key under which lists of removed texts count; without it they are believed.
pub async fn prove(
    db: &Db,
    keys: &CheckpointKeys,
    trusted: Option<&LogBeginning>,
    forgetting: Option<&ForgettingKey>,
    mut each: impl FnMut(i64, [u8; 32]),
) -> Result<AuditProof> {
    const PAGE_ROWS: i64 = 1000;
    // The first entry names the ledger. It is kept from the walk: retention may remove it right after.
    let mut first = None;
    let keep_first = |seq: i64, hash: [u8; 32]| {
        if seq == 1 {
            first = Some(ChainHash(hash));
        }
        each(seq, hash);
    };
    let mut proof = recompute(db, Some(keys), trusted, forgetting, keep_first).await?;
    proof.keys = CheckpointKey::all(keys);
    let (mut opener, mut before) = (CheckpointOpener::new(keys), i64::MAX);
    let (begin, ledger) = match &proof.begins {
        Some(begins) => ((begins.after, Some(begins.hash)), Some(begins.ledger)),
        None => ((0, None), first),
    };
    while proof.intact {
        let rows: Vec<ComparedRow> = db.all(BACKWARD, binds![before, PAGE_ROWS]).await?;
        let Some(oldest) = rows.last() else { break };
        before = oldest.seq;
        for ComparedRow { seq, token, hash } in rows {
            let opened = match opener.open(&token) {
                // Signed before the signing key was replaced, and none was made since: it does not count yet.
                Err(CheckpointError::UnknownKey(_)) if proof.checkpoints == 0 => {
                    Checkpoint::peek(&token).ok_or(CheckpointError::Malformed).map(|checkpoint| (checkpoint, 0))
                }
                opened => opened.map(|checkpoint| (checkpoint, 1)),
            };
            let fault = match opened {
                Err(error) => Some(error.to_string()),
                Ok((checkpoint, counts)) => {
                    proof.checkpoints += counts;
                    let hash = if seq == begin.0 { begin.1 } else { hash.map(of_bytes).transpose()? };
                    // Of what was removed, nothing is left to compare.
                    let is_same = seq < begin.0 || hash == Some(checkpoint.hash);
                    let fits = checkpoint.seq == seq && is_same && ledger == Some(checkpoint.ledger);
                    (!fits).then(|| "says something else than the log: the log was cut off or rewritten".to_owned())
                }
            };
            if let Some(why) = fault {
                let why = format!("the stored checkpoint of entry {seq} {why}");
                (proof.intact, proof.broken_at, proof.why) = (false, Some(seq), Some(why));
                break;
            }
        }
    }
    Ok(proof)
}
