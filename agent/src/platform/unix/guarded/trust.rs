//! Which accounts the agent trusts: root and its own. Others must not be able to change what it
//! reads.

use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::Stat;

/// Bits of a mode: the group or others can write. With the sticky bit, only the owner of an entry
/// can replace it.
pub(super) const OTHERS_WRITE: u32 = 0o022;
pub(super) const STICKY: u32 = 0o1000;

/// Whether `owner` is root or the account that the agent runs as. A user namespace may not know the
/// real root, such as a container without root. There the system's own files belong to the overflow
/// account, which stands for all unknown accounts.
pub(super) fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw() || *STAND_IN == Some(owner)
}

static STAND_IN: LazyLock<Option<u32>> = LazyLock::new(|| {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    stand_in(&text("/proc/self/uid_map")?, &text("/proc/sys/kernel/overflowuid")?)
});

/// The overflow account, which stands for those that are unknown here; `None` if all are known.
pub(super) fn stand_in(map: &str, overflow: &str) -> Option<u32> {
    let knows_all = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if knows_all { None } else { overflow.trim().parse().ok() }
}

/// The bits of the mode, which systems keep in integers of different sizes.
pub(crate) fn mode_of(stat: &Stat) -> u32 {
    fn wide(mode: impl Into<u32>) -> u32 {
        mode.into()
    }
    wide(stat.st_mode)
}

/// Why other accounts can change this file or folder, with the command that fixes it; `None` if
/// they cannot.
pub fn distrust(stat: &Stat, path: &Path) -> Option<String> {
    let path = path.display();
    if !is_trusted(stat.st_uid) {
        let owner = stat.st_uid;
        Some(format!("it belongs to the account {owner}, neither root nor the agent's (chown root {path})"))
    } else if mode_of(stat) & OTHERS_WRITE != 0 {
        Some(format!("accounts other than its owner can write it (chmod go-w {path})"))
    } else {
        None
    }
}
