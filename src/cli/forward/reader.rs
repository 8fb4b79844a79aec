//! Reads the files of alerts line by line, on a thread of its own, and gathers the lines into batches. Only complete lines are
//! taken; the end of a file that is written no more is its last line.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use riposte_protocol::time::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, BatchLimits};
use super::files::{AlertFile, AlertFiles, SLACK, time_of};
use super::metrics::ForwardMetrics;
use super::open_file::{AlertFileHandle, CHUNK, Open};
use super::position::{FileMark, Position};
use crate::domain::formats::MAX_ALERT_BYTES;

/// Time between two looks at a file that has nothing new.
const POLL: Duration = Duration::from_millis(100);
/// Time after which a file that was rotated away gets no more lines.
const LINGER: Duration = Duration::from_secs(1);

/// Where to begin.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// After the last line that is there.
    Now,
    /// At the first line of the present file.
    Beginning,
    /// After what has been forwarded.
    After(Position),
}

/// Reads, and sends batches.
pub(super) struct Reader {
    files: AlertFiles,
    limits: BatchLimits,
    batches: mpsc::Sender<Batch>,
    metrics: Arc<ForwardMetrics>,
    stop: CancellationToken,
    runtime: Handle,
}

/// What comes after the end of a file.
enum Next {
    /// It may still grow.
    Wait,
    /// It is written anew, from its beginning.
    Anew(Open),
    /// It is finished.
    File(Open),
}

impl Reader {
    pub(super) fn new(
        files: AlertFiles,
        limits: BatchLimits,
        batches: mpsc::Sender<Batch>,
        metrics: Arc<ForwardMetrics>,
        stop: CancellationToken,
    ) -> Self {
        Self { files, limits, batches, metrics, stop, runtime: Handle::current() }
    }

