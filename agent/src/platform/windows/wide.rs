//! Text as the system's calls take and return it: UTF-16, ended by a zero.

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt as _;

/// `text` with a zero at its end.
pub(super) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// The text up to the first zero.
pub(super) fn narrow(wide: &[u16]) -> String {
    let end = wide.iter().position(|unit| *unit == 0).unwrap_or(wide.len());
    String::from_utf16_lossy(&wide[..end])
}

/// The text at `text`, which ends with a zero; empty for a null pointer.
///
/// # Safety
/// `text` is null, or points to UTF-16 that ends with a zero and lives through the call.
#[expect(unsafe_code, reason = "the system returns strings by pointer")]
pub(super) unsafe fn from_pointer(text: *const u16) -> String {
    if text.is_null() {
        return String::new();
    }
    let mut length = 0;
    // SAFETY: every unit up to the first zero belongs to the string.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    // SAFETY: as above; the slice ends before the zero.
    String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(text, length) })
}
