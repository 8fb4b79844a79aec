//! Detects that a program waits only for its input; then its input is closed. The kernel tells what
//! each thread waits for (`/proc/PID/task/TID/syscall`). So a program that computes before it asks
//! is never mistaken for a waiting one, and a waiting one is detected at the next look.
//!
//! Every process that holds the program's standard output could ask a question, and every one that
//! holds its input could read an answer. All of them must wait: for the input itself, for another
//! of them, or for a thread of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

/// Time until the first look. Each further interval is twice as long, up to the longest. The
/// intervals decide how soon the input is closed, not whether it is.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Limit of processes of one program that are looked at; a program with more counts as busy.
const MAX_PROCESSES: usize = 256;

/// Result of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// All processes wait, and at least one for the input.
    Waits,
    /// A process may still ask.
    Busy,
    /// This system does not show what processes wait for.
    Nothing,
}

/// Decides when a program's input is closed.
#[derive(Debug)]
pub(crate) struct Watch {
    next_look: Instant,
    pause: Duration,
    waited_before: bool,
    /// When to close the input if nothing can be seen: after half of the time limit.
    blind_end: Instant,
}

impl Watch {
    /// Starts a watch over a program that has just started and may run for `timeout`.
    pub(crate) fn new(timeout: Duration) -> Self {
        let now = Instant::now();
        let (next_look, blind_end) = (now + FIRST_LOOK, now + timeout / 2);
        Self { next_look, pause: FIRST_LOOK, waited_before: false, blind_end }
    }

    /// Time of the next look.
    pub(crate) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Starts over after a write to the program: its reaction is not known yet.
    pub(crate) fn start_anew(&mut self) {
        (self.pause, self.waited_before) = (FIRST_LOOK, false);
        self.next_look = Instant::now() + self.pause;
    }

    /// Looks, and returns whether the program waits for the end of its input; `leader` is its first
    /// process. Two looks in a row must agree: one process could have woken another between the
    /// looks at the two.
    pub(crate) fn sees_waiting(&mut self, leader: i32, stdin: &impl AsFd, stdout: Option<&impl AsFd>) -> bool {
        let sight = look(Path::new("/proc"), leader, stdin, stdout);
        let waited_before = std::mem::replace(&mut self.waited_before, sight == Sight::Waits);
        if sight != Sight::Waits {
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        }
        self.next_look = Instant::now() + self.pause;
        match sight {
            Sight::Waits => waited_before,
            Sight::Busy => false,
            Sight::Nothing => Instant::now() >= self.blind_end,
        }
    }
}

fn look(proc: &Path, leader: i32, stdin: &impl AsFd, stdout: Option<&impl AsFd>) -> Sight {
    // Unread input and unread output come first.
    if unread(stdin) != Some(0) {
        return Sight::Busy;
    }
    let Some(input) = pipe_name(stdin) else { return Sight::Nothing };
    let pipes = Pipes { input, output: stdout.and_then(pipe_name) };
    // Most programs are busy, and then their own children show it. All processes are searched only
    // after that.
    let mut processes = BTreeSet::from([leader]);
    let knows_children = add_children(proc, &mut processes);
    let mut sight = if knows_children { pipes.sight(proc, &processes) } else { Sight::Waits };
    if sight == Sight::Waits {
        add_group(proc, leader, &mut processes);
        sight = pipes.sight(proc, &processes);
    }
    // A program that waits for its input has printed its question before. So a question that came
    // meanwhile is in the pipe.
    match stdout.map_or(Some(0), unread) {
        Some(0) => sight,
        _ => Sight::Busy,
    }
}

fn unread(pipe: &impl AsFd) -> Option<u64> {
    rustix::io::ioctl_fionread(pipe).ok()
}

/// Name of the pipe in `/proc/PID/fd`.
fn pipe_name(pipe: &impl AsFd) -> Option<String> {
    rustix::fs::fstat(pipe).ok().map(|stat| format!("pipe:[{}]", stat.st_ino))
}

/// Adds the children of `processes`, recursively; returns whether the kernel lists them.
fn add_children(proc: &Path, processes: &mut BTreeSet<i32>) -> bool {
    let mut todo: Vec<i32> = processes.iter().copied().collect();
    let mut is_told = true;
    while let Some(process) = todo.pop() {
        for thread in threads(proc, process) {
            let Ok(children) = std::fs::read_to_string(thread.join("children")) else {
                is_told &= !thread.exists();
                continue;
            };
            let new = children.split_whitespace().filter_map(|number| number.parse().ok());
            todo.extend(new.filter(|child| processes.len() <= MAX_PROCESSES && processes.insert(*child)));
        }
    }
    is_told
}

/// Adds all processes of the program's group, and all descendants of `processes`.
fn add_group(proc: &Path, leader: i32, processes: &mut BTreeSet<i32>) {
    let mut parents = BTreeMap::new();
    let numbers = std::fs::read_dir(proc).into_iter().flatten().flatten();
    for number in numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let stat = std::fs::read_to_string(proc.join(number.to_string()).join("stat")).unwrap_or_default();
        // The name is in brackets and may hold any character.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, tail)| tail).split_whitespace().skip(1);
        let mut next = || fields.next().and_then(|field| field.parse::<i32>().ok());
        let (Some(parent), Some(group)) = (next(), next()) else { continue };
        if group == leader {
            processes.insert(number);
        }
        parents.insert(number, parent);
    }
    let mut before = 0;
    while before < processes.len() {
        before = processes.len();
        let children = parents.iter().filter(|(_, parent)| processes.contains(parent)).map(|(number, _)| *number);
        processes.extend(children.collect::<Vec<_>>());
    }
}

