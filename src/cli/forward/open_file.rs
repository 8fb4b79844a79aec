//! A file that is being read. Files are replaced at any time, so what was found is looked at again
//! once it is open: one that was moved, compressed or cut off in between is not read as if it were
//! the other.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use riposte_protocol::time::Timestamp;

use super::files::{AlertFile, time_of};
use super::position::{FileMark, Position};
use crate::domain::formats::MAX_ALERT_BYTES;

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 256 * 1024;

/// A file that is being read.
pub(super) struct Open {
    pub(super) file: AlertFileHandle,
    pub(super) path: PathBuf,
    pub(super) mark: FileMark,
    /// Bytes read, uncompressed; those of an incomplete line too.
    pub(super) read: u64,
    /// Bytes of complete lines.
    pub(super) offset: u64,
    pub(super) started: Option<Timestamp>,
    /// Whether it is read from its beginning, so that its first alert is seen.
    pub(super) is_whole: bool,
    /// Whether nothing new was there at the last look: what comes next may be the file written
    /// anew.
    pub(super) is_idle: bool,
}

pub(super) enum AlertFileHandle {
    Plain(File),
    Compressed(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Open {
    /// A file that is not compressed, from its beginning.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn plain(path: &Path) -> io::Result<Self> {
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

    /// A file that was found, from its beginning. `None` if it is another one by now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn from_start(found: &AlertFile) -> anyhow::Result<Option<Self>> {
        match Self::of(found) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
            opened => opened.with_context(|| format!("cannot read {}", found.path.display())),
        }
    }

    fn of(found: &AlertFile) -> io::Result<Option<Self>> {
        let mut open = Self::plain(&found.path)?;
        if (open.mark.device, open.mark.inode) != (found.device, found.inode) {
            return Ok(None);
        }
        open.started = Some(found.started);
        let AlertFileHandle::Plain(mut file) = open.file else { return Ok(None) };
        if found.is_compressed() {
            match open.mark.clone().with_head_of(MultiGzDecoder::new(BufReader::new(file.try_clone()?))) {
                Ok(mark) => open.mark = mark,
                // Damaged, and not just being made: it is read as far as it can be.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && file.metadata()?.len() == found.bytes => {
                }
                Err(error) => return Err(error),
            }
            file.seek(SeekFrom::Start(0))?;
            open.file = AlertFileHandle::Compressed(Box::new(MultiGzDecoder::new(BufReader::new(file))));
            return Ok(Some(open));
        }
        let mut first = Vec::new();
        BufReader::new(Read::by_ref(&mut file)).take(MAX_ALERT_BYTES as u64 + 1).read_until(b'\n', &mut first)?;
        // Without a time it is known by what it has.
        if first.is_empty() || time_of(&first).is_some_and(|time| time != found.started) {
            return Ok(None);
        }
        open.mark = FileMark::of(&file, first.len() as u64)?;
        open.file = AlertFileHandle::Plain(file);
        Ok(Some(open))
    }

    /// A file that was found, after what has been forwarded of it. `None` if it is another one by
    /// now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn at(found: &AlertFile, position: &Position) -> anyhow::Result<Option<Self>> {
        let Some(mut open) = Self::from_start(found)? else { return Ok(None) };
        let place = found.path.display();
        match &mut open.file {
            AlertFileHandle::Plain(file) => {
                if position.file.has_head() && !position.file.is_of(file)? {
                    return Ok(None);
                }
                if file.metadata()?.len() < position.offset {
                    tracing::error!("{place} is shorter than what was forwarded of it; reading it from its beginning");
                    return Ok(Some(open));
                }
                file.seek(SeekFrom::Start(position.offset))?;
            }
            AlertFileHandle::Compressed(reader) => {
                // A forwarder that ends here would end at each start.
                let offset = position.offset;
                match io::copy(&mut reader.take(offset), &mut io::sink()) {
                    Ok(skipped) if skipped == offset => {}
                    Ok(skipped) => tracing::error!(
                        "{place} has {skipped} bytes, and {offset} were forwarded before; reading goes on with the next file"
                    ),
                    Err(error) => tracing::error!("{place} is damaged: {error}; reading goes on with the next file"),
                }
            }
        }
        (open.read, open.offset) = (position.offset, position.offset);
        open.mark.clone_from(&position.file);
        (open.mark.device, open.mark.inode) = (found.device, found.inode);
        Ok(Some(open))
    }

    /// Reads more. Returns the bytes; 0 at the end.
    pub(super) fn fill(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.file {
            AlertFileHandle::Plain(file) => {
                // What was compared with the mark has moved the place.
                file.seek(SeekFrom::Start(self.read))?;
                if file.metadata()?.len() > self.read && !self.mark.is_of(file)? {
                    // Written anew and longer already: the next look says so.
                    self.is_idle = true;
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
    pub(super) fn position(&mut self) -> io::Result<Position> {
        if self.mark.can_grow(self.offset)
            && let AlertFileHandle::Plain(file) = &self.file
        {
            // Of a file that was cut off meanwhile the old mark stays: the next look compares it.
            match FileMark::of(file, self.offset) {
                Ok(mark) if self.mark.is_of(file)? => self.mark = mark,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        let (file, path) = (self.mark.clone(), self.path.clone());
        Ok(Position { file, path, offset: self.offset, started: self.started })
    }

    /// Checks that the file is one with alerts, as far as it has a line.
    pub(super) fn check_first_line(&mut self) -> anyhow::Result<()> {
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
    pub(super) fn skip_to_end(&mut self) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::super::files::AlertFiles;
    use super::super::files::tests::line;
    use super::*;

    #[test]
    fn a_file_that_became_another_one_after_it_was_found_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("alerts.json");
        let files = AlertFiles::new(main.clone());
        let write = |text: &str| {
            std::fs::write(&main, text).unwrap();
            files.since(None).unwrap().remove(0)
        };
        let found = write(&line(1));
        let mut open = Open::from_start(&found).unwrap().unwrap();
        (open.read, open.offset) = (found.bytes, found.bytes);
        let position = open.position().unwrap();
        assert_eq!(position.offset, found.bytes);
        let grown = write(&(line(1) + &line(2)));
        assert!(Open::from_start(&found).unwrap().is_some() && Open::at(&grown, &position).unwrap().is_some());
        // Cut off, also with as many bytes as before.
        std::fs::write(&main, "").unwrap();
        assert!(Open::from_start(&grown).unwrap().is_none());
        std::fs::write(&main, line(3)).unwrap();
        assert!(Open::from_start(&grown).unwrap().is_none() && Open::at(&grown, &position).unwrap().is_none());
        // Another file, and none.
        std::fs::rename(&main, dir.path().join("alerts.json.1")).unwrap();
        std::fs::write(&main, line(1)).unwrap();
        assert!(Open::from_start(&found).unwrap().is_none());
        std::fs::remove_file(&main).unwrap();
        assert!(Open::from_start(&found).unwrap().is_none());
    }
}
