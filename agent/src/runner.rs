//! Runs a program, with a bounded time and a bounded output. It takes an argv, never a shell line,
//! and has an environment of its own. After the time-out the whole process group is ended. Output
//! is read to the end, but kept only up to a limit. Every external program of every action is
//! started here.

mod output;
mod program;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::Instant;

use riposte_protocol::message::MAX_OUTPUT_BYTES;

pub use self::output::join;
use self::output::{Head, Lines};
pub use self::program::{DEFAULT_TIMEOUT, Program};
use crate::platform::guarded;
#[cfg(test)]
use crate::platform::ruleset;
use crate::platform::tree::{self, Tree};
use crate::platform::waiting::Watch;

/// How long output is read after the program has ended: a child that it left behind may hold the
/// pipe open for ever.
const DRAIN_GRACE: Duration = Duration::from_millis(250);
/// Longest output of a program that is asked for an answer: the rules of a hundred thousand blocks.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How long the rest of an answer is read. Only a program that left a child behind keeps it open.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// What a program's output is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// People read it: its start is enough.
    Report,
    /// It decides something: all of it, or an error.
    Answer,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code. A program that a signal ended has the signal's number plus 128, as in shells.
    pub code: i32,
    /// Start of its standard output, at most [`MAX_OUTPUT_BYTES`]; all of it if it was asked for an
    /// answer.
    pub stdout: String,
    /// Start of its standard error, with the same limit.
    pub stderr: String,
}

impl Exit {
    /// Whether the exit code is 0.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// Name of the program.
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// It timed out, and was killed with everything it had started.
    #[error("{program} did not end within {} s and was killed", timeout.as_secs_f32())]
    TimedOut {
        /// Name of the program.
        program: String,
        /// The time limit.
        timeout: Duration,
        /// Its output and errors until then.
        output: String,
    },
    /// It printed more than an answer may have, or its output did not end with it.
    #[error("{program} printed more than {} MiB, or its output has no end: what it shows is not known", MAX_ANSWER_BYTES >> 20)]
    NoAnswer {
        /// Name of the program.
        program: String,
    },
}

/// Returns the text to send to a program after a line that it has printed.
pub type Answer<'a> = &'a mut (dyn FnMut(&str) -> Option<String> + Send);

/// Starts programs.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    prefix: Vec<String>,
    #[cfg(test)]
    fake: Option<Fake>,
}

/// A runner that only records what it was asked to run.
#[cfg(test)]
#[derive(Clone)]
pub struct Fake(std::sync::Arc<dyn Fn(&Program) -> Exit + Send + Sync>);

