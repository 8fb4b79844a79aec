//! Lines to standard output and standard error; a closed pipe is not an error.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the terminal is a screen on which lines would be in the way.
static IS_SCREEN: AtomicBool = AtomicBool::new(false);

/// Prints one line to standard output.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints one line to standard error, unless the terminal is a screen.
pub(super) fn complain(line: &str) {
    if !IS_SCREEN.load(Ordering::Relaxed) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Says whether the terminal is a screen from now on.
pub(super) fn set_screen(is_screen: bool) {
    IS_SCREEN.store(is_screen, Ordering::Relaxed);
}
