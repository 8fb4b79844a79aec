//! Puts the contract into the program, compressed (docs/decisions/0053-the-contract-is-served-from-a-file.md), and folds
//! functions with the same machine code into one, in released programs: generic code makes many
//! (docs/decisions/0023-small-programs.md). The toolchain's linker for this target can.

use std::io::{Error, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=openapi.yaml");
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| Error::other("OUT_DIR is not set"))?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&std::fs::read("openapi.yaml")?)?;
    std::fs::write(Path::new(&out).join("openapi.yaml.gz"), packed.finish()?)?;

    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("TARGET", "x86_64-unknown-linux-gnu") && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
    Ok(())
}
