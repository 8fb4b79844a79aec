//! `kill-process`: kills one process, and never another that was given its number meanwhile: the process is held by a
//! descriptor first, looked at through `/proc` then, and the signal goes to the descriptor. Whether it is protected is
//! asked again while it is held: before, its number may have been another's. It cannot be undone.

use std::time::Duration;

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use rustix::process::Pid;
use tokio::time::Instant;

use super::about::values;
use super::{About, Action, ActionError, Attempt, Form, Host, Os, Parameter, Step};
use crate::platform;

/// The action.
#[derive(Debug)]
pub(super) struct KillProcess;

/// How long a killed process may take to be gone; one that waits for a disk takes its time.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel keeps this much of a program's name.
const MAX_NAME_BYTES: usize = 15;
/// The kernel's flag of its own threads, in `/proc/N/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

const ABOUT: About = About {
    name: "kill-process",
    summary: "Kills a process",
    targets: &[TargetKind::Process],
    platforms: &[Os::Linux],
    lock_domain: "processes",
    undoable: false,
    parameters: &[Parameter {
        form: Form::Value("name", "NAME"),
        summary: "only if its name is this one, as `ps -o comm` shows it",
        check: |value| if value.is_empty() { Err("is empty".into()) } else { Ok(()) },
        ..Parameter::DEFAULT
    }],
    applied: "SIGKILL through a descriptor of the process (pidfd). Never the agent itself, its parent, process 1 or a thread \
              of the kernel",
    verified: "the process is gone, or only waits to be collected",
    undone: "nothing to undo",
    rights: "root or CAP_KILL",
    ..About::DEFAULT
};

/// What `/proc/N/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Look {
    name: String,
    pub(super) is_dead: bool,
    is_kernels: bool,
    /// In ticks since the system's start; with the number, it is the process.
    started: u64,
}

