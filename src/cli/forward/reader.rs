//! Reads the files of alerts line by line, on a thread of its own, and gathers the lines into batches. Only complete lines are
//! taken; the end of a file that is written no more is its last line.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use riposte_protocol::time::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, BatchLimits};
use super::files::{AlertFile, AlertFiles, SLACK, time_of};
use super::metrics::ForwardMetrics;
use super::position::{FileMark, Position};
use crate::domain::formats::MAX_ALERT_BYTES;

/// Time between two looks at a file that has nothing new.
const POLL: Duration = Duration::from_millis(100);
/// Time after which a file that was rotated away gets no more lines.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

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

/// A file that is being read.
struct Open {
    file: AlertFileHandle,
    path: std::path::PathBuf,
    mark: FileMark,
    /// Bytes read, uncompressed; those of an incomplete line too.
    read: u64,
    /// Bytes of complete lines.
    offset: u64,
    started: Option<Timestamp>,
    /// Whether it is read from its beginning, so that its first alert is seen.
    is_whole: bool,
    /// Whether nothing new was there at the last look: what comes next may be the file written anew.
    is_idle: bool,
}

enum AlertFileHandle {
    Plain(File),
    Compressed(Box<MultiGzDecoder<BufReader<File>>>),
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

    /// The file of `position`, wherever it is now.
    fn resumed(&self, position: &Position) -> anyhow::Result<Option<Open>> {
        // Wider than the files that follow: one whose first line is no alert has another time each time that it grows.
        let files = self.files.since(position.started.map(|started| started.minus(SLACK)))?;
        if let Some(found) = files.iter().find(|file| file.is_of(&position.file)) {
            return Ok(Some(Open::at(found, position)?));
        }
        // A file that has no complete line yet is not among them.
        if let Ok(open) = Open::plain(self.files.main())
            && (open.mark.device, open.mark.inode) == (position.file.device, position.file.inode)
            && !position.file.has_head()
        {
            return Ok(Some(open));
        }
        self.metrics.files_lost.inc();
        let place = position.path.display();
        let offset = position.offset;
        tracing::error!(
            "{place}, of which {offset} bytes were forwarded, is gone: what was written to it after that is lost"
        );
        match self.after(position.started, &position.file)? {
            Some(after) => Ok(Some(Open::from_start(&after)?)),
            None => self.wait_for_main(),
        }
    }

    /// What follows on the end of `open`.
    fn next(&self, open: &Open, rotated_at: &mut Option<Instant>) -> anyhow::Result<Next> {
        if let AlertFileHandle::Plain(file) = &open.file {
            let status = file.metadata()?;
            if status.len() < open.read || (open.is_idle && !open.mark.is_of(file)?) {
                return self.anew(open);
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
            return Ok(Next::File(Open::from_start(&after)?));
        }
        // The newest file has no complete line yet.
        match Open::plain(self.files.main()) {
            Ok(main) if (main.mark.device, main.mark.inode) != (open.mark.device, open.mark.inode) => {
                Ok(Next::File(main))
            }
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Next::Wait),
            Err(error) => Err(error).context(format!("cannot read {}", self.files.main().display())),
        }
    }

    /// The file that was written after the one of `mark`, whose first alert has the time `started`. Without a time it is not known
    /// which one that is.
    fn after(&self, started: Option<Timestamp>, mark: &FileMark) -> io::Result<Option<AlertFile>> {
        let Some(started) = started else { return Ok(None) };
        let mut files = self.files.since(Some(started))?.into_iter();
        Ok(files.find(|file| file.started > started && !file.is_of(mark)))
    }

    fn anew(&self, open: &Open) -> anyhow::Result<Next> {
        self.metrics.truncated.inc();
        tracing::error!(
            "{} was cut off or written anew after {} bytes; reading it from its beginning",
            open.path.display(),
            open.offset
        );
        Ok(Next::Anew(Open::plain(&open.path)?))
    }
}

impl Open {
    fn plain(path: &std::path::Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mark = FileMark::of(&file, 0)?;
        let file = AlertFileHandle::Plain(file);
        Ok(Self {
            file,
            path: path.to_owned(),
            mark,
            read: 0,
            offset: 0,
            started: None,
            is_whole: true,
            is_idle: false,
        })
    }

