//! The files of alerts of a Wazuh manager, as it writes and rotates them: `alerts.json` is a hard
//! link to the file of the day, which gets numbered parts; days before are compressed, and
//! `copytruncate` of logrotate copies the file and cuts it off. Days go by faster than here. It
//! notes which lines are there as a whole: each of them must be answered once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use riposte_protocol::time::Timestamp;

use crate::plan::{FIRST_WRITTEN, Plan};

/// The day on which it begins. The managers of a run judge no age.
const FIRST_DAY: &str = "2025-01-01T00:00:00Z";
const DAY: Duration = Duration::from_hours(24);
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Numbers of the alerts whose lines are whole.
    pub(crate) numbers: BTreeSet<u64>,
    /// How often each thing happened to the files.
    pub(crate) happened: BTreeMap<&'static str, usize>,
}

/// What is done to the files beside writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// A new part of the day. The file of before gets the rest of a line that was begun.
    Part,
    /// A new day.
    Midnight,
    /// A new day; the files of the day before are compressed.
    MidnightCompressed,
    /// A copy beside the file, which is cut off.
    Copied,
    /// The same, and the copy is compressed.
    CopiedCompressed,
}

impl Rotation {
    /// Number `nth` of all kinds, over and over.
    pub(crate) fn of(nth: u64) -> Self {
        const ALL: [Rotation; 5] = [
            Rotation::Part,
            Rotation::Midnight,
            Rotation::MidnightCompressed,
            Rotation::Copied,
            Rotation::CopiedCompressed,
        ];
        ALL[usize::try_from(nth % 5).unwrap_or(0)]
    }

    /// Name for people.
    const fn name(self) -> &'static str {
        match self {
            Self::Part => "a new part of the day",
            Self::Midnight => "a new day",
            Self::MidnightCompressed => "a new day, the old one compressed",
            Self::Copied => "copied and cut off",
            Self::CopiedCompressed => "copied and cut off, the copy compressed",
        }
    }
}

/// The rest of a line, and the file that it belongs to.
#[derive(Debug)]
struct Rest {
    file: File,
    bytes: Vec<u8>,
    number: u64,
}

/// The files.
#[derive(Debug)]
pub(crate) struct AlertFiles {
    folder: PathBuf,
    file: File,
    plan: Plan,
    next: u64,
    rest: Option<Rest>,
    day: Timestamp,
    part: u32,
    copies: u32,
    pub(crate) written: Written,
}

/// The folder of a day, and what its files begin with.
fn place(day: Timestamp) -> anyhow::Result<(String, String)> {
    let text = day.to_string();
    let month = MONTHS[text[5..7].parse::<usize>()? - 1];
    Ok((format!("{}/{month}", &text[..4]), format!("ossec-alerts-{}", &text[8..10])))
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create_new(true).append(true).open(path)
}

/// Replaces a file by a compressed one, which is there in part before.
fn gzip(path: &Path) -> std::io::Result<()> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&fs::read(path)?)?;
    let bytes = gz.finish()?;
    let mut file = File::create(format!("{}.gz", path.display()))?;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)?;
    file.write_all(second)?;
    fs::remove_file(path)
}

