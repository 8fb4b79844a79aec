//! `riposte-agent config check`: every fault with file and line, and the exit code that packages ask for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Runs the check; returns whether it succeeded, its output, and its faults.
fn check(state: &Path, arguments: &[&str]) -> (bool, String, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_riposte-agent"));
    command.env_clear().args(["config", "check", "--state-dir"]).arg(state).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let faults = text(output.stderr).lines().map(str::to_owned).collect();
    (output.status.success(), text(output.stdout), faults)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_configuration_is_checked_with_file_and_line_before_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let (state, policy, settings) = (folder.path(), folder.path().join("agent.toml"), folder.path().join("agent.env"));
    let environment = ["--environment", settings.to_str().unwrap()];
    // Neither file need exist.
    let (is_valid, said, faults) = check(state, &environment);
    assert!(is_valid && said.contains("the default local policy") && faults.is_empty(), "{said}{faults:?}");

    write(
        &policy,
        "observe = true\nallowed_actions = [\n  \"firewall-drop\",\n  \"firewal-drop\",\n]\nverify = \"5m\"\n",
    );
    write(
        &settings,
        "# Settings\nRIPOSTE_TRANSPORT=strem\nRIPOSTE_OBSERVE=maybe\nRIPOSTE_OBSERV=true\nRIPOSTE_LOG=a=b=c\n\
         PATH=/usr/bin\nRIPOSTE_POLICY = /x\nnothing\nRIPOSTE_LOG_FORMAT='json'\nRIPOSTE_NAME=\n",
    );
    let (is_valid, said, faults) = check(state, &environment);
    assert!(!is_valid && said.is_empty(), "{said}");
    let (policy_name, settings_name) = (policy.display().to_string(), settings.display().to_string());
    let expected = [
        (format!("{settings_name}:2: RIPOSTE_TRANSPORT: "), "\"strem\" is none of auto, stream, poll"),
        (format!("{settings_name}:3: RIPOSTE_OBSERVE: "), "neither true nor false"),
        (format!("{settings_name}:4: RIPOSTE_OBSERV: "), "did you mean RIPOSTE_OBSERVE?"),
        (format!("{settings_name}:5: RIPOSTE_LOG: "), ""),
        (format!("{settings_name}:7: "), "without spaces around"),
        (format!("{settings_name}:8: "), "not NAME=value"),
        (format!("{settings_name}:10: RIPOSTE_NAME: "), "empty"),
        (format!("{policy_name}:4: "), "did you mean firewall-drop?"),
        (format!("{policy_name}:6: "), "there is no key verify"),
        ("riposte-agent: ".to_owned(), "9 faults"),
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, (place, part)) in faults.iter().zip(&expected) {
        assert!(fault.starts_with(place) && fault.contains(part), "{fault}\n{place}{part}");
    }

    // The settings name the policy, as for the service.
    let other = state.join("other.toml");
    write(&other, "drift = \"report\"\n");
    write(&settings, &format!("RIPOSTE_POLICY=\"{}\"\nRIPOSTE_OBSERVE=yes\n", other.display()));
    let (is_valid, said, faults) = check(state, &environment);
    assert!(is_valid && said.contains("other.toml"), "{said}{faults:?}");
    // The one of the command line comes first, and must be there.
    let absent = state.join("absent.toml");
    let (is_valid, _, faults) = check(state, &[&environment[..], &["--policy", absent.to_str().unwrap()]].concat());
    assert!(!is_valid && faults[0].contains("absent.toml"), "{faults:?}");
    // A file that others can write would not be used.
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (is_valid, _, faults) = check(state, &environment);
    assert!(!is_valid && faults[0].contains("chmod go-w"), "{faults:?}");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    write(&state.join("agent.json"), "{}");
    let (is_valid, _, faults) = check(state, &environment);
    assert!(!is_valid && faults[0].contains("agent.json"), "{faults:?}");
}
