//! The system's clock since its start, and the number of that start.

use std::time::Duration;

use windows_sys::Win32::System::SystemInformation::GetTickCount64;

use super::registry;

const PREFETCH: &str = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters";

/// Counts the starts of the host; empty where Windows does not count them. With fast startup a
/// shutdown is a hibernation: the clock since the start goes on, and so does this number.
pub fn boot_id() -> String {
    registry::number(PREFETCH, "BootId").map_or_else(String::new, |boot| format!("boot {boot}"))
}

/// Time since the host's start, suspends included.
#[expect(unsafe_code, reason = "the system's call")]
pub fn since_boot() -> Duration {
    // SAFETY: the call has no conditions.
    Duration::from_millis(unsafe { GetTickCount64() })
}
