//! For tests that change state of a whole host: the test runs again in namespaces of its own, after
//! a script has prepared them. All its changes are gone when it ends.

use tokio::process::Command;

use crate::platform;
use crate::runner::Runner;

/// Set in the child that runs in its own namespaces.
const INSIDE: &str = "RIPOSTE_TEST_OWN_NAMESPACE";

/// Whether this process is the child.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test of that name again in `namespaces` (options of `unshare`), which the shell script
/// `prepare` sets up.
pub(crate) async fn run_again(test: &str, tools: &[&str], namespaces: &[&str], prepare: &str) {
    assert!(platform::is_root(), "this test needs root: it makes namespaces of its own");
    for tool in tools.iter().chain(&["unshare", "mount"]) {
        assert!(Runner::find(tool).is_some(), "this test needs {tool}, which is not installed");
    }
    let script = format!("set -e; {prepare}; exec \"$0\" --exact \"$1\" --nocapture");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .args(namespaces)
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
