//! The file of an export: one zstd frame, in it lines. The first one is the head: version of the format
//! and of the schema, the tables with their columns and the number of their rows. Then come the rows, table
//! by table. The last line is the end: a digest of each table, and SHA-256 of all lines before it. So a cut
//! or changed file is found before anything is done with it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::transfer::row::LinesDigest;
use crate::store::transfer::tables::{ExportedTable, TABLES};
use crate::store::transfer::target;

/// Version of the format.
const FORMAT: u32 = 1;
/// Level of zstd: the alerts are compressed already.
const LEVEL: i32 = 3;
/// Longest line, in bytes: several times the largest alert.
const LINE_BYTES: u64 = 256 * 1024 * 1024;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    riposte_export: u32,
    /// Version of the program that wrote the file.
    pub(super) version: String,
    /// Version of the ledger's schema: the number of its last migration.
    pub(super) schema: i64,
    /// When, RFC 3339.
    pub(super) made_at: String,
    tables: Vec<TableHead>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TableHead {
    name: String,
    columns: Vec<String>,
    rows: u64,
}

impl Head {
    /// The head of an export of a ledger with so many rows in each table.
    pub(super) fn new(schema: i64, made_at: String, counts: &[u64]) -> Self {
        let of = |(table, rows): (&ExportedTable, &u64)| {
            let columns = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
            TableHead { name: table.name.to_owned(), columns, rows: *rows }
        };
        let tables = TABLES.iter().zip(counts).map(of).collect();
        Self { riposte_export: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), schema, made_at, tables }
    }

    /// The number of all rows.
    pub(super) fn rows(&self) -> u64 {
        self.tables.iter().fold(0, |sum: u64, table| sum.saturating_add(table.rows))
    }

    /// Refuses what this version cannot import as it is.
    fn check(&self, known: i64) -> anyhow::Result<()> {
        let (version, schema) = (&self.version, self.schema);
        ensure!(
            self.riposte_export == FORMAT && schema <= known,
            "it was written by a newer version ({version}, schema {schema}; this one knows schema {known}): import it with that version"
        );
        ensure!(
            schema == known,
            "it was written by an older version ({version}, schema {schema}; this one needs schema {known}): start this version once on \
             the old database, which brings that up to date, stop it, and export again"
        );
        let is_known = |(table, known): (&TableHead, &ExportedTable)| {
            table.name == known.name && table.columns.iter().eq(known.columns.iter().map(|(name, _)| name))
        };
        let are_known = self.tables.len() == TABLES.len() && self.tables.iter().zip(TABLES).all(is_known);
        ensure!(are_known, "its tables are not those of this version ({version}): import it with that version");
        Ok(())
    }
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    digests: Vec<String>,
    sha256: String,
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes an export. The file has its name only when it is whole and on disk.
pub(super) struct ExportWriter {
    path: PathBuf,
    partial: PathBuf,
    encoder: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    hash: Sha256,
}

