//! A handle of the system, and memory that it allocated: both are given back when dropped.

use std::ffi::c_void;

use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE, LocalFree};

/// A handle that is closed when dropped.
#[derive(Debug)]
pub(super) struct Handle(HANDLE);

// A handle is a number; the system's calls may use it from any thread.
#[expect(unsafe_code, reason = "a raw handle is a pointer type")]
// SAFETY: see above.
unsafe impl Send for Handle {}
#[expect(unsafe_code, reason = "a raw handle is a pointer type")]
// SAFETY: see above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Takes over what a call returned.
    ///
    /// # Errors
    /// The system's last error, if the call returned no handle.
    pub(super) fn own(raw: HANDLE) -> std::io::Result<Self> {
        if raw.is_null() || raw == INVALID_HANDLE_VALUE { Err(std::io::Error::last_os_error()) } else { Ok(Self(raw)) }
    }

    pub(super) fn raw(&self) -> HANDLE {
        self.0
    }
}

impl Drop for Handle {
    #[expect(unsafe_code, reason = "the system's call")]
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used again.
        unsafe { CloseHandle(self.0) };
    }
}

/// Memory that the system allocated with `LocalAlloc` for the caller.
pub(super) struct Local(pub(super) *mut c_void);

impl Drop for Local {
    #[expect(unsafe_code, reason = "the system's call")]
    fn drop(&mut self) {
        // SAFETY: the memory is ours and is not used again; null is allowed.
        unsafe { LocalFree(self.0) };
    }
}
