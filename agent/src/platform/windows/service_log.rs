//! The log of the service: a file beside the state, which is rotated; warnings and errors also in
//! the system's log of events.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::event_log::EventLog;
use super::guarded::{self, Mode, OFlags};

/// Size at which the file is put aside, in bytes; one older file is kept.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// The log's file.
pub fn file_of(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.log")
}

/// Starts the log.
///
/// # Errors
/// When the file cannot be opened, or other accounts could have chosen it.
pub fn start(state_dir: &Path) -> io::Result<()> {
    let path = file_of(state_dir);
    let file = Mutex::new(LogFile { file: open(&path)?, path });
    // A host whose log of events is out of order still has the file.
    let events = EventLog::open().ok();
    let log = Log(Arc::new(Outputs { file, events }));
    let filter = EnvFilter::try_from_env("RIPOSTE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _already_started =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log).try_init();
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let place = guarded::place(path)?;
    place.folder.require_sure()?;
    Ok(place.folder.open(
        &place.name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
        Mode::RUSR.union(Mode::WUSR),
    )?)
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.len() > MAX_BYTES {
            guarded::rename(&self.path, &self.path.with_extension("log.1"), true)?;
            self.file = open(&self.path)?;
        }
        self.file.write_all(line)
    }
}

#[derive(Debug)]
struct Outputs {
    file: Mutex<LogFile>,
    events: Option<EventLog>,
}

/// Both outputs.
#[derive(Clone, Debug)]
struct Log(Arc<Outputs>);

/// One line for them.
#[derive(Debug)]
struct Line {
    outputs: Arc<Outputs>,
    level: Level,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { outputs: Arc::clone(&self.0), level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { outputs: Arc::clone(&self.0), level: *metadata.level() }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(events) = self.outputs.events.as_ref().filter(|_| self.level <= Level::WARN) {
            // The file has the line as well, so an event that is lost is not the last word.
            let _lost = events.write(String::from_utf8_lossy(line).trim_end(), self.level == Level::ERROR);
        }
        self.outputs.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
