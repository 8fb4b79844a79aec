//! Where the audit log begins: what this manager has signed. A statement that it cannot verify is not
//! repeated, because the next checkpoint would then vouch for a forged one.

use std::sync::Arc;

use super::Engine;
use crate::domain::checkpoint::{Checkpoint, LogBeginning};

/// Where the log begins: what this manager has signed, or what the last checkpoint says under its signature.
pub(super) fn signed_beginning(engine: &Engine, last: Option<&str>) -> Option<LogBeginning> {
    if let (None, Some(last)) = (engine.log_beginning.load().as_ref(), last) {
        let begins = Checkpoint::open(last, &engine.signer.checkpoint_keys()).ok().and_then(|last| last.begins);
        engine.log_beginning.store(begins.map(Arc::new));
    }
    engine.log_beginning.load().as_deref().cloned()
}
