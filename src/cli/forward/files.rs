//! The files that a Wazuh manager writes its alerts to. `alerts.json` is a hard link to the file of the day,
//! `2026/Nov/ossec-alerts-29.json`; at midnight, and by size or time if so configured, Wazuh begins a new one. Old files are
//! compressed. Other programs rotate to `alerts.json.1`, `alerts.json.2.gz` beside it. What order the files have is said by the
//! time of their first alert, since names and times of files differ from one way of rotation to the other.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;
use riposte_protocol::time::Timestamp;

use super::position::FileMark;
use crate::domain::formats::{self, AlertMappings, MAX_ALERT_BYTES};

/// Days before the present file whose folders are looked at: a file may hold alerts of the day before its name.
pub(super) const SLACK: Duration = Duration::from_hours(48);
/// Looks at the files until none of them is replaced meanwhile.
const LOOKS: usize = 100;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A file with alerts, or one that had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AlertFile {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Time of the first alert; that of the file if the first line is none.
    pub(super) started: Timestamp,
    /// Size on disk.
    pub(super) bytes: u64,
}

impl AlertFile {
    pub(super) fn is_compressed(&self) -> bool {
        is_gz(&self.path)
    }

    /// Length of its content in bytes, uncompressed. A compressed file says it at its end, without what is above 4 GiB.
    pub(super) fn length(&self) -> u64 {
        const MODULUS: u64 = 1 << 32;
        const SMALL: u64 = 64 * 1024;
        if !self.is_compressed() {
            return self.bytes;
        }
        let told = last_four(&self.path).map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes)));
        // Alerts become shorter, but for a few bytes of a small file: what is longer on disk has passed the limit.
        told + self.bytes.saturating_sub(told + SMALL).div_ceil(MODULUS) * MODULUS
    }

    /// Its content, from the beginning.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        open(&self.path)
    }

    /// Whether it is the file of `mark`: the same one, or one with the same content.
    pub(super) fn is_of(&self, mark: &FileMark) -> bool {
        let is_same = (self.device, self.inode) == (mark.device, mark.inode);
        if !mark.has_head() {
            return is_same;
        }
        self.open().is_ok_and(|reader| mark.begins(reader))
    }
}

fn last_four(path: &Path) -> io::Result<[u8; 4]> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-4))?;
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn is_gz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    Ok(if is_gz(path) { Box::new(MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) })
}

/// `alerts.json`, and what stands around it.
#[derive(Clone, Debug)]
pub(super) struct AlertFiles {
    main: PathBuf,
}

impl AlertFiles {
    pub(super) const fn new(main: PathBuf) -> Self {
        Self { main }
    }

    /// The path of the file that is written now.
    pub(super) fn main(&self) -> &Path {
        &self.main
    }

    /// The files from `since` on, in the order in which they were written, each once. One without a complete line is left out:
    /// it has nothing to forward yet.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub(super) fn since(&self, since: Option<Timestamp>) -> io::Result<Vec<AlertFile>> {
        for _ in 0..LOOKS {
            if let Some(files) = self.look(since)? {
                return Ok(files);
            }
        }
        Err(io::Error::other(format!(
            "the files in {} are replaced faster than they are read",
            self.folder().display()
        )))
    }

    /// The present file; `None` without a complete line.
    pub(super) fn present(&self) -> Option<AlertFile> {
        let status = fs::metadata(&self.main).ok()?;
        let started = started(&self.main, &status)?;
        let (device, inode, bytes) = (status.dev(), status.ino(), status.len());
        Some(AlertFile { path: self.main.clone(), device, inode, started, bytes })
    }

    /// One look. `None` if a file was moved or compressed meanwhile: without it, the one after it would be taken for the next.
    fn look(&self, since: Option<Timestamp>) -> io::Result<Option<Vec<AlertFile>>> {
        let mut paths = self.dated(since.map(|since| since.minus(SLACK)))?;
        paths.extend(self.beside()?);
        // Plain files first: a compressed one may not be complete while the plain one is there.
        paths.sort_by_key(|path| (is_gz(path), path.clone()));
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        for path in paths {
            let Ok(status) = fs::metadata(&path) else {
                if is_there(&path) {
                    continue;
                }
                return Ok(None);
            };
            if !status.is_file() || !seen.insert((status.dev(), status.ino())) {
                continue;
            }
            let Some(started) = started(&path, &status) else {
                if is_there(&path) {
                    continue;
                }
                return Ok(None);
            };
            files.push(AlertFile { path, device: status.dev(), inode: status.ino(), started, bytes: status.len() });
        }
        files.sort_by_key(|file| (file.started, file.is_compressed()));
        files.dedup_by(|one, other| one.is_compressed() && one.started == other.started);
        files.retain(|file| since.is_none_or(|since| file.started >= since));
        Ok(Some(files))
    }

    /// The files of days from `since` on, below the folder of `alerts.json`.
    fn dated(&self, since: Option<Timestamp>) -> io::Result<Vec<PathBuf>> {
        let first = since.map(date);
        let mut paths = Vec::new();
        for (year_dir, name) in entries(self.folder())? {
            let Ok(year) = name.parse::<i16>() else { continue };
            for (month_dir, name) in entries(&year_dir)? {
                let Some(month) = (1..).zip(MONTHS).find_map(|(number, month)| (month == name).then_some(number))
                else {
                    continue;
                };
                if first.is_some_and(|(first_year, first_month, _)| (year, month) < (first_year, first_month)) {
                    continue;
                }
                let is_recent = |day: i16| first.is_none_or(|first| (year, month, day) >= first);
                let names = entries(&month_dir)?.into_iter();
                paths.extend(names.filter(|(_, name)| day_of(name).is_some_and(is_recent)).map(|(path, _)| path));
            }
        }
        Ok(paths)
    }

    /// `alerts.json` itself, and what it was renamed to.
    fn beside(&self) -> io::Result<Vec<PathBuf>> {
        let Some(own) = self.main.file_name().and_then(|name| name.to_str()) else {
            return Ok(vec![self.main.clone()]);
        };
        let is_rotated = |name: &str| {
            name.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
                && Path::new(name).extension().is_none_or(|extension| extension != "sum")
        };
        let found = entries(self.folder())?.into_iter();
        Ok(found.filter(|(_, name)| is_rotated(name)).map(|(path, _)| path).collect())
    }

    fn folder(&self) -> &Path {
        self.main.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

/// The day of a file of Wazuh's with alerts as JSON: `ossec-alerts-29.json`, `ossec-alerts-29-001.json.gz`.
fn day_of(name: &str) -> Option<i16> {
    let rest = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".json")?.strip_prefix("ossec-alerts-")?;
    rest.get(..2)?.parse().ok()
}

