//! A program to run: an argv and never a shell, what it reads, where and for how long.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a program may run unless its action says otherwise.
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
    /// `name` with `arguments`, and nothing on its standard input. A name with a slash is a path; any other is looked
    /// for where the system keeps its programs.
    pub fn new<const N: usize>(name: &str, arguments: [&str; N]) -> Self {
        let argv = std::iter::once(name).chain(arguments).map(str::to_owned).collect();
        Self { argv, stdin: None, directory: "/".into(), timeout: DEFAULT_TIMEOUT }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Gives the program `text` to read.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Starts the program in `directory`.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Ends the program after `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// As a person would type it, with what it reads after `<<<`.
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
