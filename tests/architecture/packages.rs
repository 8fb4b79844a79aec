//! The dependencies of the packages: agent and manager share the protocol, and nothing else.

use crate::root;

/// The names of a package's dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(manifest)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut names = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        names.extend(
            table.get(section).and_then(toml::Value::as_table).into_iter().flatten().map(|(name, _)| name.clone()),
        );
    }
    for target in table.get("target").and_then(toml::Value::as_table).into_iter().flatten().map(|(_, target)| target) {
        names.extend(
            target
                .get("dependencies")
                .and_then(toml::Value::as_table)
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone()),
        );
    }
    names
}

#[test]
fn agent_and_manager_know_only_the_protocol_of_each_other() {
    let agent = dependencies("agent/Cargo.toml");
    assert!(agent.contains(&"riposte-protocol".to_owned()));
    assert!(!agent.contains(&"riposte".to_owned()), "the agent depends on the manager");
    // Another trust level: no web server and no database in a program that runs as root on every
    // host.
    for heavy in ["axum", "sqlx", "rusqlite", "tower-http"] {
        assert!(!agent.contains(&heavy.to_owned()), "the agent depends on {heavy}");
    }
    let manager = dependencies("Cargo.toml");
    assert!(manager.contains(&"riposte-protocol".to_owned()) && !manager.contains(&"riposte-agent".to_owned()));
    let protocol = dependencies("protocol/Cargo.toml");
    assert!(!protocol.contains(&"riposte".to_owned()) && !protocol.contains(&"riposte-agent".to_owned()));
    // The protocol is a function of its arguments.
    for io in ["tokio", "reqwest", "axum", "sqlx"] {
        assert!(!protocol.contains(&io.to_owned()), "the protocol depends on {io}");
    }
}