fn date(time: Timestamp) -> (i16, i16, i16) {
    // RFC 3339 in UTC: `2026-11-…`.
    let text = time.to_string();
    let part = |range: std::ops::Range<usize>| -> i16 {
        text.get(range).and_then(|digits| digits.parse().ok()).unwrap_or_default()
    };
    (part(0..4), part(5..7), part(8..10))
}

/// The entries of a folder with their names; none if there is no such folder, or it is none.
fn entries(folder: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let found = match fs::read_dir(folder) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        Err(error) => return Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", folder.display()))),
    };
    let named = found.map(|entry| entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())));
    named.collect()
}

/// Whether there is a file of this name, be it a link to nothing.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Time of the first alert of a file. `None` without a complete line.
fn started(path: &Path, status: &fs::Metadata) -> Option<Timestamp> {
    let mut line = Vec::new();
    let limit = MAX_ALERT_BYTES as u64 + 1;
    BufReader::new(open(path).ok()?.take(limit)).read_until(b'\n', &mut line).ok()?;
    if !line.ends_with(b"\n") && (line.len() as u64) < limit {
        return None;
    }
    Some(time_of(&line).unwrap_or_else(|| {
        let age = status.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Timestamp::default().plus(age)
    }))
}

/// The time of an alert, if `line` is one.
pub(super) fn time_of(line: &[u8]) -> Option<Timestamp> {
    let (_, alert) = formats::read(line.trim_ascii(), &AlertMappings::default(), None).ok()?;
    alert.is_timed.then_some(alert.time)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An alert of this second.
    pub(in crate::cli::forward) fn line(second: u8) -> String {
        format!(
            r#"{{"timestamp":"2026-11-29T10:00:{second:02}.000+0000","id":"1.{second}","rule":{{"id":"1","level":3}},"agent":{{"id":"1"}}}}"#
        ) + "\n"
    }

    #[test]
    fn files_are_in_the_order_of_their_first_alerts_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("2026/Nov")).unwrap();
        fs::create_dir_all(at("2026/Oct")).unwrap();
        fs::write(at("2026/Nov/ossec-alerts-29-001.json"), line(3)).unwrap();
        fs::write(at("2026/Nov/ossec-alerts-29.json"), line(2)).unwrap();
        fs::write(at("2026/Nov/ossec-alerts-29.log"), line(9)).unwrap();
        fs::write(at("2026/Nov/ossec-alerts-30.json"), "").unwrap();
        fs::hard_link(at("2026/Nov/ossec-alerts-29-001.json"), at("alerts.json")).unwrap();
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(line(1).as_bytes()).unwrap();
        fs::write(at("2026/Nov/ossec-alerts-28.json.gz"), gz.finish().unwrap()).unwrap();
        // Cut off while it is made; the plain one is still there.
        fs::write(at("2026/Nov/ossec-alerts-29.json.gz"), b"\x1f\x8b").unwrap();
        let files = AlertFiles::new(at("alerts.json"));
        let names = |since| {
            let found = files.since(since).unwrap().into_iter();
            found.map(|file| file.path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let of_now = ["ossec-alerts-28.json.gz", "ossec-alerts-29.json", "ossec-alerts-29-001.json"];
        assert_eq!(names(None), of_now);
        // As long as its content, also compressed; one that says less than it has on disk is longer than 4 GiB.
        let lengths: Vec<u64> = files.since(None).unwrap().iter().map(AlertFile::length).collect();
        assert_eq!(lengths, [1, 2, 3].map(|second| line(second).len() as u64));
        let mut long = files.since(None).unwrap().remove(0);
        long.bytes = 90_000;
        assert_eq!(long.length(), line(1).len() as u64 + (1 << 32));
        let third = files.since(None).unwrap()[2].started;
        assert_eq!(names(Some(third)), ["ossec-alerts-29-001.json"]);
        // A link to nothing is no file that was moved.
        std::os::unix::fs::symlink(at("absent"), at("alerts.json.old")).unwrap();
        assert_eq!(names(None), of_now);
        assert!(AlertFiles::new(at("absent/alerts.json")).since(None).unwrap().is_empty());
    }
}
