//! The architecture as a test: floors, where SQL is, the size and the names of files, prose, types.
//! It reads the repository as text: an import that a macro writes is not seen.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod anchors;
mod bodies;
mod circles;
mod decisions;
mod egress;
mod files;
mod floors;
mod imports;
mod names;
mod packages;
mod paths;
mod prose;
mod sql;
mod way;

use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, by its path from the root.
pub(crate) fn sources(folder: &str) -> Vec<(String, String)> {
    texts(folder, &["rs"])
}

/// Every file below `folder` with one of these extensions, by its path from the root. A build's
/// output and hidden folders are skipped.
pub(crate) fn texts(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, extensions: &[&str], into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, extensions, into);
                }
            } else if path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension)) {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), extensions, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no file of these kinds: {extensions:?}");
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The code of a file, without comment lines.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        // A `//` inside a string (an address) is kept: it holds no import.
        let line = if line.trim_start().starts_with("//") { "" } else { line };
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The code without its unit tests: a test may use floors above it.
pub(crate) fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}
