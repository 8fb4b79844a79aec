//! Writes files that must not replace anything: those of an import, and of the library. A file
//! that is there already with the same contents is left; if one differs, nothing is written.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// Writes `files`, and the folders that they need: how many were written, and how many were there
/// already with the same contents.
///
/// # Errors
/// If a file differs, or cannot be read or written.
pub(super) fn write(files: Vec<(PathBuf, String)>) -> anyhow::Result<(usize, usize)> {
    let all = files.len();
    let mut missing = Vec::with_capacity(all);
    for (path, text) in files {
        match std::fs::read(&path) {
            Ok(held) if held == text.as_bytes() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push((path, text)),
            Ok(_) => bail!(
                "{} is there already and differs; nothing was written: move it away, or give another folder",
                path.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    for (path, text) in &missing {
        let parent = path.parent().context("a file stands in a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let file = std::fs::OpenOptions::new().create_new(true).write(true).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok((missing.len(), all - missing.len()))
}
