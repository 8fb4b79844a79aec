//! Values of the registry, below `HKEY_LOCAL_MACHINE`.

use std::ffi::c_void;

use windows_sys::Win32::System::Registry::{
    HKEY_LOCAL_MACHINE, REG_DWORD, REG_EXPAND_SZ, REG_ROUTINE_FLAGS, REG_VALUE_TYPE, RRF_RT_REG_DWORD, RRF_RT_REG_SZ,
    RegDeleteTreeW, RegGetValueW, RegSetKeyValueW,
};

use super::wide::{narrow, wide};

/// A text; `None` if it is not there, or is no text.
pub(super) fn text(key: &str, name: &str) -> Option<String> {
    let mut buffer = [0_u16; 512];
    get(key, name, RRF_RT_REG_SZ, &mut buffer).then(|| narrow(&buffer))
}

/// A number; `None` if it is not there, or is no number.
pub(super) fn number(key: &str, name: &str) -> Option<u32> {
    let mut halves = [0_u16; 2];
    get(key, name, RRF_RT_REG_DWORD, &mut halves).then(|| u32::from(halves[1]) << 16 | u32::from(halves[0]))
}

/// Reads a value of that kind into `buffer`; returns whether it is there and fits.
#[expect(unsafe_code, reason = "the system's call")]
fn get(key: &str, name: &str, kind: REG_ROUTINE_FLAGS, buffer: &mut [u16]) -> bool {
    let Ok(mut bytes) = u32::try_from(size_of_val(buffer)) else { return false };
    let (key, name) = (wide(key), wide(name));
    // SAFETY: the names end with a zero, and `bytes` is the size of the buffer.
    let status = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key.as_ptr(),
            name.as_ptr(),
            kind,
            std::ptr::null_mut(),
            buffer.as_mut_ptr().cast::<c_void>(),
            &raw mut bytes,
        )
    };
    status == 0
}

/// Writes a text in which the system expands variables.
///
/// # Errors
/// When the system refuses.
pub(super) fn set_expanded_text(key: &str, name: &str, value: &str) -> std::io::Result<()> {
    let bytes: Vec<u8> = wide(value).into_iter().flat_map(u16::to_le_bytes).collect();
    set(key, name, REG_EXPAND_SZ, &bytes)
}

/// Writes a number.
///
/// # Errors
/// When the system refuses.
pub(super) fn set_number(key: &str, name: &str, value: u32) -> std::io::Result<()> {
    set(key, name, REG_DWORD, &value.to_le_bytes())
}

#[expect(unsafe_code, reason = "the system's call")]
fn set(key: &str, name: &str, kind: REG_VALUE_TYPE, bytes: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    // SAFETY: the names end with a zero, and `length` is the size of the value.
    let status = unsafe {
        RegSetKeyValueW(
            HKEY_LOCAL_MACHINE,
            wide(key).as_ptr(),
            wide(name).as_ptr(),
            kind,
            bytes.as_ptr().cast::<c_void>(),
            length,
        )
    };
    done(status)
}

/// Removes a key with everything in it.
///
/// # Errors
/// When the system refuses.
#[expect(unsafe_code, reason = "the system's call")]
pub(super) fn remove(key: &str) -> std::io::Result<()> {
    // SAFETY: the name ends with a zero.
    done(unsafe { RegDeleteTreeW(HKEY_LOCAL_MACHINE, wide(key).as_ptr()) })
}

fn done(status: u32) -> std::io::Result<()> {
    if status == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(i32::try_from(status).unwrap_or(-1))) }
}
