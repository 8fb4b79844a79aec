//! The results of the trials, so that not every report of capabilities starts programs.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::time::Instant;

/// The cached results, by the name of the trial.
#[derive(Debug, Default)]
pub struct ProbeCache(pub(super) Mutex<BTreeMap<&'static str, Found>>);

/// Time of the trial, and why it failed if it did.
pub(super) type Found = (Instant, Result<(), String>);
