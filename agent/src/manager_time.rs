//! What the agent knows of its manager's time, beside its own clock: the clock of a host can be
//! days off. The manager's time is learnt from answers over TLS or loopback, and from signed
//! orders. Between two of them it advances with the boot clock. Plain HTTP over a network teaches
//! nothing.
//!
//! The host's own clock is believed as long as it is near the manager's. No clock is read here: the
//! result depends only on what was learnt and on the given moment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use riposte_protocol::identity::LEEWAY;
use riposte_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::moment::Moment;
use crate::platform::guarded;

/// A change of the difference below this is network latency, and is not stored. In milliseconds.
const NEWS_MILLIS: u64 = 2000;
/// Limit of the file with the clock's difference, in bytes; larger than any content.
const MAX_BYTES: u64 = 4096;

/// For so long after it was learnt, the manager's time is taken as exact.
const FRESH: Duration = Duration::from_secs(5);

/// What is known of the manager's time.
#[derive(Debug, Default)]
pub struct ManagerTime {
    known: Mutex<Option<Known>>,
    /// File that keeps it over a restart; `None` in tests.
    file: Option<PathBuf>,
}

/// The manager's time, as far as it was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// The boot of the host that it counts from.
    boot: Arc<str>,
    /// The manager's time at that boot.
    at_boot: Timestamp,
    how: How,
    /// When it was learnt, on the boot clock.
    learnt_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The manager said it, over a private connection.
    Told,
    /// A signed order bears it: the manager's time is later, or the same.
    AtLeast,
}

/// What is stored in the state directory while the host's clock is off.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skew {
    /// The boot of the host that was running then.
    boot: String,
    /// The manager's time at that boot, in milliseconds.
    at_boot_millis: i64,
    /// By how much the host's clock is ahead of the manager's, in milliseconds; behind if negative.
    pub ahead_millis: i64,
}

impl Skew {
    /// Reads `state_dir`. Returns `None` if the host's clock was right when the manager's time was
    /// last learnt.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match guarded::read(&path(state_dir), MAX_BYTES) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("clock")
}

