//! A Wazuh manager as far as its files of alerts go.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use riposte_protocol::time::Timestamp;
use serde_json::json;
use tempfile::TempDir;

use crate::processes::now;

/// Writes alerts as a Wazuh manager does.
pub(super) struct Writer {
    pub(super) dir: TempDir,
    pub(super) file: File,
    pub(super) number: u64,
    part: u32,
    copies: u32,
    /// Midnight of the present day: days go by faster than here.
    pub(super) day: Timestamp,
}

/// Days before today on which a writer begins: its files and alerts are of the past.
const BEGINS: Duration = Duration::from_hours(24 * 40);

/// The folder of a day, and what its files begin with.
fn place(day: Timestamp) -> (String, String) {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = day.to_string();
    let month = MONTHS[text[5..7].parse::<usize>().unwrap() - 1];
    (format!("{}/{month}", &text[..4]), format!("ossec-alerts-{}", &text[8..10]))
}

impl Writer {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let begun = now().minus(BEGINS).to_string();
        let day: Timestamp = format!("{}T00:00:00.000Z", &begun[..10]).parse().unwrap();
        let (folder, name) = place(day);
        fs::create_dir_all(dir.path().join(&folder)).unwrap();
        let path = dir.path().join(folder).join(format!("{name}.json"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path).unwrap();
        fs::hard_link(&path, dir.path().join("alerts.json")).unwrap();
        Self { dir, file, number: 0, part: 0, copies: 0, day }
    }

    pub(super) fn main(&self) -> PathBuf {
        self.dir.path().join("alerts.json")
    }

    pub(super) fn line(&mut self) -> String {
        self.number += 1;
        let number = self.number;
        // Each a millisecond later: what order files have is said by their alerts.
        let time = self.day.plus(Duration::from_millis(number));
        json!({"timestamp": time, "rule": {"level": 3, "id": "5501", "description": "PAM: Login session opened.", "groups": ["pam"]},
            "agent": {"id": "005", "name": "web-01"}, "manager": {"name": "wazuh"}, "id": format!("{}.{number}", time.as_secs()),
            "full_log": "session opened", "decoder": {"name": "pam"}, "data": {"dstuser": "root"}, "location": "/var/log/auth.log"})
        .to_string()
            + "\n"
    }

    pub(super) fn write(&mut self, count: u64) {
        for _ in 0..count {
            let line = self.line();
            self.file.write_all(line.as_bytes()).unwrap();
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.dir.path().join(place(self.day).0)
    }

    /// Returns the file of before.
    pub(super) fn begin(&mut self, path: &Path) -> File {
        fs::remove_file(self.main()).unwrap();
        let file = OpenOptions::new().create_new(true).append(true).open(path).unwrap();
        fs::hard_link(path, self.main()).unwrap();
        std::mem::replace(&mut self.file, file)
    }

    /// A new part of the day, with a name of its own.
    pub(super) fn next_part(&mut self) -> File {
        self.part += 1;
        self.begin(&self.folder().join(format!("{}-{:03}.json", place(self.day).1, self.part)))
    }

    /// As logrotate does with `copytruncate`: the copy lies beside the file, which begins again.
    pub(super) fn copy_and_truncate(&mut self, compress: bool) {
        self.copies += 1;
        let copy = self.dir.path().join(format!("alerts.json.{}", self.copies));
        fs::copy(self.main(), &copy).unwrap();
        if compress {
            gzip(&copy);
        }
        self.file.set_len(0).unwrap();
    }

    /// A new day. The files of the day before are compressed, and removed.
    pub(super) fn midnight(&mut self, compress: bool) {
        let before = self.day;
        self.day = self.day.plus(Duration::from_hours(24));
        self.part = 0;
        fs::create_dir_all(self.folder()).unwrap();
        self.begin(&self.folder().join(format!("{}.json", place(self.day).1)));
        if compress {
            self.compress(before);
        }
    }

    pub(super) fn compress(&self, day: Timestamp) {
        let (folder, of_day) = place(day);
        let folder = self.dir.path().join(folder);
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with(&of_day) && !name.contains(".gz") {
                gzip(&entry.path());
            }
        }
    }
}

/// Replaces a file by a compressed one.
fn gzip(path: &Path) {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&fs::read(path).unwrap()).unwrap();
    fs::write(format!("{}.gz", path.display()), gz.finish().unwrap()).unwrap();
    fs::remove_file(path).unwrap();
}
