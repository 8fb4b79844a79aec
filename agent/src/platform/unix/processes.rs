//! Other processes, as `/proc` shows them.

/// The names of the process of that number: its own, and its program's.
pub fn names(number: &str) -> Vec<String> {
    let own = std::fs::read_to_string(format!("/proc/{number}/comm")).ok().map(|name| name.trim_end().to_owned());
    let program = std::fs::read_link(format!("/proc/{number}/exe")).ok();
    let program = program.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    // The kernel appends this when a program's file was replaced while it ran, as a package upgrade
    // does.
    let program = program.map(|name| name.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(name));
    own.into_iter().chain(program).collect()
}

/// Whether two names are one program's.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one == other
}

/// Whether this process may not see which program the process of that number runs. Then it may be
/// any.
pub fn hides_program(number: &str) -> bool {
    std::fs::read_link(format!("/proc/{number}/exe"))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// What the process of that number is to the agent; `None` if nothing.
pub fn own(number: &str) -> Option<&'static str> {
    let number: u32 = number.parse().ok()?;
    if number == std::process::id() {
        Some("the agent itself")
    } else if number == std::os::unix::process::parent_id() {
        Some("the process that runs the agent")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_programs_name() {
        let own = names(&std::process::id().to_string());
        let program = std::env::current_exe().unwrap();
        assert!(own.contains(&program.file_name().unwrap().to_string_lossy().into_owned()), "{own:?}");
        assert!(names("4194305").is_empty());
    }

    #[test]
    fn a_process_keeps_its_programs_name_when_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than the 15 bytes that the kernel keeps of a process's own name.
        let program = folder.path().join("a-database-with-a-long-name");
        std::fs::copy(crate::runner::Runner::find("sleep").unwrap(), &program).unwrap();
        let mut process = std::process::Command::new(&program).arg("1000").spawn().unwrap();
        std::fs::remove_file(&program).unwrap();
        let found = names(&process.id().to_string());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(found.contains(&"a-database-with-a-long-name".to_owned()), "{found:?}");
    }
}
