//! A program to run: an argv, never a shell line, with its input, its directory and its time limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::platform::places;

/// Time limit of a program, unless its action sets another.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub(super) argv: Vec<String>,
    pub(super) stdin: Option<String>,
    pub(super) directory: PathBuf,
    pub(super) timeout: Duration,
}

impl Program {
    /// `name` with `arguments` and an empty standard input. A name with a slash is a path; any
    /// other is searched in the system's folders of programs.
    pub fn new<const N: usize>(name: &str, arguments: [&str; N]) -> Self {
        let argv = std::iter::once(name).chain(arguments).map(str::to_owned).collect();
        Self { argv, stdin: None, directory: places::ROOT.into(), timeout: DEFAULT_TIMEOUT }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Sets the program's standard input to `text`.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Sets the directory that the program starts in.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Name of the program.
    pub fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// The command line as a person would type it, with the input after `<<<`.
    pub fn text(&self) -> String {
        let quoted = |word: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
            if !word.is_empty() && word.chars().all(plain) { word.clone() } else { format!("'{word}'") }
        };
        let command = self.argv.iter().map(quoted).collect::<Vec<_>>().join(" ");
        match &self.stdin {
            Some(stdin) => format!("{command} <<< '{}'", stdin.trim_end()),
            None => command,
        }
    }
}