#[cfg(test)]
impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Runner {
    /// A runner that starts real programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `prefix` before every argv, such as `ip netns exec NAME`. Tests use it; the agent never
    /// does.
    #[cfg(test)]
    pub fn with_prefix<const N: usize>(prefix: [&str; N]) -> Self {
        Self { prefix: prefix.map(str::to_owned).to_vec(), fake: None }
    }

    /// Runs nothing: `answer` returns how each program would have ended. Every program counts as
    /// installed.
    #[cfg(test)]
    pub fn faked(answer: impl Fn(&Program) -> Exit + Send + Sync + 'static) -> Self {
        Self { prefix: Vec::new(), fake: Some(Fake(std::sync::Arc::new(answer))) }
    }

    /// Opens a socket in the network that programs run in.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in tests, programs may run in another network namespace")]
    pub(crate) fn in_its_network<T>(&self, open: impl FnOnce() -> T) -> T {
        open()
    }

    /// The same; tests run programs in a network namespace by a prefix.
    #[cfg(test)]
    pub(crate) fn in_its_network<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        match self.prefix.as_slice() {
            [ip, netns, exec, name, ..] if [ip, netns, exec] == ["ip", "netns", "exec"] => {
                ruleset::in_network(name, open)
            }
            _ => open(),
        }
    }

    /// Path of the installed program of that name; `None` if it is not installed. A name with a
    /// slash is used as a path.
    pub fn find(name: &str) -> Option<PathBuf> {
        if tree::is_path(name) {
            return Some(PathBuf::from(name)).filter(|path| tree::is_program(path));
        }
        tree::candidates(name).filter(|path| tree::is_program(path)).find(|path| distrust(path).is_none())
    }

    /// Why the installed program of that name must not be run; `None` if it may be, or is not
    /// installed.
    pub fn distrusted(name: &str) -> Option<String> {
        tree::candidates(name).filter(|path| path.exists()).find_map(|path| distrust(&path))
    }

    /// Whether the program of that name is installed.
    pub fn is_installed(&self, name: &str) -> bool {
        #[cfg(test)]
        if self.fake.is_some() {
            return true;
        }
        Self::find(name).is_some()
    }

    /// Runs `program` to its end or its time-out.
    ///
    /// # Errors
    /// When it could not be started or had to be killed. A program that ends with a failure is no
    /// error here.
    pub async fn run(&self, program: &Program) -> Result<Exit, RunError> {
        #[cfg(test)]
        if let Some(Fake(answer)) = &self.fake {
            return Ok(answer(program));
        }
        self.attend(program, None, Wanted::Report).await
    }

    /// The same for a program whose output is the answer, such as a listing: all of it is returned.
    ///
    /// # Errors
    /// Also when it prints more than [`MAX_ANSWER_BYTES`]: a part of an answer would be another one.
    pub async fn ask(&self, program: &Program) -> Result<Exit, RunError> {
        #[cfg(test)]
        if let Some(Fake(answer)) = &self.fake {
            return Ok(answer(program));
        }
        self.attend(program, None, Wanted::Answer).await
    }

    /// Runs `program` with a dialogue. Its input is its text, and what `answer` returns for each
    /// line that it prints. When it waits only for its input, the input is closed.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub async fn converse(&self, program: &Program, answer: Answer<'_>) -> Result<Exit, RunError> {
        self.attend(program, Some(answer), Wanted::Report).await
    }

    async fn attend(
        &self,
        program: &Program,
        mut answer: Option<Answer<'_>>,
        wanted: Wanted,
    ) -> Result<Exit, RunError> {
        let name = program.name().to_owned();
        let (limit, grace) = match wanted {
            Wanted::Report => (MAX_OUTPUT_BYTES, DRAIN_GRACE),
            Wanted::Answer => (MAX_ANSWER_BYTES, ANSWER_GRACE),
        };
        let mut tree = self.start(program).map_err(|source| RunError::Start { program: name.clone(), source })?;
        let mut stdin = Input::new(tree.child.stdin.take(), program.stdin.as_deref());
        let (mut stdout, mut stderr) = (tree.child.stdout.take(), tree.child.stderr.take());
        let (mut printed, mut complained, mut lines) = (Head::new(limit), Head::new(limit), Lines::default());
        let (mut out, mut err) = ([0; 4096], [0; 4096]);
        let (mut deadline, mut watch) = (Instant::now() + program.timeout, Watch::new(program.timeout));
        let mut status = None;
        while status.is_none() || stdout.is_some() || stderr.is_some() {
            if answer.is_none() && !stdin.has_more() {
                stdin.close();
            }
            tokio::select! {
                length = read(stdout.as_mut(), &mut out), if stdout.is_some() => {
                    if length == 0 {
                        stdout = None;
                    }
                    printed.push(&out[..length]);
                    if let Some(answer) = &mut answer {
                        for line in lines.push(&out[..length]) {
                            if let Some(said) = answer(&line) {
                                stdin.say(&said);
                                watch.start_anew();
                            }
                        }
                    }
                }
                length = read(stderr.as_mut(), &mut err), if stderr.is_some() => {
                    if length == 0 {
                        stderr = None;
                    }
                    complained.push(&err[..length]);
                }
                () = stdin.write(), if stdin.has_more() => {}
                () = tokio::time::sleep_until(watch.next_look()), if status.is_none() && stdin.is_idle() && answer.is_some() => {
                    if stdin.reader_waits(&mut watch, &tree, stdout.as_ref()) {
                        stdin.close();
                    }
                }
                ended = tree.ended(), if status.is_none() => {
                    status = Some(ended);
                    deadline = Instant::now() + grace;
                }
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        let is_whole = stdout.is_none();
        let (stdout, stderr) = match wanted {
            Wanted::Answer if status.is_some() => match printed.whole().filter(|_| is_whole) {
                Some(stdout) => (stdout, complained.text()),
                None => return Err(RunError::NoAnswer { program: name }),
            },
            _ => (printed.text(), complained.text()),
        };
        match status {
            Some(status) => {
                let status = status.map_err(|source| RunError::Start { program: name, source })?;
                Ok(Exit { code: tree::exit_code(status), stdout, stderr })
            }
            None => {
                tree.end().await;
                let output = join(&stdout, &stderr);
                Err(RunError::TimedOut { program: name, timeout: program.timeout, output })
            }
        }
    }

    fn start(&self, program: &Program) -> std::io::Result<Tree> {
        let argv: Vec<&str> = self.prefix.iter().chain(&program.argv).map(String::as_str).collect();
        let name = argv.first().copied().unwrap_or_default();
        // A path is used unchanged, relative to the program's directory, because the program sees
        // it as its own name.
        let path = if tree::is_path(name) { Some(PathBuf::from(name)) } else { Self::find(name) };
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, format!("{name} not found"));
        let path = path.ok_or_else(missing)?;
        Tree::start(&path, &argv, &program.directory, program.stdin.is_some())
    }
}