    fn from_start(found: &AlertFile) -> anyhow::Result<Self> {
        let mut open = Self::plain(&found.path).with_context(|| format!("cannot read {}", found.path.display()))?;
        open.started = Some(found.started);
        if found.is_compressed()
            && let AlertFileHandle::Plain(file) = open.file
        {
            open.mark = open.mark.with_head_of(found.open()?)?;
            open.file = AlertFileHandle::Compressed(Box::new(MultiGzDecoder::new(BufReader::new(file))));
        }
        Ok(open)
    }

    /// The file as it is now, after what has been forwarded of it.
    fn at(found: &AlertFile, position: &Position) -> anyhow::Result<Self> {
        let mut open = Self::from_start(found)?;
        let place = found.path.display();
        match &mut open.file {
            AlertFileHandle::Plain(file) => {
                if file.metadata()?.len() < position.offset {
                    tracing::error!("{place} is shorter than what was forwarded of it; reading it from its beginning");
                    return Ok(open);
                }
                file.seek(SeekFrom::Start(position.offset))?;
            }
            AlertFileHandle::Compressed(reader) => {
                let skipped = io::copy(&mut reader.take(position.offset), &mut io::sink())?;
                if skipped < position.offset {
                    bail!("{place} is damaged: it has {skipped} bytes, and {} were forwarded before", position.offset);
                }
            }
        }
        (open.read, open.offset) = (position.offset, position.offset);
        open.mark.clone_from(&position.file);
        (open.mark.device, open.mark.inode) = (found.device, found.inode);
        Ok(open)
    }

    /// Reads more. Returns the bytes; 0 at the end.
    fn fill(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.file {
            AlertFileHandle::Plain(file) => {
                // What was compared with the mark has moved the place.
                file.seek(SeekFrom::Start(self.read))?;
                if self.is_idle && file.metadata()?.len() > self.read && !self.mark.is_of(file)? {
                    // Written anew and longer already: the next look says so.
                    return Ok(0);
                }
                file.seek(SeekFrom::Start(self.read))?;
                file.read(chunk)?
            }
            AlertFileHandle::Compressed(reader) => match reader.read(chunk) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!(
                        "{} is damaged after {} bytes: {error}; reading goes on with the next file",
                        self.path.display(),
                        self.read
                    );
                    0
                }
            },
        };
        self.is_idle = count == 0;
        self.read += count as u64;
        Ok(count)
    }

    /// The position after the lines that were taken.
    fn position(&mut self) -> io::Result<Position> {
        if self.mark.can_grow(self.offset)
            && let AlertFileHandle::Plain(file) = &self.file
        {
            self.mark = FileMark::of(file, self.offset)?;
        }
        let (file, path) = (self.mark.clone(), self.path.clone());
        Ok(Position { file, path, offset: self.offset, started: self.started })
    }

    /// Checks that the file is one with alerts, as far as it has a line.
    fn check_first_line(&mut self) -> anyhow::Result<()> {
        let AlertFileHandle::Plain(file) = &mut self.file else { return Ok(()) };
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        Read::by_ref(file).take(MAX_ALERT_BYTES as u64).read_to_end(&mut head)?;
        // What the file is known by, also before an alert of it is forwarded.
        if let Some(end) = head.iter().position(|byte| *byte == b'\n') {
            self.started = time_of(&head[..end]);
            self.mark = FileMark::of(file, end as u64 + 1)?;
        }
        let line = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
        if line.is_some_and(|line| !line.starts_with(b"{")) {
            bail!(
                "{} is not a file of alerts: its first line is not a JSON object. Give the path of Wazuh's alerts.json, such as \
                 /var/ossec/logs/alerts/alerts.json",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Goes to the end of the last complete line.
    fn skip_to_end(&mut self) -> anyhow::Result<()> {
        let AlertFileHandle::Plain(file) = &mut self.file else { return Ok(()) };
        let mut end = file.metadata()?.len();
        let mut chunk = vec![0; CHUNK];
        while end > 0 {
            let from = end.saturating_sub(CHUNK as u64);
            let part = &mut chunk[..usize::try_from(end - from)?];
            file.seek(SeekFrom::Start(from))?;
            file.read_exact(part)?;
            if let Some(last) = part.iter().rposition(|byte| *byte == b'\n') {
                (self.read, self.offset) = (from + last as u64 + 1, from + last as u64 + 1);
                self.is_whole = false;
                break;
            }
            end = from;
        }
        Ok(())
    }
}
