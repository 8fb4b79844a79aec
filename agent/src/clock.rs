//! The only place that reads clocks. All other code takes a [`Clock`], so that a test can decide
//! what time it is.
//!
//! There are two times. The wall clock says when an effect ends; it may jump, because people and
//! NTP set it. The boot clock counts from the host's start, through suspends, and never jumps; it
//! says how long an effect lasts.
//!
//! If the wall clock is off by more than the protocol allows, the manager's time is used instead,
//! where it is known ([`ManagerTime`]).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use riposte_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::manager_time::ManagerTime;
use crate::moment::Moment;
use crate::platform::clocks;

/// The source of the time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's clocks; `boot` identifies the running boot of the host.
    System {
        /// Differs after every start of the host; empty if the host has no boot id.
        boot: Arc<str>,
        /// What is known of the manager's time.
        manager: Arc<ManagerTime>,
    },
    /// Clocks that follow the runtime's own time, which a test can pause and advance.
    Simulated {
        /// The wall clock's reading at the start.
        origin: Timestamp,
        /// The instant of the start.
        started: Instant,
        /// As with [`Clock::System`].
        boot: Arc<str>,
        /// By how many milliseconds the wall clock was set forward since the start.
        jumped: Arc<AtomicI64>,
        /// As with [`Clock::System`].
        manager: Arc<ManagerTime>,
    },
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self::System { boot: clocks::boot_id().into(), manager: Arc::default() }
    }

    /// The system's clocks, with what `state_dir` knows of the manager's time.
    #[must_use]
    pub fn knowing(self, state_dir: &Path) -> Self {
        let manager = Arc::new(ManagerTime::kept_in(state_dir, &self.host()));
        match self {
            Self::System { boot, .. } => Self::System { boot, manager },
            Self::Simulated { origin, started, boot, jumped, .. } => {
                Self::Simulated { origin, started, boot, jumped, manager }
            }
        }
    }

    /// A wall clock that reads `origin` now and follows the runtime's time, on a host that has just
    /// been started.
    pub fn simulated(origin: Timestamp) -> Self {
        Self::Simulated {
            origin,
            started: Instant::now(),
            boot: "boot 1".into(),
            jumped: Arc::default(),
            manager: Arc::default(),
        }
    }

    /// The current time, corrected if the host's clock is off.
    pub fn now(&self) -> Timestamp {
        self.moment().wall
    }

    /// Both clocks; the wall clock is corrected if the host's clock is off.
    pub fn moment(&self) -> Moment {
        let host = self.host();
        let wall = self.manager().read(&host);
        Moment { wall, ..host }
    }

    /// What is known of the manager's time.
    pub fn manager(&self) -> &ManagerTime {
        match self {
            Self::System { manager, .. } | Self::Simulated { manager, .. } => manager,
        }
    }

    /// Both clocks as the host has them, uncorrected.
    pub fn host(&self) -> Moment {
        match self {
            Self::System { boot, .. } => {
                Moment { wall: wall_clock(), since_boot: clocks::since_boot(), boot: Arc::clone(boot) }
            }
            Self::Simulated { origin, started, boot, jumped, .. } => {
                let (since_boot, jumped) = (started.elapsed(), jumped.load(Ordering::Relaxed));
                let wall = Timestamp::from_millis(origin.plus(since_boot).as_millis() + jumped);
                Moment { wall, since_boot, boot: Arc::clone(boot) }
            }
        }
    }

    /// Sets a simulated wall clock forward by `millis`, or back if negative. No effect on the
    /// system's clock.
    pub fn jump(&self, millis: i64) {
        if let Self::Simulated { jumped, .. } = self {
            jumped.fetch_add(millis, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the home of the wall clock")]
fn wall_clock() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0).plus(since_epoch)
}