fn threads(proc: &Path, process: i32) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(proc.join(process.to_string()).join("task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The program's input.
    Input,
    /// Another process or thread.
    Other,
    /// It runs, or waits for the time, a device or the network.
    No,
    /// The kernel does not show it.
    Unseen,
}

/// The two pipes between the program and the agent.
struct Pipes {
    input: String,
    output: Option<String>,
}

impl Pipes {
    fn sight(&self, proc: &Path, processes: &BTreeSet<i32>) -> Sight {
        if processes.len() > MAX_PROCESSES {
            return Sight::Busy;
        }
        let mut waits_for_input = false;
        for process in processes {
            let folder = proc.join(process.to_string());
            let files = Files::of(&folder);
            let concerns = |name: &String| *name == self.input || Some(name) == self.output.as_ref();
            if !files.0.values().any(concerns) {
                continue;
            }
            for thread in threads(proc, *process) {
                match self.wait(&thread, &files) {
                    Wait::Input => waits_for_input = true,
                    Wait::Other => {}
                    Wait::No => return Sight::Busy,
                    Wait::Unseen => return Sight::Nothing,
                }
            }
        }
        if waits_for_input { Sight::Waits } else { Sight::Busy }
    }

    fn wait(&self, thread: &Path, files: &Files) -> Wait {
        let call = match std::fs::read_to_string(thread.join("syscall")) {
            Ok(call) => call,
            // The thread has ended meanwhile: the next look sees what follows.
            Err(_) if !thread.exists() => return Wait::No,
            Err(_) => return by_channel(thread, files, &self.input),
        };
        let mut words = call.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<i64>().ok()) else { return Wait::No };
        let arguments: Vec<u64> =
            words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()).collect();
        let argument = |nth: usize| arguments.get(nth).copied().unwrap_or_default();
        let of_file = |nth: usize| match files.0.get(&argument(nth)) {
            Some(name) if *name == self.input => Wait::Input,
            // A pipe that another process writes. A process outside this group counts by itself.
            Some(name) if name.starts_with("pipe:[") => Wait::Other,
            _ => Wait::No,
        };
        match number {
            libc::SYS_read | libc::SYS_readv | libc::SYS_splice | libc::SYS_tee => of_file(0),
            libc::SYS_sendfile => of_file(1),
            libc::SYS_futex | libc::SYS_wait4 | libc::SYS_waitid | libc::SYS_rt_sigsuspend => Wait::Other,
            libc::SYS_epoll_pwait if is_endless(argument(3)) => self.of_epoll(thread, argument(0), files),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait if is_endless(argument(3)) => self.of_epoll(thread, argument(0), files),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll if is_endless(argument(2)) => self.of_poll(thread, argument(0), argument(1), files),
            libc::SYS_ppoll if argument(2) == 0 => self.of_poll(thread, argument(0), argument(1), files),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_pause => Wait::Other,
            _ => Wait::No,
        }
    }

    /// A thread that waits for several files waits for the input if the others only serve to wake
    /// it from within the program.
    fn of_files<'a>(&self, names: impl Iterator<Item = Option<&'a String>>) -> Wait {
        let mut wait = Wait::Other;
        for name in names {
            match name {
                Some(name) if *name == self.input => wait = Wait::Input,
                Some(name) if ["pipe:[", "anon_inode:[eventfd]"].iter().any(|kind| name.starts_with(kind)) => {}
                _ => return Wait::No,
            }
        }
        wait
    }

    fn of_epoll(&self, thread: &Path, epoll: u64, files: &Files) -> Wait {
        let info = std::fs::read_to_string(thread.join("fdinfo").join(epoll.to_string())).unwrap_or_default();
        let watched = info.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next());
        self.of_files(watched.map(|file| files.0.get(&file.parse().ok()?)))
    }

    fn of_poll(&self, thread: &Path, list: u64, count: u64, files: &Files) -> Wait {
        use std::os::unix::fs::FileExt as _;
        // An entry is a file descriptor of four bytes, and two masks.
        let mut bytes = vec![0; usize::try_from(count.min(64)).unwrap_or(64) * 8];
        let memory = std::fs::File::open(thread.join("mem")).and_then(|memory| memory.read_exact_at(&mut bytes, list));
        if memory.is_err() || count > 64 {
            return Wait::No;
        }
        let numbers = bytes.chunks_exact(8).filter_map(|entry| entry.get(..4)?.try_into().ok().map(i32::from_ne_bytes));
        self.of_files(numbers.filter(|number| *number >= 0).map(|number| files.0.get(&u64::try_from(number).ok()?)))
    }
}

/// For a kernel that hides the system call: the function that the thread sleeps in. It does not
/// name the pipe, so the input must be the only pipe that it could be.
fn by_channel(thread: &Path, files: &Files, input: &String) -> Wait {
    let Ok(channel) = std::fs::read_to_string(thread.join("wchan")) else { return Wait::Unseen };
    let is_only_pipe = files.0.values().filter(|name| name.starts_with("pipe:[")).all(|name| name == input);
    match channel.trim() {
        // The kernel's answer if it hides this too.
        "" | "0" => Wait::Unseen,
        name if name.contains("pipe_read") && is_only_pipe => Wait::Input,
        name if name.contains("futex") || name == "do_wait" || name.contains("pipe_read") => Wait::Other,
        _ => Wait::No,
    }
}

/// Whether a time-out is -1, which some programs pass as 32 bits.
fn is_endless(timeout: u64) -> bool {
    timeout & 0xffff_ffff == 0xffff_ffff
}

/// The open files of a process, by their descriptors.
struct Files(BTreeMap<u64, String>);

impl Files {
    fn of(process: &Path) -> Self {
        let entries = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let file = |entry: std::fs::DirEntry| {
            let name = std::fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, name.to_string_lossy().into_owned()))
        };
        Self(entries.filter_map(file).collect())
    }
}
