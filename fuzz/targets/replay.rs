//! Replays the kept inputs of a target and variants of them, the same ones in each run: a test that
//! fails has to fail again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::TARGETS;

/// Variants tried per target, spread over its inputs.
const VARIANTS: usize = 1000;
/// What is put into a variant: the characters that separate, quote, end and confuse.
const PIECES: [&[u8]; 32] = [
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"\"",
    b"\\",
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b",",
    b":",
    b".",
    b"/",
    b"@",
    b"-",
    b"*",
    b"%",
    b"<",
    b">",
    b"&",
    b"\xff",
    b"\xc3",
    "\u{202e}".as_bytes(),
    "\u{130}".as_bytes(),
    b"\\ud800",
    b"99999999999999999999",
    b"1e400",
    b"\n---\n",
];
/// No input may take longer in a debug build. `make fuzz` has a limit of its own.
const LONGEST: Duration = Duration::from_secs(5);

/// Splitmix64: the order of variants.
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

/// Writes the input on a failure, so that it can be kept.
struct Reporter<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, input } = *self;
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.failed", name.replace('/', "-")));
            let written = std::fs::write(&kept, input);
            eprintln!("failed by {name}, in {} ({written:?}): {}", kept.display(), input.escape_ascii());
        }
    }
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The kept inputs of `target`, by name.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(corpus(target)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| format!("{target}/{}", path.file_name().unwrap().to_str().unwrap());
    paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn variant(input: &[u8], others: &[(String, Vec<u8>)], choices: &mut Choices) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=choices.below(4) {
        let at = choices.below(bytes.len() + 1);
        let end = (at + choices.below(16)).min(bytes.len());
        match choices.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 if at < bytes.len() => bytes[at] ^= 1 << choices.below(8),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            4 => {
                let other = &others[choices.below(others.len())].1;
                let from = choices.below(other.len() + 1);
                let to = (from + choices.below(64)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => drop(bytes.splice(at..at, PIECES[choices.below(PIECES.len())].iter().copied())),
        }
    }
    bytes
}

fn try_one(name: &str, input: &[u8], check: fn(&[u8])) {
    let reporter = Reporter { name, input };
    let start = Instant::now();
    check(input);
    let took = start.elapsed();
    assert!(took < LONGEST, "{name} took {took:?}");
    drop(reporter);
}

/// Runs `check` on the kept inputs of `target`, and on variants of them.
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    let kept = kept(target);
    assert!(!kept.is_empty(), "the corpus of {target} is empty");
    try_one(&format!("{target}/empty"), b"", check);
    for (name, input) in &kept {
        try_one(name, input, check);
    }
    let mut choices = Choices(1);
    for number in 0..VARIANTS {
        let (name, input) = &kept[number % kept.len()];
        try_one(&format!("{name}-variant-{number}"), &variant(input, &kept, &mut choices), check);
    }
}

#[test]
fn each_folder_of_the_corpus_is_of_a_target() {
    let folders = std::fs::read_dir(corpus("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut folders: Vec<String> = folders.collect();
    folders.sort();
    assert_eq!(folders, TARGETS);
}
