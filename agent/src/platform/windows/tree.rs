//! A program with everything that it starts: a job, which ends all of it at once, also when the
//! agent itself ends.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
    TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{
    CREATE_NO_WINDOW, CREATE_SUSPENDED, OpenThread, ResumeThread, THREAD_SUSPEND_RESUME,
};

use super::handle::Handle;

/// The exit code of what is ended.
const ENDED: u32 = 1;

/// The folder of Windows.
fn windows_folder() -> PathBuf {
    std::env::var_os("SystemRoot").map_or_else(|| PathBuf::from(r"C:\Windows"), PathBuf::from)
}

/// Where programs are searched. The caller's own PATH is never used: an attacker on the host may
/// have changed it.
fn search_path() -> [PathBuf; 3] {
    let system = windows_folder().join("System32");
    [system.clone(), system.join(r"WindowsPowerShell\v1.0"), windows_folder()]
}

/// Whether `name` is a path, and is not searched for.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains(['/', '\\', ':'])
}

/// The paths where the program of that name may be.
pub(crate) fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    let absolute = Some(PathBuf::from(name)).filter(|path| path.is_absolute());
    let searched = search_path().into_iter().filter(move |_| !is_path(name)).map(move |folder| folder.join(name));
    absolute.into_iter().chain(searched)
}

/// Whether the file at `path` is a program that can be started: an executable, a script of the
/// command processor, or one of PowerShell.
pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file() && kind(path).is_some()
}

/// What starts a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The system, or for `.cmd` and `.bat` its command processor.
    Direct,
    /// PowerShell.
    PowerShell,
}

fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "exe" | "com" | "cmd" | "bat" => Some(Kind::Direct),
        "ps1" => Some(Kind::PowerShell),
        _ => None,
    }
}

/// The exit code.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

/// A running program and everything that it starts. Dropping it ends all of them.
pub(crate) struct Tree {
    /// Its first process.
    pub(crate) child: Child,
    job: Job,
    ended: bool,
}

impl Tree {
    /// Starts the program at `path`, with `argv` as it sees it, in `directory`.
    ///
    /// # Errors
    /// When the system refuses, or cannot hold what the program starts.
    pub(crate) fn start(path: &Path, argv: &[&str], directory: &Path, has_input: bool) -> std::io::Result<Self> {
        let path = if path.is_absolute() { path.to_owned() } else { directory.join(path) };
        // Wazuh's name of its folder has the other stroke, which some programs take for a switch.
        let path: PathBuf = path.components().collect();
        let mut command = match kind(&path) {
            Some(Kind::PowerShell) => {
                let mut command =
                    Command::new(windows_folder().join(r"System32\WindowsPowerShell\v1.0\powershell.exe"));
                // The policy is for people who double-click: this file was checked by its rights.
                command.args(["-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"]).arg(&path);
                command
            }
            // The standard library quotes the arguments of `.cmd` and `.bat`, and refuses those that
            // cannot be quoted.
            Some(Kind::Direct) | None => Command::new(&path),
        };
        command.args(argv.get(1..).unwrap_or_default()).env_clear().envs(environment()).current_dir(directory);
        command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Suspended, so that it is in the job before it can start anything. An agent that dies before that leaves a process
        // that never runs.
        command.creation_flags(CREATE_NO_WINDOW | CREATE_SUSPENDED);
        let job = Job::new()?;
        let mut child = command.spawn()?;
        let begun = job.take(&child).and_then(|()| resume(&child));
        if let Err(error) = begun {
            let _it_never_ran = child.start_kill();
            return Err(error);
        }
        Ok(Self { child, job, ended: false })
    }

    /// Waits until the first process has ended by itself. What it left behind goes on.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.ended = true;
        self.job.let_go()?;
        status
    }

    /// Ends all of it.
    pub(crate) async fn end(&mut self) {
        self.job.end();
        self.ended = true;
        let _ended = self.child.wait().await;
    }

    /// Number of its first process, while it is not reaped.
    pub(crate) fn number(&self) -> Option<i32> {
        self.child.id().and_then(|id| i32::try_from(id).ok())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.ended {
            self.job.end();
        }
    }
}

/// What a program needs of the environment. The agent's own may hold a token, so nothing else of it
/// is passed on.
fn environment() -> Vec<(String, std::ffi::OsString)> {
    const KEPT: [&str; 10] = [
        "SystemRoot",
        "windir",
        "SystemDrive",
        "ComSpec",
        "PATHEXT",
        "TEMP",
        "TMP",
        "ProgramData",
        "ProgramFiles",
        "ProgramFiles(x86)",
    ];
    let kept = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?)));
    let path = std::env::join_paths(search_path()).unwrap_or_default();
    kept.chain([("PATH".to_owned(), path)]).collect()
}

/// A job of the system.
#[derive(Debug)]
struct Job(Handle);

impl Job {
    #[expect(unsafe_code, reason = "the system's call")]
    fn new() -> std::io::Result<Self> {
        // SAFETY: both pointers may be null: no name, and the default security.
        let job = Self(Handle::own(unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) })?);
        job.limit(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)?;
        Ok(job)
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn limit(&self, flags: u32) -> std::io::Result<()> {
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = flags;
        let length = u32::try_from(size_of_val(&limits)).map_err(std::io::Error::other)?;
        // SAFETY: the structure and its length belong to this kind of information.
        let is_set = unsafe {
            let limits = (&raw const limits).cast::<c_void>();
            SetInformationJobObject(self.0.raw(), JobObjectExtendedLimitInformation, limits, length)
        };
        if is_set == 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn take(&self, child: &Child) -> std::io::Result<()> {
        let process: HANDLE = child.raw_handle().ok_or_else(|| std::io::Error::other("the process is gone"))?.cast();
        // SAFETY: both handles are open.
        let is_taken = unsafe { AssignProcessToJobObject(self.0.raw(), process) };
        if is_taken == 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Lets what is left go on when the job is closed.
    fn let_go(&self) -> std::io::Result<()> {
        self.limit(0)
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn end(&self) {
        // SAFETY: the handle is open. An error means that nothing is left.
        unsafe { TerminateJobObject(self.0.raw(), ENDED) };
    }
}

/// Lets a program that was started suspended begin. The standard library keeps no handle of its
/// thread, so the thread is looked up.
#[expect(unsafe_code, reason = "the system's calls")]
fn resume(child: &Child) -> std::io::Result<()> {
    let number = child.id().ok_or_else(|| std::io::Error::other("the process is gone"))?;
    // SAFETY: the call has no conditions.
    let threads = Handle::own(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) })?;
    let size = u32::try_from(size_of::<THREADENTRY32>()).map_err(std::io::Error::other)?;
    let mut entry = THREADENTRY32 { dwSize: size, ..THREADENTRY32::default() };
    // SAFETY: the entry says its size.
    let mut has_more = unsafe { Thread32First(threads.raw(), &raw mut entry) } != 0;
    let mut resumed = 0;
    while has_more {
        if entry.th32OwnerProcessID == number {
            // SAFETY: the call has no conditions.
            let thread = Handle::own(unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, entry.th32ThreadID) })?;
            // SAFETY: the handle is open.
            if unsafe { ResumeThread(thread.raw()) } == u32::MAX {
                return Err(std::io::Error::last_os_error());
            }
            resumed += 1;
        }
        entry.dwSize = size;
        // SAFETY: as above.
        has_more = unsafe { Thread32Next(threads.raw(), &raw mut entry) } != 0;
    }
    if resumed == 0 { Err(std::io::Error::other("the process has no thread to begin with")) } else { Ok(()) }
}
