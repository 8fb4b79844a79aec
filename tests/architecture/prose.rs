//! The subject of a sentence has a name: a client, the writer, an operator. This test finds pronouns
//! for unnamed persons in code, comments, tests and docs.

use crate::{root, texts};

/// Folders whose files are read.
const FOLDERS: [&str; 9] = ["src", "agent", "protocol", "simulation", "chaos", "fuzz", "tests", "benches", "docs"];
/// Files at the root that are read.
const FILES: [&str; 6] =
    ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "config.default.toml"];

/// The pronouns, in halves: this file must not contain what it looks for.
const HALVES: [(&str, &str); 4] = [("who", "ever"), ("some", "body"), ("some", "one"), ("no", "body")];

/// Returns each pronoun in `text` with its line. A word ends at `_`, so names of functions count.
fn pronouns(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.to_lowercase();
        for (first, second) in HALVES {
            let word = format!("{first}{second}");
            for (at, _) in line.match_indices(&word) {
                let before = line[..at].chars().next_back();
                let after = &line[at + word.len()..];
                let is_word = !before.is_some_and(char::is_alphanumeric)
                    && !after.chars().next().is_some_and(char::is_alphanumeric);
                if is_word && !(first == "no" && is_account(before, after)) {
                    found.push((number, word.clone()));
                }
            }
        }
    }
    found
}

/// Returns whether the word between `before` and `after` is the system account of that name: a
/// literal of its own, or the first field of a line of `passwd` or of `user:group`.
fn is_account(before: Option<char>, after: &str) -> bool {
    let quoted = ['"', '\'', '`'].into_iter().any(|quote| before == Some(quote) && after.starts_with(quote));
    let first_field = after.strip_prefix(':').is_some_and(|rest| rest.starts_with(char::is_alphanumeric));
    quoted || first_field
}

#[test]
fn no_text_has_a_subject_without_a_name() {
    let mut files: Vec<(String, String)> =
        FILES.iter().map(|file| ((*file).to_owned(), std::fs::read_to_string(root().join(file)).unwrap())).collect();
    for folder in FOLDERS {
        files.extend(texts(folder, &["rs", "md", "toml", "sh", "py"]));
    }
    assert!(files.len() > 100, "only {} files were found: this test no longer finds them", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| pronouns(text).into_iter().map(move |(line, word)| format!("{path}:{line}: {word}")))
        .collect();
    assert!(found.is_empty(), "{} subjects without a name; name the thing:\n{}", found.len(), found.join("\n"));
}

#[test]
fn this_test_sees_a_subject_without_a_name() {
    let [asker, body, person, account] = HALVES.map(|(first, second)| format!("{first}{second}"));
    for text in [
        format!("// {asker} asks"),
        format!("Told {}: wait", body.to_uppercase()),
        format!("async fn promise_10_{account}_speaks() {{"),
        format!("{person}'s key"),
        format!("there is {account}: retry"),
        format!("\"{account} asked\""),
        format!("`{asker}`"),
    ] {
        assert_eq!(pronouns(&text).len(), 1, "{text}");
    }
    for text in [
        format!("args([flag, \"{account}\"])"),
        format!("an account called `{account}`"),
        format!("chown {account}:nogroup"),
        format!("'{account}'"),
        format!("{account}y"),
        "a client".to_owned(),
    ] {
        assert_eq!(pronouns(&text), [], "{text}");
    }
    assert_eq!(pronouns(&format!("a\n{asker} and {asker}")).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 2]);
}
