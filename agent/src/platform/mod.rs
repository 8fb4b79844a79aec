//! What differs between operating systems, behind one set of names. Everything else in the agent
//! is the same on all of them; this module and the choice of actions are the only places that ask
//! which system the program is built for.
//!
//! - [`describe`], [`hostname`]: what this host is.
//! - `must_be_root`, `may_…`: what this process may do here.
//! - [`clocks`], [`network`], [`accounts`], [`processes`]: what the system tells.
//! - [`guarded`]: files that no other account can choose or change.
//! - [`tree`]: a program with everything that it starts.
//! - [`service`]: the system's manager of services. [`stop`]: how the agent is asked to stop.
//! - [`ruleset`]: what nftables holds in the kernel.
//! - [`places`]: the folders of this system.

#[cfg(target_os = "linux")]
mod linux;
pub(crate) mod path_error;
pub(crate) mod ruleset_objects;
#[cfg(not(target_os = "linux"))]
mod ruleset_unseen;
#[cfg(unix)]
mod unix;
#[cfg(not(target_os = "linux"))]
mod waiting_unseen;
#[cfg(windows)]
mod windows;

use riposte_protocol::message::Platform;

#[cfg(unix)]
pub use self::unix::*;
#[cfg(windows)]
pub use self::windows::*;

/// What nftables holds in the kernel.
pub(crate) mod ruleset {
    #[cfg(target_os = "linux")]
    pub(crate) use crate::platform::linux::ruleset::Ruleset;
    #[cfg(all(test, target_os = "linux"))]
    pub(crate) use crate::platform::linux::ruleset::in_network;
    pub(crate) use crate::platform::ruleset_objects::{Expression, FilterChain, Set};
    #[cfg(not(target_os = "linux"))]
    pub(crate) use crate::platform::ruleset_unseen::Ruleset;
    #[cfg(all(test, not(target_os = "linux")))]
    pub(crate) use crate::platform::ruleset_unseen::in_network;
}

/// How it is seen that a program waits for its input.
pub(crate) mod waiting {
    #[cfg(target_os = "linux")]
    pub(crate) use crate::platform::linux::waiting::Watch;
    #[cfg(not(target_os = "linux"))]
    pub(crate) use crate::platform::waiting_unseen::Watch;
}

/// The operating system, the architecture and the system's own name of its version.
pub fn describe() -> Platform {
    Platform { os: std::env::consts::OS.into(), arch: std::env::consts::ARCH.into(), version: version() }
}
