//! Runs a program and always comes back: an argv and never a shell, an environment of its own, a time-out after
//! which the whole process group is killed, output drained to the end but kept only up to a bound, and the exit
//! status read. Every external program of every action goes through here.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use riposte_protocol::message::MAX_OUTPUT_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a program may run unless its action says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the output is still read after the program itself has ended: a child that it left behind may hold the
/// pipe open for ever.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Where programs are looked for; never the caller's own PATH, which an attacker on the host may have touched.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    argv: Vec<String>,
    stdin: Option<String>,
    timeout: Duration,
}

impl Program {
    /// `name` with `arguments`, and nothing on its standard input.
    pub fn new<const N: usize>(name: &str, arguments: [&str; N]) -> Self {
        let argv = std::iter::once(name).chain(arguments).map(str::to_owned).collect();
        Self { argv, stdin: None, timeout: DEFAULT_TIMEOUT }
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

    /// Kills the program after `timeout`.
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

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; a signal's number plus 128, as shells count, if one ended it.
    pub code: i32,
    /// The beginning of what it printed, at most [`MAX_OUTPUT_BYTES`].
    pub stdout: String,
    /// The beginning of what it complained, at most [`MAX_OUTPUT_BYTES`].
    pub stderr: String,
}

impl Exit {
    /// Whether the exit code is 0.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }
}

/// Why a program did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It was killed, with everything it had started.
    #[error("{program} did not end within {} s and was killed", timeout.as_secs_f32())]
    TimedOut {
        /// Its name.
        program: String,
        /// How long it was given.
        timeout: Duration,
        /// What it had printed and complained until then.
        output: String,
    },
}

/// Starts programs.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    prefix: Vec<String>,
}

impl Runner {
    /// Runs programs as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `prefix` before every argv, such as `ip netns exec NAME`. Tests use it; the agent never does.
    pub fn with_prefix<const N: usize>(prefix: [&str; N]) -> Self {
        Self { prefix: prefix.map(str::to_owned).to_vec() }
    }

    /// Where the program of that name is installed, if it is.
    pub fn find(name: &str) -> Option<PathBuf> {
        let executable = |path: &PathBuf| {
            let mode = |metadata: std::fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            path.metadata().is_ok_and(|metadata| metadata.is_file() && mode(metadata) & 0o111 != 0)
        };
        std::env::split_paths(SEARCH_PATH).map(|directory| directory.join(name)).find(executable)
    }

    /// Runs `program` to its end or its time-out.
    ///
    /// # Errors
    /// When it could not be started or had to be killed. A program that ends with a failure is no error here.
    pub async fn run(&self, program: &Program) -> Result<Exit, RunError> {
        let name = program.name().to_owned();
        let deadline = Instant::now() + program.timeout;
        let mut group = self.start(program).map_err(|source| RunError::Start { program: name.clone(), source })?;
        let (mut stdout, mut stderr) = (Head::default(), Head::default());
        let pipes = (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
        let status = {
            let feed = async {
                if let (Some(mut pipe), Some(text)) = (pipes.0, &program.stdin) {
                    // A program that ends without reading breaks the pipe; its exit status tells the story.
                    let _unread = pipe.write_all(text.as_bytes()).await;
                }
            };
            let drain = async { tokio::join!(feed, stdout.drain(pipes.1), stderr.drain(pipes.2)) };
            tokio::pin!(drain);
            let mut drained = false;
            loop {
                tokio::select! {
                    _ = &mut drain, if !drained => drained = true,
                    status = group.child.wait() => {
                        if !drained {
                            let _left_open = tokio::time::timeout(DRAIN_GRACE, &mut drain).await;
                        }
                        break Some(status);
                    }
                    () = tokio::time::sleep_until(deadline) => break None,
                }
            }
        };
        if let Some(status) = status {
            group.ended = true;
            let status = status.map_err(|source| RunError::Start { program: name, source })?;
            return Ok(Exit { code: code(status), stdout: stdout.text(), stderr: stderr.text() });
        }
        group.kill();
        let _killed = group.child.wait().await;
        let output = join(&stdout.text(), &stderr.text());
        Err(RunError::TimedOut { program: name, timeout: program.timeout, output })
    }

    fn start(&self, program: &Program) -> std::io::Result<Group> {
        let mut argv = self.prefix.iter().chain(&program.argv);
        let name = argv.next().map_or("", String::as_str);
        let path = Self::find(name)
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, format!("{name} not found")))?;
        let child = Command::new(path)
            .args(argv)
            // Nothing of the agent's own environment, where a token may be.
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(if program.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Group { child, ended: false })
    }
}