    /// Reads until it is stopped.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn run(self, start: Start) -> anyhow::Result<()> {
        let Some(mut open) = self.first(start)? else { return Ok(()) };
        tracing::info!(path = %open.path.display(), offset = open.offset, "reading {}", open.path.display());
        // Where it begins is stored before the first alert is sent: after a crash the forwarder must not begin elsewhere.
        if self.batches.blocking_send(Batch::start(open.position()?)).is_err() {
            return Ok(());
        }
        let (mut partial, mut chunk) = (Vec::new(), vec![0; CHUNK]);
        let mut batch = Batch::default();
        // Of a line that is too long the rest is skipped.
        let mut skipping = false;
        let mut rotated_at = None;
        while !self.stop.is_cancelled() {
            let count = open.fill(&mut chunk).with_context(|| format!("cannot read {}", open.path.display()))?;
            if count > 0 {
                partial.extend_from_slice(&chunk[..count]);
                let taken = self.take_lines(&mut open, &partial, &mut batch, &mut skipping)?;
                partial.drain(..taken);
                continue;
            }
            if !self.send(&mut open, &mut batch)? {
                return Ok(());
            }
            match self.next(&open, &mut rotated_at)? {
                Next::Wait => self.rest(),
                Next::Anew(anew) => {
                    (open, rotated_at) = (anew, None);
                    partial.clear();
                    skipping = false;
                }
                Next::File(file) => {
                    // The writer is gone: what is left without a newline is all that comes.
                    if !partial.is_empty() && !skipping {
                        partial.push(b'\n');
                        self.take_lines(&mut open, &partial, &mut batch, &mut skipping)?;
                        if !self.send(&mut open, &mut batch)? {
                            return Ok(());
                        }
                    }
                    tracing::info!(path = %file.path.display(), "{} is finished; reading {}", open.path.display(), file.path.display());
                    (open, rotated_at, skipping) = (file, None, false);
                    partial.clear();
                }
            }
        }
        Ok(())
    }

    /// Takes the complete lines of `bytes`. Returns how many bytes they are.
    fn take_lines(
        &self,
        open: &mut Open,
        bytes: &[u8],
        batch: &mut Batch,
        skipping: &mut bool,
    ) -> anyhow::Result<usize> {
        let mut taken = 0;
        while let Some(length) = bytes[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[taken..taken + length];
            if open.started.is_none() && open.is_whole && !*skipping {
                open.started = time_of(line);
            }
            if *skipping || line.len() > MAX_ALERT_BYTES {
                self.metrics.too_large.inc();
                tracing::error!(
                    "a line of {} before byte {} is longer than {MAX_ALERT_BYTES} bytes; it is left out",
                    open.path.display(),
                    open.offset
                );
            } else {
                batch.add(line, open.offset);
            }
            *skipping = false;
            taken += length + 1;
            open.offset = open.read - (bytes.len() - taken) as u64;
            if batch.is_full(&self.limits) && !self.send(open, batch)? {
                break;
            }
        }
        if bytes.len() - taken > MAX_ALERT_BYTES {
            *skipping = true;
            // One byte stays, so that the line is not empty.
            return Ok(bytes.len() - 1);
        }
        Ok(taken)
    }

    /// Sends what is gathered, and waits for room. Returns whether there is a receiver.
    fn send(&self, open: &mut Open, batch: &mut Batch) -> anyhow::Result<bool> {
        if batch.is_empty() {
            return Ok(true);
        }
        let mut full = std::mem::take(batch);
        full.end = Some(open.position()?);
        Ok(self.batches.blocking_send(full).is_ok())
    }

    /// The file to begin with. `None` when stopped before there is one.
    fn first(&self, start: Start) -> anyhow::Result<Option<Open>> {
        if let Start::After(position) = start {
            return self.resumed(&position);
        }
        let Some(mut open) = self.wait_for_main()? else { return Ok(None) };
        open.check_first_line()?;
        if matches!(start, Start::Now) {
            open.skip_to_end()?;
        }
        Ok(Some(open))
    }

    fn wait_for_main(&self) -> anyhow::Result<Option<Open>> {
        let (path, mut is_said) = (self.files.main(), false);
        while !self.stop.is_cancelled() {
            match Open::plain(path) {
                Ok(open) => return Ok(Some(open)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
            }
            if !is_said {
                tracing::warn!("{} is not there yet; waiting for it", path.display());
                is_said = true;
            }
            self.rest();
        }
        Ok(None)
    }

    /// Waits until the next look, or until the forwarder is stopped.
    fn rest(&self) {
        // Either is right; the caller asks which.
        drop(self.runtime.block_on(tokio::time::timeout(POLL, self.stop.cancelled())));
    }

    /// The file of `position`, wherever it is now. `None` when stopped before it is known.
    fn resumed(&self, position: &Position) -> anyhow::Result<Option<Open>> {
        // It may just be compressed or cut off: then it is found at one of the next looks.
        let begun = Instant::now();
        while !self.stop.is_cancelled() {
            if let Some(open) = self.found(position)? {
                return Ok(Some(open));
            }
            if begun.elapsed() > LINGER {
                return self.after_lost(position);
            }
            self.rest();
        }
        Ok(None)
    }

    fn found(&self, position: &Position) -> anyhow::Result<Option<Open>> {
        // Wider than the files that follow: one whose first line is no alert has another time each time that it grows.
        let files = self.files.since(position.started.map(|started| started.minus(SLACK)))?;
        if let Some(found) = files.iter().find(|file| file.is_of(&position.file)) {
            return Open::at(found, position);
        }
        // A file that has no complete line yet is not among them.
        let is_same = |open: &Open| {
            (open.mark.device, open.mark.inode) == (position.file.device, position.file.inode)
                && !position.file.has_head()
        };
        Ok(Open::plain(self.files.main()).ok().filter(is_same))
    }

    /// What is read instead of a file that is gone.
    fn after_lost(&self, position: &Position) -> anyhow::Result<Option<Open>> {
        self.metrics.files_lost.inc();
        let place = position.path.display();
        let offset = position.offset;
        tracing::error!(
            "{place}, of which {offset} bytes were forwarded, is gone: what was written to it after that is lost"
        );
        while !self.stop.is_cancelled() {
            let Some(after) = self.after(position.started, &position.file)? else { return self.wait_for_main() };
            if let Some(open) = Open::from_start(&after)? {
                return Ok(Some(open));
            }
            self.rest();
        }
        Ok(None)
    }

    /// What follows on the end of `open`.
    fn next(&self, open: &Open, rotated_at: &mut Option<Instant>) -> anyhow::Result<Next> {
        if let AlertFileHandle::Plain(file) = &open.file {
            let status = file.metadata()?;
            if status.len() < open.read || (open.is_idle && !open.mark.is_of(file)?) {
                return self.anew(open, rotated_at);
            }
            let main = match fs::metadata(self.files.main()) {
                Ok(main) => main,
                // Between two files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Next::Wait),
                Err(error) => return Err(error).context(format!("cannot read {}", self.files.main().display())),
            };
            if (main.dev(), main.ino()) == (status.dev(), status.ino()) {
                *rotated_at = None;
                return Ok(Next::Wait);
            }
            // The writer may still have lines for the old one.
            if rotated_at.get_or_insert_with(Instant::now).elapsed() < LINGER {
                return Ok(Next::Wait);
            }
        }
        if let Some(after) = self.after(open.started, &open.mark)? {
            // Another look, if it is another one by now.
            return Ok(Open::from_start(&after)?.map_or(Next::Wait, Next::File));
        }
        // The newest file has no complete line yet. Once it has, another one may have been written before it.
        if let Some(started) = open.started {
            return self.of_an_earlier_time(open, started);
        }
        match Open::plain(self.files.main()) {
            Ok(main) if (main.mark.device, main.mark.inode) != (open.mark.device, open.mark.inode) => {
                Ok(Next::File(main))
            }
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Next::Wait),
            Err(error) => Err(error).context(format!("cannot read {}", self.files.main().display())),
        }
    }

    /// The present file, if its first alert is not later than that of `open`, which was read to its end: the clock of the host
    /// was set back, and no file will be later for a long time.
    fn of_an_earlier_time(&self, open: &Open, started: Timestamp) -> anyhow::Result<Next> {
        let is_other = |main: &AlertFile| {
            (main.device, main.inode) != (open.mark.device, open.mark.inode) && !main.is_of(&open.mark)
        };
        let Some(main) = self.files.present().filter(|main| main.started <= started && is_other(main)) else {
            return Ok(Next::Wait);
        };
        tracing::warn!(
            "{} begins at {}, before the file that was read to its end: was the clock set back? Reading goes on with it",
            main.path.display(),
            main.started
        );
        Ok(Open::from_start(&main)?.map_or(Next::Wait, Next::File))
    }

    /// The file that was written after the one of `mark`, whose first alert has the time `started`. Without a time it is not known
    /// which one that is.
    fn after(&self, started: Option<Timestamp>, mark: &FileMark) -> io::Result<Option<AlertFile>> {
        let Some(started) = started else { return Ok(None) };
        let mut files = self.files.since(Some(started))?.into_iter();
        Ok(files.find(|file| file.started > started && !file.is_of(mark)))
    }

    /// What is read instead of a file that has lost its content: a copy that was made before, else the file from its beginning.
    fn anew(&self, open: &Open, cut_at: &mut Option<Instant>) -> anyhow::Result<Next> {
        if let Some(copy) = self.copy_of(open)? {
            let place = copy.path.display().to_string();
            let (file, path) = (open.mark.clone(), open.path.clone());
            let position = Position { file, path, offset: open.offset, started: open.started };
            let Some(copy) = Open::at(&copy, &position)? else { return Ok(Next::Wait) };
            tracing::info!(path = %place, "{} was copied and cut off; reading {place} to its end", open.path.display());
            return Ok(Next::Anew(copy));
        }
        // A copy may just be compressed.
        if cut_at.get_or_insert_with(Instant::now).elapsed() < LINGER {
            return Ok(Next::Wait);
        }
        self.metrics.truncated.inc();
        tracing::error!(
            "{} was cut off or written anew after {} bytes; reading it from its beginning",
            open.path.display(),
            open.offset
        );
        Ok(Next::Anew(Open::plain(&open.path)?))
    }

    /// Another file that begins as `open` did, as `copytruncate` of logrotate makes it.
    fn copy_of(&self, open: &Open) -> io::Result<Option<AlertFile>> {
        if !open.mark.has_head() {
            return Ok(None);
        }
        let is_other = |file: &AlertFile| (file.device, file.inode) != (open.mark.device, open.mark.inode);
        let is_copy = |file: &AlertFile| is_other(file) && file.length() >= open.offset && file.is_of(&open.mark);
        let files = self.files.since(open.started.map(|started| started.minus(SLACK)))?;
        Ok(files.into_iter().find(is_copy))
    }
}
