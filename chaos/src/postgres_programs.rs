//! Where PostgreSQL's programs are. The benches and the tests of the manager compile this file too.

use std::path::PathBuf;

use anyhow::Context as _;

/// Folder of PostgreSQL's programs: on Debian they are not in PATH.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    places.sort();
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let found = places.into_iter().rev().find(|place| place.join("initdb").exists() && place.join("postgres").exists());
    found.context("PostgreSQL is not installed: apt-get install postgresql")
}
