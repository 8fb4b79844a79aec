//! The programs that the tests start, and those that they need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns whether a program that a test needs is installed.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|directory| directory.join(program).is_file())
}

/// Fails if a program is not installed, and says how to install it.
pub(crate) fn require(programs: &[(&str, &str)]) {
    let missing: Vec<String> = programs
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(program, package)| format!("{program} (Debian package {package})"))
        .collect();
    assert!(missing.is_empty(), "this test needs programs that are not installed: {}", missing.join(", "));
}

/// Returns a command that dies with this thread.
pub(crate) fn tied(program: &Path) -> Command {
    require(&[("setpriv", "util-linux")]);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGKILL", "--"]).arg(program).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RIPOSTE_") {
            command.env_remove(name);
        }
    }
    command
}

/// The manager of this build, or the one that `make compatibility` names.
pub(crate) fn manager_program() -> PathBuf {
    std::env::var_os("MANAGER_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_riposte").into(), PathBuf::from)
}

/// The agent of this build, or the one that `make compatibility` names.
pub(crate) fn agent_program() -> PathBuf {
    if let Some(program) = std::env::var_os("AGENT_PROGRAM") {
        return program.into();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_riposte")).with_file_name("riposte-agent");
    assert!(program.is_file(), "riposte-agent is not built beside riposte: run `cargo build --workspace` first");
    program
}
