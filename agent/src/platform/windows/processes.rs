//! Other processes. One is held by a handle, so that its number cannot become another's meanwhile.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, FILETIME, HANDLE, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::Threading::{
    GetProcessId, GetProcessTimes, OpenProcess, PROCESS_ACCESS_RIGHTS, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, QueryFullProcessImageNameW, TerminateProcess, WaitForSingleObject,
};

use super::handle::Handle;
use super::wide::{narrow, wide};

/// Milliseconds from 1601, where Windows counts from, to 1970.
const TO_EPOCH_MILLIS: i64 = 11_644_473_600_000;
/// The exit code of a process that is ended from outside.
const ENDED: u32 = 1;

/// The first processes of Windows, which it ends with or restarts with.
const FIRST: [&str; 7] =
    ["smss.exe", "csrss.exe", "wininit.exe", "winlogon.exe", "services.exe", "lsass.exe", "fontdrvhost.exe"];

/// A process that is held.
#[derive(Debug)]
pub struct Held {
    handle: Handle,
    number: u32,
}

impl Held {
    /// Holds the process of that number to end it; `None` if there is none.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn to_end(number: u32) -> io::Result<Option<Self>> {
        Self::open(number, PROCESS_TERMINATE | PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE)
    }

    /// Holds the process of that number to look at it; `None` if there is none.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn to_see(number: u32) -> io::Result<Option<Self>> {
        Self::open(number, PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE)
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn open(number: u32, rights: PROCESS_ACCESS_RIGHTS) -> io::Result<Option<Self>> {
        // SAFETY: the call has no conditions.
        match Handle::own(unsafe { OpenProcess(rights, 0, number) }) {
            // The system ignores the last two bits of a number, which then is another process's.
            Ok(handle) => Ok(Some(Self { handle, number }).filter(|held| held.is_meant() && !held.is_dead())),
            Err(error) if is(&error, ERROR_INVALID_PARAMETER) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its program.
    ///
    /// # Errors
    /// When the system does not tell.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn program(&self) -> io::Result<PathBuf> {
        let mut name = vec![0_u16; 32 * 1024];
        let mut length = u32::try_from(name.len()).map_err(io::Error::other)?;
        // SAFETY: `length` is that of the buffer.
        let is_told = unsafe { QueryFullProcessImageNameW(self.handle.raw(), 0, name.as_mut_ptr(), &raw mut length) };
        if is_told == 0 { Err(io::Error::last_os_error()) } else { Ok(narrow(&name).into()) }
    }

    /// When it began, by the system's clock at that time.
    ///
    /// # Errors
    /// When the system does not tell.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn began(&self) -> io::Result<Timestamp> {
        let mut times = [FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 }; 4];
        let [began, ended, kernel, user] = &mut times;
        // SAFETY: four places for four times.
        let is_told = unsafe {
            GetProcessTimes(self.handle.raw(), &raw mut *began, &raw mut *ended, &raw mut *kernel, &raw mut *user)
        };
        if is_told == 0 {
            return Err(io::Error::last_os_error());
        }
        let ticks = i64::from(began.dwHighDateTime) << 32 | i64::from(began.dwLowDateTime);
        Ok(Timestamp::from_millis(ticks / 10_000 - TO_EPOCH_MILLIS))
    }

    /// Whether the system ends with it: it says so itself, or it is one of its own first processes.
    pub fn is_critical(&self) -> bool {
        let program = self.program().map(|program| program.to_string_lossy().to_lowercase());
        // What cannot be told is not ended.
        let Ok(program) = program else { return true };
        let folder = std::env::var("SystemRoot").unwrap_or_else(|_| r"C:\Windows".into()).to_lowercase();
        let own = program.strip_prefix(&format!(r"{folder}\system32\"));
        own.is_some_and(|name| FIRST.contains(&name)) || self.says_critical()
    }

    /// Windows 7 and Wine have no such call, and no such mark.
    #[expect(unsafe_code, reason = "the system's calls")]
    fn says_critical(&self) -> bool {
        type Ask = unsafe extern "system" fn(HANDLE, *mut i32) -> i32;
        // SAFETY: both names end with a zero; the library is in every process.
        let ask = unsafe {
            GetProcAddress(GetModuleHandleW(wide("kernel32.dll").as_ptr()), c"IsProcessCritical".as_ptr().cast())
        };
        let Some(ask) = ask else { return false };
        // SAFETY: the call of that name has this form.
        let ask = unsafe { std::mem::transmute::<unsafe extern "system" fn() -> isize, Ask>(ask) };
        let mut is_critical = 0;
        // SAFETY: the handle is open.
        let is_told = unsafe { ask(self.handle.raw(), &raw mut is_critical) };
        is_told == 0 || is_critical != 0
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the system refuses.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn end(&self) -> io::Result<()> {
        // SAFETY: the handle is open.
        if unsafe { TerminateProcess(self.handle.raw(), ENDED) } != 0 || self.is_dead() {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }

    /// Waits up to `patience` until it is gone; returns whether it is.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn is_gone_within(&self, patience: Duration) -> bool {
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX - 1);
        // SAFETY: the handle is open.
        unsafe { WaitForSingleObject(self.handle.raw(), millis) == WAIT_OBJECT_0 }
    }

    /// The process that started it, and that one's program.
    pub fn parent(&self) -> Option<u32> {
        parent_of(self.number)
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn is_meant(&self) -> bool {
        // SAFETY: the handle is open.
        unsafe { GetProcessId(self.handle.raw()) == self.number }
    }

    #[expect(unsafe_code, reason = "the system's call")]
    fn is_dead(&self) -> bool {
        // SAFETY: the handle is open.
        unsafe { WaitForSingleObject(self.handle.raw(), 0) != WAIT_TIMEOUT }
    }
}

/// The name of the process's program, with its ending and without.
pub fn names(number: &str) -> Vec<String> {
    let held = number.parse().ok().and_then(|number| Held::to_see(number).ok().flatten());
    let Some(program) = held.and_then(|held| held.program().ok()) else { return Vec::new() };
    let text = |name: Option<&std::ffi::OsStr>| name.map(|name| name.to_string_lossy().into_owned());
    text(program.file_name()).into_iter().chain(text(program.file_stem())).collect()
}

/// Whether two names are one program's: letters are compared in any case.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// Whether this process may not see which program the process of that number runs. Then it may be
/// any.
pub fn hides_program(number: &str) -> bool {
    let Ok(number) = number.parse() else { return false };
    match Held::to_see(number) {
        Ok(held) => held.is_some_and(|held| held.program().is_err()),
        Err(error) => is(&error, ERROR_ACCESS_DENIED),
    }
}

/// What the process of that number is to the agent; `None` if nothing.
pub fn own(number: &str) -> Option<&'static str> {
    let (number, own): (u32, u32) = (number.parse().ok()?, std::process::id());
    if number == own {
        Some("the agent itself")
    } else if parent_of(own) == Some(number) {
        Some("the process that runs the agent")
    } else {
        None
    }
}

#[expect(unsafe_code, reason = "the system's calls")]
fn parent_of(number: u32) -> Option<u32> {
    // SAFETY: the call has no conditions.
    let processes = Handle::own(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) }).ok()?;
    let size = u32::try_from(size_of::<PROCESSENTRY32W>()).ok()?;
    let mut entry = PROCESSENTRY32W { dwSize: size, ..PROCESSENTRY32W::default() };
    // SAFETY: the entry says its size.
    let mut has_more = unsafe { Process32FirstW(processes.raw(), &raw mut entry) } != 0;
    while has_more {
        if entry.th32ProcessID == number {
            return Some(entry.th32ParentProcessID);
        }
        // SAFETY: as above.
        has_more = unsafe { Process32NextW(processes.raw(), &raw mut entry) } != 0;
    }
    None
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error().and_then(|raw| u32::try_from(raw).ok()) == Some(code)
}
