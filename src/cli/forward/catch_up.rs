//! Says how far the forwarder is while it catches up: as one line that is written over on a terminal, else as a log line now and
//! then.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::AlertFiles;
use super::metrics::ForwardMetrics;
use super::position::Position;
use super::reader::Start;

/// Less than this is no backlog.
const WORTH_SAYING: u64 = 4 * 1024 * 1024;
/// Interval of lines on a terminal, and in a log.
const EVERY: Duration = Duration::from_secs(1);
const EVERY_IN_LOG: Duration = Duration::from_secs(10);

/// The progress through a backlog.
#[derive(Debug)]
pub(super) struct CatchUp {
    files: AlertFiles,
    metrics: Arc<ForwardMetrics>,
    /// Bytes of alerts, uncompressed, when it began; 0 when there is nothing to catch up.
    total: u64,
    began: Instant,
    said_at: Instant,
    measured_at: Instant,
    last: Option<Position>,
    is_terminal: bool,
}

impl CatchUp {
    pub(super) fn new(files: AlertFiles, metrics: Arc<ForwardMetrics>, start: &Start) -> Self {
        let total = match start {
            Start::Now => 0,
            Start::Beginning => std::fs::metadata(files.main()).map_or(0, |status| status.len()),
            Start::After(position) => left(&files, position),
        };
        let is_terminal = std::io::stderr().is_terminal();
        if total >= WORTH_SAYING {
            tracing::info!("catching up with {} MB of alerts", total / 1_000_000);
        }
        let now = Instant::now();
        Self { files, metrics, total, began: now, said_at: now, measured_at: now, last: None, is_terminal }
    }

    pub(super) fn reached(&mut self, position: Option<&Position>) {
        self.last = position.cloned();
    }

    /// Measures how far it is, and says it while it catches up, if it is time.
    pub(super) fn tick(&mut self) {
        let Some(position) = self.last.as_ref().filter(|_| self.measured_at.elapsed() >= EVERY) else { return };
        self.measured_at = Instant::now();
        let left = left(&self.files, position);
        self.metrics.behind_bytes.set(i64::try_from(left).unwrap_or(i64::MAX));
        let every = if self.is_terminal { EVERY } else { EVERY_IN_LOG };
        if self.total < WORTH_SAYING || self.said_at.elapsed() < every {
            return;
        }
        self.said_at = Instant::now();
        let left = left.min(self.total);
        let count = self.metrics.forwarded();
        let seconds = self.began.elapsed().as_secs().max(1);
        let done = self.total - left;
        if left < WORTH_SAYING / 4 {
            self.say(&format!("caught up: {count} alerts in {seconds} s"), true);
            self.total = 0;
            return;
        }
        let percent = done * 100 / self.total;
        let rest = left * seconds / done.max(1);
        self.say(
            &format!("catching up: {percent} %, {count} alerts, {} a second, about {rest} s left", count / seconds),
            false,
        );
    }

    fn say(&self, text: &str, is_last: bool) {
        if self.is_terminal {
            let end = if is_last { "\n" } else { "" };
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}{end}");
        } else {
            tracing::info!("{text}");
        }
    }
}

/// Bytes of alerts after `position`, as they are uncompressed.
fn left(files: &AlertFiles, position: &Position) -> u64 {
    let Some(started) = position.started else {
        // Of its file no alert is known yet: it is the newest, or another has taken its place.
        let Ok(main) = std::fs::metadata(files.main()) else { return 0 };
        let is_same = (main.dev(), main.ino()) == (position.file.device, position.file.inode);
        return main.len().saturating_sub(if is_same { position.offset } else { 0 });
    };
    let found = files.since(Some(started)).unwrap_or_default().into_iter();
    let left = found.map(|file| {
        let read = if file.is_of(&position.file) { position.offset } else { 0 };
        file.length().saturating_sub(read)
    });
    left.sum()
}
