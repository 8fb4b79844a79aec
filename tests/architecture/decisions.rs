//! The decisions in `docs/decisions/`: numbered, complete, and every reference leads to one.

use crate::{root, sources};

#[test]
fn decisions_are_numbered_without_a_gap() {
    let mut names: Vec<String> = std::fs::read_dir(root().join("docs/decisions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.as_bytes()[0].is_ascii_digit())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "docs/decisions holds no decision");
    for (name, expected) in names.iter().zip(1..) {
        let number = name.split('-').next().unwrap();
        assert_eq!(number, format!("{expected:04}"), "{name}");
        let text = std::fs::read_to_string(root().join("docs/decisions").join(name)).unwrap();
        for part in ["Context", "Decision", "Consequences"] {
            assert!(text.contains(part), "{name} has no part called {part}");
        }
    }
    // Every decision that the code refers to exists.
    for folder in ["src", "protocol/src", "agent/src"] {
        for (path, text) in sources(folder) {
            for reference in text.split("docs/decisions/").skip(1) {
                let file: String =
                    reference.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '.')).collect();
                let file = file.trim_end_matches('.');
                assert!(
                    names.iter().any(|name| name == file),
                    "{path} points at docs/decisions/{file}, which is not there"
                );
            }
        }
    }
}
