//! Bad input gets one sentence that says what to do.

use std::os::unix::fs::PermissionsExt as _;

use crate::wine::{Agent, Manager};

#[tokio::test]
async fn a_state_that_other_accounts_can_change_is_refused_with_the_command_that_mends_it() {
    let manager = Manager::start().await;
    let agent = Agent::new("win-open");
    agent.enrol(&manager).await;
    let state = agent.path("state");
    let mode = |mode| std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(state.metadata().unwrap().permissions().mode() & 0o007, 0, "it is kept to the agent");
    for name in ["key", "journal", "agent.json"] {
        assert_eq!(state.join(name).metadata().unwrap().permissions().mode() & 0o007, 0, "{name} too");
    }
    mode(0o777);
    let (is_started, said) = agent.run(&["run"]);
    assert!(!is_started && said.contains("icacls") && said.contains("/inheritance:r"), "{said}");
    mode(0o770);
    std::fs::set_permissions(state.join("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (is_started, said) = agent.run(&["run"]);
    assert!(!is_started && said.contains("key is exposed") && said.contains("icacls"), "{said}");
}

#[tokio::test]
async fn a_command_of_the_service_from_a_console_says_whom_it_is_for() {
    let agent = Agent::new("win-console");
    let (is_done, said) = agent.run(&["run"]);
    assert!(!is_done && said.contains("this agent is not enrolled"), "{said}");
    let (is_done, said) = agent.run(&["uninstall"]);
    assert!(!is_done && said.contains("the service cannot be removed"), "{said}");
}