/// A program and everything it starts; killed as a whole if nobody waits for it any more.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Only while the leader is not reaped, so that its number cannot belong to somebody else yet.
    fn kill(&mut self) {
        let leader = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader {
            let _gone = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
        self.ended = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// The beginning of an output, and how much more there was.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    cut: u64,
}

impl Head {
    async fn drain(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
            let kept = length.min(MAX_OUTPUT_BYTES - self.bytes.len());
            self.bytes.extend_from_slice(&chunk[..kept]);
            self.cut += (length - kept) as u64;
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // Invalid bytes become longer, so the bound is checked on the text.
        let cut = self.cut + (text.len() as u64).saturating_sub(MAX_OUTPUT_BYTES as u64);
        if cut == 0 { text.into_owned() } else { shorten(&text, cut) }
    }
}

/// One text from what was printed and what was complained, within [`MAX_OUTPUT_BYTES`].
pub fn join(stdout: &str, stderr: &str) -> String {
    let separator = if stdout.is_empty() || stderr.is_empty() || stdout.ends_with('\n') { "" } else { "\n" };
    let text = format!("{stdout}{separator}{stderr}");
    if text.len() <= MAX_OUTPUT_BYTES { text } else { shorten(&text, (text.len() - MAX_OUTPUT_BYTES) as u64) }
}

fn shorten(text: &str, cut: u64) -> String {
    let note = format!("\n[cut: about {cut} bytes more]");
    let mut end = text.len().min(MAX_OUTPUT_BYTES - note.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{note}", &text[..end])
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("sh", ["-c", script])
    }

    #[tokio::test]
    async fn the_exit_status_and_both_outputs_are_read() {
        let exit = Runner::new().run(&shell("echo out; echo err >&2; exit 7")).await.unwrap();
        assert_eq!(exit, Exit { code: 7, stdout: "out\n".into(), stderr: "err\n".into() });
        let exit = Runner::new().run(&shell("kill -9 $$")).await.unwrap();
        assert_eq!(exit.code, 137);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let error = Runner::new().run(&Program::new("no-such-program", [])).await.unwrap_err();
        assert!(error.to_string().contains("no-such-program not found"), "{error}");
    }

    #[tokio::test]
    async fn megabytes_of_output_are_drained_and_cut() {
        let script = "head -c 5000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero >&2; echo end >&2";
        let exit = Runner::new().run(&shell(script)).await.unwrap();
        assert_eq!(exit.code, 0);
        assert!(exit.stdout.len() <= MAX_OUTPUT_BYTES && exit.stderr.len() <= MAX_OUTPUT_BYTES);
        assert!(exit.stdout.starts_with("xxx") && exit.stdout.contains("[cut: about 49"), "{}", &exit.stdout[16300..]);
        let both = join(&exit.stdout, &exit.stderr);
        assert!(both.len() <= MAX_OUTPUT_BYTES && both.contains("[cut: about"));
    }

    #[tokio::test]
    async fn output_that_is_not_utf_8_stays_within_the_bound() {
        let exit = Runner::new().run(&shell("head -c 20000 /dev/zero | tr '\\0' '\\377'")).await.unwrap();
        assert!(exit.stdout.len() <= MAX_OUTPUT_BYTES);
        let exit = Runner::new().run(&shell("head -c 16384 /dev/zero | tr '\\0' x")).await.unwrap();
        assert_eq!(exit.stdout.len(), MAX_OUTPUT_BYTES, "at the bound nothing is cut");
        assert!(exit.stdout.ends_with('x'));
    }

    #[tokio::test]
    async fn a_program_reads_what_it_is_given_and_nothing_else() {
        let exit = Runner::new().run(&Program::new("cat", []).stdin("hello")).await.unwrap();
        assert_eq!(exit.stdout, "hello");
        let exit = Runner::new().run(&Program::new("cat", [])).await.unwrap();
        assert_eq!(exit.stdout, "", "without input it reads the end, and does not hang");
        let exit = Runner::new().run(&Program::new("env", [])).await.unwrap();
        let mut names: Vec<&str> = exit.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "PATH"]);
    }

    #[tokio::test]
    async fn the_time_out_kills_grandchildren_too() {
        let directory = tempfile::tempdir().unwrap();
        let pid_file = directory.path().join("pid");
        let script =
            format!("sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 1000' & echo begun; wait", pid_file.display());
        let program = shell(&script).timeout(Duration::from_millis(700));
        let error = Runner::new().run(&program).await.unwrap_err();
        let RunError::TimedOut { output, .. } = &error else { panic!("{error}") };
        assert_eq!(output, "begun\n");
        let grandchild: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            // Killed, or a zombie that its new parent has not collected yet.
            stat.is_empty() || stat.contains(") Z ")
        };
        while !gone() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_child_left_behind_with_the_pipe_does_not_hold_the_agent_up() {
        let begun = Instant::now();
        let exit = Runner::new().run(&shell("sleep 20 & echo done")).await.unwrap();
        assert_eq!((exit.code, exit.stdout.as_str()), (0, "done\n"));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_is_shown_as_it_would_be_typed() {
        let program = Program::new("nft", ["-f", "-"]).stdin("add table inet x\n");
        assert_eq!(program.text(), "nft -f - <<< 'add table inet x'");
        assert_eq!(Program::new("usermod", ["--expiredate", ""]).text(), "usermod --expiredate ''");
    }
}