/// Why other accounts could have put this program there; `None` if they could not. Root would run
/// their program.
fn distrust(path: &Path) -> Option<String> {
    let place = match guarded::place(path).and_then(|place| place.folder.require_sure().map(|()| place)) {
        Ok(place) => place,
        Err(error) => return Some(error.to_string()),
    };
    match place.stat() {
        Ok(stat) => stat.and_then(|stat| guarded::distrust(&stat, &place.path())),
        Err(error) => Some(error.to_string()),
    }
    .map(|reason| format!("{} is not run: {reason}", path.display()))
}

async fn read(pipe: Option<&mut (impl AsyncRead + Unpin)>, chunk: &mut [u8]) -> usize {
    match pipe {
        // A broken pipe counts as closed.
        Some(pipe) => pipe.read(chunk).await.unwrap_or(0),
        None => 0,
    }
}

/// What is still to be written to a program's input.
struct Input {
    pipe: Option<ChildStdin>,
    text: Vec<u8>,
    written: usize,
}

impl Input {
    fn new(pipe: Option<ChildStdin>, text: Option<&str>) -> Self {
        Self { pipe, text: text.unwrap_or_default().into(), written: 0 }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    fn has_more(&self) -> bool {
        self.is_open() && self.written < self.text.len()
    }

    /// Whether there is nothing to write at the moment.
    fn is_idle(&self) -> bool {
        self.is_open() && !self.has_more()
    }

    /// Whether the program waits only for its input.
    fn reader_waits(&self, watch: &mut Watch, program: &Tree, stdout: Option<&ChildStdout>) -> bool {
        let (Some(pipe), Some(leader)) = (&self.pipe, program.number()) else { return false };
        watch.sees_waiting(leader, pipe, stdout)
    }

    fn say(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn close(&mut self) {
        self.pipe = None;
    }

    async fn write(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.write(&self.text[self.written..]).await {
            Ok(length) => self.written += length,
            // A program that ends without reading breaks the pipe; its exit status is what counts.
            Err(_) => self.close(),
        }
    }
}
