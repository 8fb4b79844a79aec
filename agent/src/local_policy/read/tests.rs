//! Every key of the local policy, and everything that is refused in it.

use super::*;
use riposte_protocol::target::{Target, TargetKind};

const ACTIONS: &[&str] = &["firewall-drop", "log-only"];

#[test]
fn an_empty_file_is_the_default_policy() {
    assert_eq!(parse("", ACTIONS), Ok(LocalPolicy::default()));
}

#[test]
fn every_key_is_read() {
    let text = r#"
        allowed_actions = ["firewall-drop", "script:any.sh", { action = "my-script", executable = "a.sh" }]
        denied_actions = ["log-only"]
        observe = true
        max_output_bytes = 100
        timeout_seconds = 7
        script_timeout_seconds = 5
        drift = "report"
        verify_every = "2m"
        scripts_dir = "/opt/scripts"
        quarantine_max_file_bytes = 1000
        quarantine_min_free_bytes = 2000
        responses_log = ""
        [protected]
        addresses = ["10.0.0.0/8", "::ffff:192.0.2.1"]
        users = ["backup"]
        files = ["/etc"]
        processes = ["sshd"]
        exempt = ["/etc/ssh"]
    "#;
    let policy = parse(text, ACTIONS).unwrap();
    let expected = LocalPolicy {
        path: None,
        allowed_actions: Some(vec![
            Allowed::Named("firewall-drop".into()),
            Allowed::Program("any.sh".into()),
            Allowed::Custom { action: "my-script".into(), executable: "a.sh".into() },
        ]),
        denied_actions: vec!["log-only".into()],
        protected: Protected {
            addresses: vec!["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()],
            users: vec!["backup".into()],
            files: vec!["/etc".into()],
            processes: vec!["sshd".into()],
            exempt: vec!["/etc/ssh".into()],
        },
        observe: true,
        max_output_bytes: 100,
        timeout: Duration::from_secs(7),
        script_timeout: Duration::from_secs(5),
        drift: Drift::Report,
        verify_every: Duration::from_mins(2),
        quarantine: Limits { max_file_bytes: 1000, min_free_bytes: 2000 },
        scripts_dir: "/opt/scripts".into(),
        responses_log: None,
    };
    assert_eq!(policy, expected);
    // A key that is in the list but never read would not be noticed by the list alone.
    let named = KEYS.iter().chain(PROTECTED_KEYS).filter(|key| text.contains(**key)).count();
    assert_eq!(named, KEYS.len() + PROTECTED_KEYS.len());
}

#[test]
fn an_unknown_key_is_refused_with_the_probable_one() {
    for (text, reason) in [
        ("observ = true", "there is no key observ; did you mean observe?"),
        ("allow = []", "there is no key allow"),
        ("[protected]\nuser = []", "there is no key protected.user; did you mean protected.users?"),
        ("denied_actions = [\"firewal-drop\"]", "there is no action firewal-drop; did you mean firewall-drop?"),
        ("allowed_actions = [3]", "an entry of allowed_actions is"),
        ("allowed_actions = [{ action = \"x\" }]", "an entry of allowed_actions is"),
        (
            "allowed_actions = [{ action = \"x\", executabel = \"x\" }]",
            "there is no key allowed_actions.executabel; did you mean allowed_actions.executable?",
        ),
        (
            "allowed_actions = [{ action = \"log-only\", executable = \"x\" }]",
            "log-only is an action of the agent's own and runs no program",
        ),
        ("verify_every = \"1s\"", "verify_every must be"),
        ("verify_every = \"5 minutes\"", "verify_every must be"),
        ("timeout_seconds = 0", "timeout_seconds must be from 1 to 240"),
        ("timeout_seconds = 241", "timeout_seconds must be from 1 to 240"),
        ("script_timeout_seconds = 0", "script_timeout_seconds must be from 1 to timeout_seconds, which is 120"),
        ("script_timeout_seconds = 121", "from 1 to timeout_seconds, which is 120"),
        ("timeout_seconds = 9\nscript_timeout_seconds = 10", "from 1 to timeout_seconds, which is 9"),
        ("max_output_bytes = 999999", "max_output_bytes must be at most 16384"),
        ("drift = \"ignore\"", "unknown variant `ignore`"),
        ("scripts_dir = \"bin\"", "bin is not an absolute path"),
        ("[protected]\naddresses = [\"10.0.0\"]", "\"10.0.0\" in protected.addresses is neither"),
        ("observe = ", "expected"),
    ] {
        let error = parse(text, ACTIONS).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn a_custom_program_may_run_a_minute_or_the_configured_time_up_to_a_whole_step() {
    for (text, secs) in [
        ("", 60),
        ("script_timeout_seconds = 120", 120),
        ("timeout_seconds = 240\nscript_timeout_seconds = 240", 240),
        ("timeout_seconds = 30", 30),
        ("script_timeout_seconds = 1", 1),
    ] {
        assert_eq!(parse(text, ACTIONS).unwrap().script_timeout, Duration::from_secs(secs), "{text}");
    }
}

#[test]
fn a_file_that_others_can_write_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    assert_eq!(LocalPolicy::load(None, directory.path(), ACTIONS).unwrap(), LocalPolicy::default());
    assert!(matches!(LocalPolicy::load(Some(&path), directory.path(), ACTIONS), Err(PolicyError::File { .. })));
    std::fs::write(&path, "observe = true").unwrap();
    for (mode, is_used) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false), (0o666, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        match LocalPolicy::load(None, directory.path(), ACTIONS) {
            Ok(policy) => assert!(is_used && policy.observe && policy.path.is_some(), "{mode:o}"),
            Err(error) => assert!(!is_used && error.to_string().contains("chmod go-w"), "{mode:o}: {error}"),
        }
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(directory.path(), Some(41_000), None).unwrap();
    let error = LocalPolicy::load(None, directory.path(), ACTIONS).unwrap_err().to_string();
    assert!(error.contains("chown root"), "{error}");
}

#[test]
fn a_process_whose_program_cannot_be_seen_may_be_a_protected_one() {
    // Tests that kill an account's processes must use another number: they run at the same time.
    let others = ["--reuid", "41900", "--clear-groups", "sleep", "1000"];
    let mut process = std::process::Command::new("setpriv").args(others).spawn().unwrap();
    let target = Target::parse(TargetKind::Process, &process.id().to_string()).unwrap();
    let protects = |policy: &str| {
        let (policy, target) = (parse(policy, ACTIONS).unwrap(), target.clone());
        crate::platform::without(rustix::thread::CapabilitySet::SYS_PTRACE, move || policy.protects(&target))
    };
    let while_unsure = protects("[protected]\nprocesses = [\"postgres\"]");
    let without_entries = protects("");
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(while_unsure.unwrap().contains("may not see"));
    assert_eq!(without_entries, None);
}

#[test]
fn an_allowed_custom_action_is_allowed_only_with_its_program() {
    let text = r#"allowed_actions = ["block", "script:any.sh", { action = "list", executable = "list.sh" }]
        denied_actions = ["script:list.py"]"#;
    let policy = parse(text, ACTIONS).unwrap();
    for (action, executable) in [("block", "block"), ("other", "any.sh"), ("list", "list.sh")] {
        assert_eq!(policy.forbids(action, Some(executable)), None, "{action} {executable}");
        assert_eq!(policy.forbids_program(executable), None, "{executable}");
    }
    for (action, executable, reason) in [
        ("block", "evil.sh", "{ action = \"block\", executable = \"evil.sh\" } in allowed_actions"),
        ("list", "evil.sh", "does not allow list with the program evil.sh"),
        ("list", "list.py", "does not allow script:list.py"),
        ("evil", "list.sh", "does not allow evil"),
    ] {
        let said = policy.forbids(action, Some(executable)).unwrap();
        assert!(said.contains(reason), "{action} {executable}: {said}");
    }
    assert!(policy.forbids_program("evil.sh").unwrap().contains("no custom action with the program evil.sh"));
    assert!(policy.forbids("list", None).is_some(), "an action of the agent's own is another thing");
}

#[test]
fn the_policy_refuses_exactly_what_it_lists() {
    let policy = parse(
        "allowed_actions = [\"firewall-drop\"]\n[protected]\naddresses = [\"10.1.0.0/16\"]\nusers = [\"backup\"]\nfiles = [\"/srv/data\"]",
        ACTIONS,
    )
    .unwrap();
    assert_eq!(policy.forbids("firewall-drop", None), None);
    assert!(policy.forbids("log-only", None).unwrap().contains("does not allow log-only"));
    for (kind, text, is_protected) in [
        (TargetKind::Ip, "10.1.2.3", true),
        (TargetKind::Ip, "10.1.2.0/24", true),
        (TargetKind::Ip, "10.0.0.0/8", true),
        (TargetKind::Ip, "10.2.0.0/16", false),
        (TargetKind::Ip, "2001:db8::1", false),
        (TargetKind::User, "Backup", true),
        (TargetKind::User, "backup2", false),
        (TargetKind::User, "CORP\\backup", true),
        (TargetKind::User, "backup@corp.example", true),
        (TargetKind::User, "CORP\\backup2", false),
        (TargetKind::File, "/srv/data/a/b", true),
        (TargetKind::File, "/srv/data2", false),
    ] {
        let target = Target::named(kind, text).unwrap();
        assert_eq!(policy.protects(&target).is_some(), is_protected, "{target}");
    }
}