impl AlertFiles {
    /// An empty file of the first day in `folder`, which is created.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn create(folder: PathBuf, plan: Plan) -> anyhow::Result<Self> {
        let day: Timestamp = FIRST_DAY.parse()?;
        let (of_day, name) = place(day)?;
        fs::create_dir_all(folder.join(&of_day))?;
        let path = folder.join(of_day).join(format!("{name}.json"));
        let file = append(&path)?;
        fs::hard_link(&path, folder.join("alerts.json"))?;
        let written = Written::default();
        Ok(Self { folder, file, plan, next: FIRST_WRITTEN, rest: None, day, part: 0, copies: 0, written })
    }

    /// The path of `alerts.json`.
    pub(crate) fn main(&self) -> PathBuf {
        self.folder.join("alerts.json")
    }

    /// Writes a line. One that was begun is completed before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn line(&mut self) -> anyhow::Result<()> {
        self.begin_line()?;
        self.end_line()
    }

    /// Writes a part of a line.
    ///
    /// # Errors
    /// As [`AlertFiles::line`].
    pub(crate) fn begin_line(&mut self) -> anyhow::Result<()> {
        self.end_line()?;
        let number = self.next;
        self.next += 1;
        // Each a millisecond later: the order of files follows from their alerts.
        let time = self.day.plus(Duration::from_millis(number - FIRST_WRITTEN));
        let mut alert = self.plan.alert(number);
        alert["timestamp"] = time.to_string().into();
        let line = format!("{alert}\n").into_bytes();
        let (first, rest) = line.split_at(line.len() / 3);
        self.file.write_all(first)?;
        self.rest = Some(Rest { file: self.file.try_clone()?, bytes: rest.to_vec(), number });
        Ok(())
    }

    /// Completes a line that was begun.
    ///
    /// # Errors
    /// As [`AlertFiles::line`].
    pub(crate) fn end_line(&mut self) -> anyhow::Result<()> {
        if let Some(Rest { mut file, bytes, number }) = self.rest.take() {
            file.write_all(&bytes)?;
            self.written.numbers.insert(number);
        }
        Ok(())
    }

    /// Does this to the files. A line that was begun is completed: after the new part has begun,
    /// before everything else.
    ///
    /// # Errors
    /// If the files cannot be changed.
    pub(crate) fn rotate(&mut self, rotation: Rotation) -> anyhow::Result<()> {
        *self.written.happened.entry(rotation.name()).or_default() += 1;
        if rotation != Rotation::Part {
            self.end_line()?;
        }
        match rotation {
            Rotation::Part => {
                self.part += 1;
                let (of_day, name) = place(self.day)?;
                self.begin_file(&of_day, &format!("{name}-{:03}.json", self.part))?;
                self.end_line()?;
            }
            Rotation::Midnight | Rotation::MidnightCompressed => {
                let before = self.day;
                (self.day, self.part) = (self.day.plus(DAY), 0);
                let (of_day, name) = place(self.day)?;
                fs::create_dir_all(self.folder.join(&of_day))?;
                self.begin_file(&of_day, &format!("{name}.json"))?;
                if rotation == Rotation::MidnightCompressed {
                    self.compress(before)?;
                }
            }
            Rotation::Copied | Rotation::CopiedCompressed => {
                self.copies += 1;
                let copy = self.folder.join(format!("alerts.json.{}", self.copies));
                fs::copy(self.main(), &copy)?;
                if rotation == Rotation::CopiedCompressed {
                    gzip(&copy)?;
                }
                self.file.set_len(0)?;
            }
        }
        Ok(())
    }

    fn begin_file(&mut self, of_day: &str, name: &str) -> anyhow::Result<()> {
        fs::remove_file(self.main())?;
        let path = self.folder.join(of_day).join(name);
        self.file = append(&path)?;
        fs::hard_link(&path, self.main())?;
        Ok(())
    }

    fn compress(&self, day: Timestamp) -> anyhow::Result<()> {
        let (of_day, begins) = place(day)?;
        for entry in fs::read_dir(self.folder.join(of_day))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&begins) && name.ends_with(".json") {
                gzip(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_line_is_in_one_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { seed: 1, agents: 2, brief: Duration::from_secs(5), lasting: true };
        let mut files = AlertFiles::create(dir.path().join("alerts"), plan).unwrap();
        for nth in 0..40 {
            files.line().unwrap();
            files.begin_line().unwrap();
            files.rotate(Rotation::of(nth)).unwrap();
        }
        files.begin_line().unwrap();
        assert_eq!(files.written.numbers, (FIRST_WRITTEN..FIRST_WRITTEN + 80).collect(), "the last is not whole");
        assert_eq!(files.written.happened.len(), 5);
        let (mut text, mut folders) = (String::new(), vec![dir.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match path.extension().and_then(|extension| extension.to_str()) {
                    None => folders.push(path),
                    Some("gz") => {
                        let mut gz = flate2::read::GzDecoder::new(File::open(path).unwrap());
                        std::io::Read::read_to_string(&mut gz, &mut text).unwrap();
                    }
                    // The same file by another name.
                    Some(_) if path.ends_with("alerts.json") => {}
                    Some(_) => text.push_str(&fs::read_to_string(path).unwrap()),
                }
            }
        }
        for number in FIRST_WRITTEN..FIRST_WRITTEN + 80 {
            assert_eq!(text.matches(&format!(".{number}\"")).count(), 1, "{number}");
        }
    }
}
