//! The system's clock since its start, and the number of that start.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Differs after every start of the host; empty if the host has no boot id.
pub fn boot_id() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.trim().to_owned()
}

/// Time since the host's start, suspends included.
pub fn since_boot() -> Duration {
    // Linux's monotonic clock stands still while the host is suspended; a block does not.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// How often a second the kernel counts in the start times of processes.
pub fn ticks_per_second() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    ticks.filter(|ticks| *ticks > 0).unwrap_or(100)
}