impl ManagerTime {
    /// What the state directory still knows at `host`'s moment. Within one boot of the host it is
    /// as good as new.
    ///
    /// After a restart of the host it may be stale. A clock that was ahead is assumed to be ahead
    /// still: believing it would lift early. A clock that was behind is believed, because an effect
    /// never lasts longer than its term.
    pub fn kept_in(state_dir: &Path, host: &Moment) -> Self {
        let kept = Skew::read(state_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the stored manager's time cannot be read; it is learnt again");
            None
        });
        let known = kept.and_then(|kept| {
            if *kept.boot == *host.boot {
                let at_boot = Timestamp::from_millis(kept.at_boot_millis);
                return Some(Known {
                    boot: Arc::clone(&host.boot),
                    at_boot,
                    how: How::Told,
                    learnt_at: Duration::ZERO,
                });
            }
            let ahead = Duration::from_millis(u64::try_from(kept.ahead_millis).ok()?);
            let at_boot = host.wall.minus(ahead).minus(host.since_boot);
            Some(Known { boot: Arc::clone(&host.boot), at_boot, how: How::Told, learnt_at: Duration::ZERO })
        });
        Self { known: Mutex::new(known), file: Some(path(state_dir)) }
    }

    /// The current time: the host's, unless it is known to be off.
    pub fn read(&self, host: &Moment) -> Timestamp {
        let Some((manager, how)) = self.estimate(host) else { return host.wall };
        let is_off = match how {
            How::Told => host.wall.since(manager).max(manager.since(host.wall)) > LEEWAY,
            How::AtLeast => manager.since(host.wall) > LEEWAY,
        };
        if is_off { manager } else { host.wall }
    }

    /// Learns that the manager's time was `manager` at `host`'s moment. Returns by how much the
    /// host's clock is ahead, in milliseconds, if it is off or was off, and that has changed.
    pub fn learn(&self, manager: Timestamp, host: &Moment) -> Option<i64> {
        let mut known = self.lock();
        let before = Self::estimate_of(known.as_ref(), host).filter(|(_, how)| *how == How::Told);
        let at_boot = manager.minus(host.since_boot);
        let learnt_at = host.since_boot;
        *known = Some(Known { boot: Arc::clone(&host.boot), at_boot, how: How::Told, learnt_at });
        drop(known);
        let (is_off, ahead) = off(manager, host.wall);
        let (was_off, change) = before.map_or((false, 0), |(before, _)| {
            (off(before, host.wall).0, before.as_millis().abs_diff(manager.as_millis()))
        });
        // Without a file nothing is known from before. The file shows whether the clock was off
        // then.
        let was_off = was_off || self.file.as_deref().is_some_and(Path::exists);
        let is_news = is_off != was_off || (is_off && (before.is_none() || change > NEWS_MILLIS));
        if !is_news {
            return None;
        }
        self.keep(is_off.then(|| Skew {
            boot: host.boot.to_string(),
            at_boot_millis: at_boot.as_millis(),
            ahead_millis: ahead,
        }));
        Some(if is_off { ahead } else { 0 })
    }

    /// Learns from a verified order, issued at `iat`, that the manager's time is not before that.
    pub fn learn_order(&self, iat: Timestamp, host: &Moment) {
        let at_boot = iat.minus(host.since_boot);
        let mut known = self.lock();
        match known.as_mut().filter(|known| known.boot == host.boot) {
            Some(known) => known.at_boot = known.at_boot.max(at_boot),
            None => {
                let learnt_at = host.since_boot;
                *known = Some(Known { boot: Arc::clone(&host.boot), at_boot, how: How::AtLeast, learnt_at });
            }
        }
    }

    /// Whether the manager's time was learnt some time ago: its clock may have been set since. A
    /// manager that never sends its time need not be asked again.
    pub fn is_stale(&self, host: &Moment) -> bool {
        let known = self.lock();
        let told = known.as_ref().filter(|known| known.boot == host.boot && known.how == How::Told);
        told.is_some_and(|told| host.since_boot.saturating_sub(told.learnt_at) >= FRESH)
    }

    /// By how much the host's clock is ahead of the time in use, in milliseconds; 0 while it is
    /// believed.
    pub fn ahead_millis(&self, host: &Moment) -> i64 {
        host.wall.as_millis() - self.read(host).as_millis()
    }

    fn estimate(&self, host: &Moment) -> Option<(Timestamp, How)> {
        Self::estimate_of(self.lock().as_ref(), host)
    }

    fn estimate_of(known: Option<&Known>, host: &Moment) -> Option<(Timestamp, How)> {
        let known = known.filter(|known| known.boot == host.boot)?;
        Some((known.at_boot.plus(host.since_boot), known.how))
    }

    fn keep(&self, skew: Option<Skew>) {
        let Some(file) = &self.file else { return };
        let kept = match skew {
            Some(skew) => {
                serde_json::to_vec(&skew).map_err(io::Error::from).and_then(|text| durable::replace(file, &text))
            }
            None => durable::remove(file),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the manager's time cannot be stored; it is learnt again after a restart");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a clock that reads `host` is off, and by how much it is ahead, in milliseconds.
fn off(manager: Timestamp, host: Timestamp) -> (bool, i64) {
    let ahead = host.as_millis() - manager.as_millis();
    (Duration::from_millis(ahead.unsigned_abs()) > LEEWAY, ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_514_400_000);
    const DAY: Duration = Duration::from_hours(24);

    fn host(wall: Timestamp, since_boot: Duration) -> Moment {
        Moment { wall, since_boot, boot: "boot 1".into() }
    }

    #[test]
    fn a_clock_that_is_off_is_not_gone_by_and_one_that_is_near_is() {
        for (wall, expected) in [
            (NOW, NOW),
            (NOW.plus(LEEWAY), NOW.plus(LEEWAY)),
            (NOW.minus(LEEWAY), NOW.minus(LEEWAY)),
            (NOW.plus(2 * DAY), NOW),
            (NOW.minus(2 * DAY), NOW),
            (Timestamp::from_millis(0), NOW),
        ] {
            let time = ManagerTime::default();
            assert_eq!(time.read(&host(wall, DAY)), wall, "nothing is known yet");
            let news = time.learn(NOW, &host(wall, DAY));
            assert_eq!(time.read(&host(wall, DAY)), expected, "{wall}");
            assert_eq!(news, (expected != wall).then_some(wall.as_millis() - NOW.as_millis()));
            assert_eq!(time.learn(NOW, &host(wall, DAY)), None, "that is no news");
            // The manager's time advances with the boot clock, and a host's clock that is set right
            // is believed again.
            let later = host(wall.plus(DAY), 2 * DAY);
            assert_eq!(time.read(&later), expected.plus(DAY));
            let mended = host(NOW.plus(DAY), 2 * DAY);
            assert_eq!(time.read(&mended), NOW.plus(DAY));
            // After a restart of the host nothing is known.
            let restarted = Moment { boot: "boot 2".into(), ..host(wall, DAY) };
            assert_eq!(time.read(&restarted), wall);
        }
    }

    #[test]
    fn a_signed_order_proves_that_a_clock_is_behind_and_never_that_it_is_ahead() {
        let time = ManagerTime::default();
        time.learn_order(NOW, &host(NOW, DAY));
        assert_eq!(time.read(&host(NOW.minus(2 * DAY), DAY)), NOW, "set back since");
        assert_eq!(time.read(&host(NOW.plus(2 * DAY), DAY)), NOW.plus(2 * DAY));
        time.learn_order(NOW.minus(DAY), &host(NOW, DAY));
        assert_eq!(time.read(&host(NOW.minus(2 * DAY), DAY)), NOW, "an older order proves less");
        // A later order corrects the time that was told, which stays exact.
        time.learn(NOW.minus(2 * DAY), &host(NOW, DAY));
        assert_eq!(time.read(&host(NOW, DAY)), NOW.minus(2 * DAY));
        time.learn_order(NOW.minus(DAY), &host(NOW, DAY));
        assert_eq!(time.read(&host(NOW, DAY)), NOW.minus(DAY));
    }

    #[test]
    fn a_told_time_becomes_stale_and_an_order_time_does_not() {
        let time = ManagerTime::default();
        time.learn_order(NOW, &host(NOW, DAY));
        assert!(!time.is_stale(&host(NOW, 2 * DAY)), "an order tells no time");
        time.learn(NOW, &host(NOW, DAY));
        assert!(!time.is_stale(&host(NOW, DAY + Duration::from_millis(4999))));
        assert!(time.is_stale(&host(NOW, DAY + FRESH)));
    }

    #[test]
    fn the_managers_time_survives_a_restart_and_lifts_nothing_early() {
        let directory = tempfile::tempdir().unwrap();
        for (wall, after_reboot) in [(NOW.plus(2 * DAY), NOW), (NOW.minus(2 * DAY), NOW.minus(2 * DAY))] {
            let now = host(wall, DAY);
            assert!(ManagerTime::kept_in(directory.path(), &now).learn(NOW, &now).is_some());
            assert_eq!(ManagerTime::kept_in(directory.path(), &now).read(&now), NOW, "a restart of the program");
            let reboot = Moment { boot: "boot 2".into(), ..host(wall, Duration::ZERO) };
            assert_eq!(ManagerTime::kept_in(directory.path(), &reboot).read(&reboot), after_reboot);
            // Once the clock is right there is nothing to store.
            let right = host(NOW, DAY);
            assert_eq!(ManagerTime::kept_in(directory.path(), &right).learn(NOW, &right), Some(0));
            assert_eq!(Skew::read(directory.path()).unwrap(), None);
        }
        std::fs::write(path(directory.path()), "not JSON").unwrap();
        let now = host(NOW, DAY);
        assert_eq!(ManagerTime::kept_in(directory.path(), &now).read(&now), NOW);
    }
}