impl ExportWriter {
    /// Creates the file, readable for its owner only: it contains the hashes of passwords and keys.
    ///
    /// # Errors
    /// If it exists, or cannot be written.
    pub(super) fn create(path: &Path, head: &Head) -> anyhow::Result<Self> {
        ensure!(!path.exists(), "{} exists already", path.display());
        let partial = path.with_added_extension("partial");
        // Of an export that was killed. A new file, so that its mode is ours and it is no link.
        if let Err(error) = std::fs::remove_file(&partial)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove {}", partial.display()));
        }
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial);
        let file = file.with_context(|| format!("cannot write {}", partial.display()))?;
        let mut encoder = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
        encoder.include_checksum(true)?;
        let mut writer = Self { path: path.to_owned(), partial, encoder, hash: Sha256::new() };
        writer.line(&serde_json::to_string(head)?)?;
        Ok(writer)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        for part in [text.as_bytes(), b"\n"] {
            self.hash.update(part);
            self.encoder.write_all(part).with_context(|| format!("cannot write {}", self.partial.display()))?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(mut self, digests: &[LinesDigest]) -> anyhow::Result<()> {
        let sha256 = hex(std::mem::take(&mut self.hash));
        let end = End { digests: digests.iter().map(LinesDigest::text).collect(), sha256 };
        self.line(&serde_json::to_string(&end)?)?;
        let Self { path, partial, encoder, .. } = self;
        let finish = || -> std::io::Result<()> {
            encoder.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&partial, &path)?;
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(dir)?.sync_all()
        };
        finish().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What a whole file is.
pub(super) struct Checked {
    /// SHA-256 of its lines, by which it is known again.
    pub(super) sha256: String,
    /// Digests of its tables, in the order of [`TABLES`].
    pub(super) digests: Vec<LinesDigest>,
}

/// Reads an export.
pub(super) struct ExportReader {
    path: PathBuf,
    lines: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
    hash: Sha256,
    pub(super) head: Head,
    /// Of what was read of each table.
    digests: Vec<LinesDigest>,
    /// The number of the table that is being read.
    nth: usize,
}

impl ExportReader {
    /// Opens a file and reads its head. `known` is the version of the schema that this program knows.
    ///
    /// # Errors
    /// If it is no export, or one of another version.
    pub(super) fn open(path: &Path, known: i64) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = BufReader::new(zstd::stream::read::Decoder::new(file)?);
        let none = Head::new(known, String::new(), &[]);
        let digests = vec![LinesDigest::default(); TABLES.len()];
        let mut reader = Self { path: path.to_owned(), lines, hash: Sha256::new(), head: none, digests, nth: 0 };
        let first = reader.line().ok().flatten();
        let head = first.and_then(|first| serde_json::from_str::<Head>(&first).ok());
        let head = head.with_context(|| format!("{} is no export of Riposte, or is damaged", path.display()))?;
        head.check(known).with_context(|| format!("{} cannot be imported", path.display()))?;
        reader.head = head;
        Ok(reader)
    }

    /// The next line; none at the end of the file.
    fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = Vec::new();
        self.lines.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.hash.update(&line);
        ensure!(line.pop() == Some(b'\n'), "a line has no end");
        Ok(Some(String::from_utf8(line)?))
    }

    /// The next row, with the number of its table in [`TABLES`]; none after the last one.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn row(&mut self) -> anyhow::Result<Option<(usize, String)>> {
        let row = self.undamaged_row();
        row.with_context(|| format!("{} is damaged or was cut off", self.path.display()))
    }

    fn undamaged_row(&mut self) -> anyhow::Result<Option<(usize, String)>> {
        while self.nth < TABLES.len() {
            if self.digests[self.nth].lines < self.head.tables[self.nth].rows {
                let Some(line) = self.line()? else { bail!("rows of {} are missing", TABLES[self.nth].name) };
                self.digests[self.nth].add(&line);
                return Ok(Some((self.nth, line)));
            }
            self.nth += 1;
        }
        Ok(None)
    }

    /// Reads a whole file without doing anything with it, and checks it.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn check(mut self) -> anyhow::Result<Checked> {
        let damaged = format!("{} is damaged or was cut off", self.path.display());
        while let Some((nth, line)) = self.row()? {
            target::check(&TABLES[nth], &line).map_err(|why| anyhow::anyhow!("{damaged}: {why}"))?;
        }
        self.check_end().context(damaged)
    }

    fn check_end(mut self) -> anyhow::Result<Checked> {
        let sha256 = hex(std::mem::take(&mut self.hash));
        let Some(line) = self.line()? else { bail!("its end is missing") };
        let end: End = serde_json::from_str(&line).context("its end cannot be read")?;
        ensure!(end.sha256 == sha256, "its rows are not those that were written");
        let digests: Vec<String> = self.digests.iter().map(LinesDigest::text).collect();
        ensure!(end.digests == digests, "its rows are not those of the tables");
        ensure!(self.line()?.is_none(), "more follows after its end");
        Ok(Checked { sha256, digests: self.digests })
    }
}
