//! The system's log of events: warnings and errors of the service, where administrators look first.

use std::io;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::EventLog::{
    EVENTLOG_ERROR_TYPE, EVENTLOG_WARNING_TYPE, RegisterEventSourceW, ReportEventW,
};

use super::registry;
use super::wide::wide;

const KEY: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application\riposte-agent";
/// A program of Windows whose messages are nothing but the text that is given.
const MESSAGES: &str = r"%SystemRoot%\System32\EventCreate.exe";
/// The number of a message, one of those that the program above knows.
const NUMBER: u32 = 1;
/// Longest text of an event, in UTF-16 units.
const MAX_UNITS: usize = 31_000;

/// Makes the agent a source of events.
///
/// # Errors
/// When the system refuses.
pub(super) fn install() -> io::Result<()> {
    registry::set_expanded_text(KEY, "EventMessageFile", MESSAGES)?;
    registry::set_number(KEY, "TypesSupported", 7)
}

/// Removes the source.
///
/// # Errors
/// When the system refuses.
pub(super) fn uninstall() -> io::Result<()> {
    registry::remove(KEY)
}

/// Writes each text that it is given as an event.
#[derive(Debug)]
pub struct EventLog {
    source: HANDLE,
}

#[expect(unsafe_code, reason = "a raw handle is a pointer type")]
// SAFETY: the handle is a number that any thread may use.
unsafe impl Send for EventLog {}
#[expect(unsafe_code, reason = "a raw handle is a pointer type")]
// SAFETY: as above.
unsafe impl Sync for EventLog {}

impl EventLog {
    /// The log of this host, open for as long as the process runs.
    ///
    /// # Errors
    /// When the system refuses.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn open() -> io::Result<Self> {
        let name = wide("riposte-agent");
        // SAFETY: a null server is this host; the name ends with a zero.
        let source = unsafe { RegisterEventSourceW(std::ptr::null(), name.as_ptr()) };
        if source.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self { source }) }
    }

    /// Writes a warning or an error.
    ///
    /// # Errors
    /// When the system refuses.
    #[expect(unsafe_code, reason = "the system's call")]
    pub fn write(&self, text: &str, is_error: bool) -> io::Result<()> {
        let mut text = wide(text);
        if text.len() > MAX_UNITS {
            text.truncate(MAX_UNITS);
            text.push(0);
        }
        let kind = if is_error { EVENTLOG_ERROR_TYPE } else { EVENTLOG_WARNING_TYPE };
        let texts = [text.as_ptr()];
        // SAFETY: one text, which ends with a zero; no account and no data.
        let is_written = unsafe {
            ReportEventW(self.source, kind, 0, NUMBER, std::ptr::null_mut(), 1, 0, texts.as_ptr(), std::ptr::null())
        };
        if is_written == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
