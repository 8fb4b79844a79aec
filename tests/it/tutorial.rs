//! `docs/tutorial.md` is run as it stands, by the programs of this build: every `sh` block in the
//! order of the page, in one shell, from an empty folder. A `text` block is the output of the block
//! before it.
//!
//! - `…` in a shown line stands for any text, and a shown line that is only `…` for any lines. Runs
//!   of blanks count as one, because the width of a column depends on what is in it.
//! - A block that only looks is run again until its output is as shown: a reader types more slowly
//!   than this test, so what the page shows may need a moment.
//! - A command that fails ends the shell, and so the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::docs::{Block, blocks, page};
use crate::processes::{PATIENCE, agent_program, manager_program, require, tied};

/// Commands that change nothing.
const LOOKS: [&str; 6] = [
    "riposte agent list",
    "riposte response list",
    "riposte response show",
    "riposte policy counts",
    "riposte events",
    "nft list",
];
/// Printed behind the output of each block.
const END: &str = "--- the end of this block ---";

/// Commands of the page, and the output that it shows.
struct Step {
    line: usize,
    commands: String,
    shown: Option<String>,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for Block { line, kind, text } in blocks(page) {
        match (kind.as_str(), steps.last_mut()) {
            ("sh", _) => steps.push(Step { line, commands: text, shown: None }),
            ("text", Some(step)) if step.shown.is_none() => step.shown = Some(text),
            _ => panic!("line {line}: a block of kind {kind:?} is run by no test"),
        }
    }
    steps
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a line is as the shown one.
fn is_line(shown: &str, line: &str) -> bool {
    let (shown, line) = (squeezed(shown), squeezed(line));
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return shown == line };
    let Some(rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    let found = middle.iter().try_fold(rest, |rest, part| Some(&rest[rest.find(part)? + part.len()..]));
    found.is_some()
}

/// Whether an output is as the shown one.
fn is_output(shown: &[&str], lines: &[&str]) -> bool {
    match shown {
        [] => lines.is_empty(),
        ["…", rest @ ..] => (0..=lines.len()).any(|skipped| is_output(rest, &lines[skipped..])),
        [first, rest @ ..] => {
            lines.split_first().is_some_and(|(line, lines)| is_line(first, line) && is_output(rest, lines))
        }
    }
}

fn is_shown(shown: &str, output: &str) -> bool {
    let (shown, output): (Vec<&str>, Vec<&str>) = (shown.lines().collect(), output.trim_end().lines().collect());
    is_output(&shown, &output)
}

/// A shell that reads commands, with the programs of this build. It and all that it starts die with
/// the test.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Shell {
    fn start(folder: &Path) -> Self {
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        assert!(is_root, "this test makes a network namespace and needs root: run it as root, or by `sudo -E`");
        require(&[("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables"), ("bash", "bash")]);
        let programs = [manager_program(), agent_program()];
        let beside = programs.iter().map(|program| program.parent().unwrap().to_owned());
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let path = beside.chain(std::env::split_paths(&usual)).chain(["/usr/sbin", "/sbin"].map(Into::into));
        let mut child = tied(Path::new("unshare"))
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "bash"])
            .env("PATH", std::env::join_paths(path).unwrap())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let reader = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // Ends with the shell, or with the test.
            for line in reader.lines() {
                if line.is_ok_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"exec 2>&1\n").unwrap();
        Self { child, input, output }
    }

    /// Runs commands; returns their output.
    fn run(&mut self, step: &Step) -> String {
        // If the commands start a shell, that shell reads the rest of the input.
        let commands = format!("set -e\n{}\necho; echo '{END}'\n", step.commands);
        self.input.write_all(commands.as_bytes()).unwrap();
        let mut said = String::new();
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) if line == END => return said,
                Ok(line) => said.extend([line.as_str(), "\n"]),
                Err(why) => panic!("line {}: {why} at\n{}\nafter\n{said}", step.line, step.commands),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

#[test]
fn the_tutorial_does_what_it_shows() {
    let here = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(here.path());
    let steps = steps(&page("tutorial.md"));
    let mut compared = 0;
    for step in &steps {
        let looks = step.commands.lines().all(|line| LOOKS.iter().any(|look| line.starts_with(look)));
        let begun = Instant::now();
        let mut said = shell.run(step);
        let Some(shown) = &step.shown else { continue };
        while !is_shown(shown, &said) {
            let may_look_again = looks && begun.elapsed() < PATIENCE;
            assert!(may_look_again, "line {}: the page shows\n{shown}\nand this came:\n{said}", step.line);
            said = shell.run(step);
        }
        compared += 1;
    }
    assert!(steps.len() > 15 && compared > 10, "{} steps, {compared} compared: the page was not read", steps.len());
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "the page leaves nothing behind");
}

#[test]
fn another_output_than_the_shown_would_be_noticed() {
    assert!(is_shown("id  when\n0…  …Z  spared (protected)\n", "id   when\n0199  2026Z   spared (protected)\n\n"));
    assert!(is_shown("a\n…\nz\n", "a\nb\nc\nz\n") && is_shown("…\n", "") && is_shown("a\n", "a"));
    for (shown, output) in
        [("a", "a\nb"), ("a\nb", "a"), ("a … c", "a b d"), ("a…b…a", "aca"), ("a…a", "a"), ("", "a"), ("a\n…", "b")]
    {
        assert!(!is_shown(shown, output), "{shown} {output}");
    }
    assert!(std::panic::catch_unwind(|| steps("```python\n```\n")).is_err(), "an unknown kind of block");
    assert!(std::panic::catch_unwind(|| steps("```text\n```\n")).is_err(), "an output of nothing");
}