impl Look {
    fn parse(stat: &str) -> Option<Self> {
        // The name is in brackets and may hold anything, brackets too.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let flags: u64 = fields.get(6)?.parse().ok()?;
        Some(Self {
            name,
            is_dead: matches!(*fields.first()?, "Z" | "X" | "x"),
            is_kernels: flags & PF_KTHREAD != 0,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

impl Action for KillProcess {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        let proc = host.path("/proc/self/stat");
        if proc.exists() { platform::may_kill() } else { Err("/proc is not there".into()) }
    }

    fn plan(&self, _op: Op, attempt: &Attempt<'_>) -> String {
        format!("SIGKILL to process {}", attempt.target.value())
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let number = attempt.target.value();
            let pid = number.parse().ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| ActionError::Refused(format!("{number} is not a process")))?;
            if pid == rustix::process::getpid() || Some(pid) == rustix::process::getppid() {
                return Err(ActionError::Refused("the process is the agent itself or its parent: protected".into()));
            }
            let gone = || ActionError::Refused(format!("there is no process {number} on this host (any more)"));
            let failed = |what: &str, error: rustix::io::Errno| {
                ActionError::Failed(format!("process {number} cannot be {what}: {}", std::io::Error::from(error)))
            };
            let held = pidfd::hold(pid).map_err(|error| match error {
                rustix::io::Errno::SRCH => gone(),
                error => failed("held", error),
            })?;
            // Whatever is seen from here on is the held process or a later one of its number; if the held one still takes
            // a signal afterwards, it was the held one.
            let seen = look(attempt.host, number)?.filter(|seen| !seen.is_dead).ok_or_else(gone)?;
            if seen.is_kernels {
                return Err(ActionError::Refused(format!("process {number} is a thread of the kernel: protected")));
            }
            if let Some(expected) = values(attempt.arguments, "name").first()
                && shorten(expected) != shorten(&seen.name)
            {
                let name = seen.name.escape_debug();
                return Err(ActionError::Refused(format!("process {number} is '{name}', not what was meant")));
            }
            if let Some(reason) = attempt.policy.and_then(|policy| policy.protects(attempt.target)) {
                return Err(ActionError::Refused(format!("the target is protected: {reason}")));
            }
            pidfd::kill(&held).map_err(|error| match error {
                rustix::io::Errno::SRCH => gone(),
                error => failed("killed", error),
            })?;
            let deadline = Instant::now() + PATIENCE;
            while look(attempt.host, number)?.is_some_and(|now| now.started == seen.started && !now.is_dead) {
                if Instant::now() >= deadline {
                    return Err(ActionError::TimedOut(format!("process {number} was killed and is not gone yet")));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // By now another process may have its number.
            attempt.saw_in_force();
            Ok(())
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            let is_gone =
                || look(attempt.host, attempt.target.value()).map(|seen| seen.is_none_or(|seen| seen.is_dead));
            Ok(attempt.take_seen_in_force() || is_gone()?)
        })
    }
}

/// A process held by a descriptor, so that its number cannot become another's.
#[cfg(target_os = "linux")]
mod pidfd {
    use std::os::fd::OwnedFd;

    use rustix::io::Errno;
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    pub(super) fn hold(pid: Pid) -> Result<OwnedFd, Errno> {
        pidfd_open(pid, PidfdFlags::empty())
    }

    pub(super) fn kill(held: &OwnedFd) -> Result<(), Errno> {
        pidfd_send_signal(held, Signal::KILL)
    }
}

/// Nobody else can hold a process; the action is not offered there.
#[cfg(not(target_os = "linux"))]
mod pidfd {
    use rustix::io::Errno;
    use rustix::process::Pid;

    pub(super) fn hold(_: Pid) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    pub(super) fn kill((): &()) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
}

/// What is to be seen of the process of that number; none if there is none.
pub(super) fn look(host: &Host, number: &str) -> Result<Option<Look>, ActionError> {
    let path = host.path("/proc").join(number).join("stat");
    match std::fs::read(&path) {
        Ok(stat) => {
            let look = Look::parse(&String::from_utf8_lossy(&stat));
            look.map(Some).ok_or_else(|| ActionError::Failed(format!("{} cannot be understood", path.display())))
        }
        // The second is what a process says that ends while it is read.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(ActionError::Failed(format!("{} cannot be read: {error}", path.display()))),
    }
}

fn shorten(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(MAX_NAME_BYTES)]
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use riposte_protocol::target::Target;

    use super::*;
    use crate::actions::Transcript;
    use crate::local_policy::{LocalPolicy, Protected};
    use crate::runner::Runner;

    async fn kill(pid: u32, arguments: &[&str]) -> Result<bool, ActionError> {
        kill_unless_protected(pid, arguments, &LocalPolicy::default()).await
    }

    async fn kill_unless_protected(pid: u32, arguments: &[&str], policy: &LocalPolicy) -> Result<bool, ActionError> {
        let host = Host::new(Runner::new(), std::path::Path::new("/nonexistent"));
        let target = Target::parse(TargetKind::Process, &pid.to_string()).unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let transcript = Mutex::<Transcript>::default();
        let mut attempt = Attempt::new(&host, &transcript, &target);
        (attempt.arguments, attempt.policy) = (&arguments, Some(policy));
        KillProcess.apply(&attempt).await?;
        KillProcess.is_in_force(&attempt).await
    }

    fn sleeper() -> tokio::process::Child {
        tokio::process::Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_real_process_is_killed_and_seen_to_be_gone() {
        let mut process = sleeper();
        let pid = process.id().unwrap();
        let refusal = kill(pid, &["name=cat"]).await.unwrap_err().to_string();
        assert_eq!(refusal, format!("process {pid} is 'sleep', not what was meant"));
        assert_eq!(process.try_wait().unwrap(), None);
        assert_eq!(kill(pid, &["name=sleep"]).await, Ok(true));
        let status = process.wait().await.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        let refusal = kill(pid, &[]).await.unwrap_err();
        assert!(matches!(&refusal, ActionError::Refused(reason) if reason.contains("no process")), "{refusal}");
    }

    #[tokio::test]
    async fn what_is_protected_is_asked_of_the_process_that_is_held() {
        let mut process = sleeper();
        let protected = Protected { processes: vec!["sleep".into()], ..Protected::default() };
        let policy = LocalPolicy { protected, ..LocalPolicy::default() };
        let refusal = kill_unless_protected(process.id().unwrap(), &[], &policy).await.unwrap_err();
        assert!(matches!(&refusal, ActionError::Refused(reason) if reason.contains("sleep is protected")), "{refusal}");
        assert_eq!(process.try_wait().unwrap(), None);
    }

    #[tokio::test]
    async fn the_agent_its_parent_and_the_kernel_are_refused() {
        let own = std::process::id();
        let parent = nix::unistd::getppid().as_raw().try_into().unwrap();
        for pid in [own, parent] {
            let refusal = kill(pid, &[]).await.unwrap_err();
            assert!(matches!(&refusal, ActionError::Refused(reason) if reason.contains("protected")), "{refusal}");
        }
        // kthreadd, where it can be seen.
        if std::fs::read_to_string("/proc/2/stat").is_ok_and(|stat| Look::parse(&stat).unwrap().is_kernels) {
            assert!(kill(2, &[]).await.unwrap_err().to_string().contains("thread of the kernel"));
        }
    }

    #[test]
    fn a_name_can_hold_anything() {
        let stat = "4711 (a) S (b)) S 1 2 3 4 5 2097152 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        let look = Look::parse(stat).unwrap();
        assert_eq!((look.name.as_str(), look.is_kernels, look.started), ("a) S (b)", true, 4242));
        assert!(Look::parse("4711 (x) Z 1 2 3 4 5 0 7 8 9 10 11 12 13 14 15 16 17 18 1 20").unwrap().is_dead);
        assert_eq!(Look::parse("garbage"), None);
    }
}
