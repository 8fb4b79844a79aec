//! The docs name only paths that exist: in code spans that begin with a folder of the repository,
//! and in relative links. Fenced blocks are examples, and are not read.

use std::path::Path;

use crate::{root, texts};

/// Paths that the docs may name although they do not exist, each with its reason.
const EXCEPTIONS: &[(&str, &str)] =
    &[("policies/block-ssh.yaml", "a file of the reader's own, in the folder that readers are told to make")];

/// A path that a document names: its line and its text.
type Named = (usize, String);

/// Returns the paths in code spans and links of a Markdown text.
fn named(text: &str, folders: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
            continue;
        }
        if is_fenced {
            continue;
        }
        // Every second part between backticks is code.
        for span in line.split('`').skip(1).step_by(2) {
            for word in span.split_whitespace() {
                let word = word.trim_start_matches("./");
                let word = word.split_once("::").map_or(word, |(file, _)| file);
                let word = word.split_once('#').map_or(word, |(file, _)| file);
                let word = word.trim_end_matches([',', '.', ';', ')', ':']);
                if word.split_once('/').is_some_and(|(first, _)| folders.iter().any(|folder| folder == first)) {
                    found.push((number, word.to_owned()));
                }
            }
        }
        for link in line.split("](").skip(1) {
            let target = link.split([')', ' ', '#']).next().unwrap_or_default();
            let is_relative = !target.is_empty() && !target.starts_with('/') && !target.contains(':');
            if is_relative {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// Returns the paths that a pattern with one group of braces stands for.
fn alternatives(path: &str) -> Vec<String> {
    let group = path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match group {
        Some((before, (group, after))) => group.split(',').map(|part| format!("{before}{part}{after}")).collect(),
        None => vec![path.to_owned()],
    }
}

/// Returns whether a path exists. Of a pattern (`*`, `<name>`, `NOUN`) the folders before it count.
fn exists(base: &Path, path: &str) -> bool {
    let is_pattern = |part: &str| {
        let is_placeholder = ["NNNN", "NAME", "NOUN"].iter().any(|name| part.starts_with(name));
        part.contains(['*', '<', '…', '$']) || is_placeholder || part == "..."
    };
    let mut place = base.to_owned();
    for part in path.split('/').take_while(|part| !is_pattern(part)) {
        place.push(part);
    }
    // `src/main.rs:12` names a line.
    place.exists() || place.to_str().unwrap().rsplit_once(':').is_some_and(|(file, _)| Path::new(file).exists())
}

/// Returns the folders at the root of the repository; a path begins with one of them.
fn folders() -> Vec<String> {
    let entries = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap());
    folders.filter(|name| name != "target" && name != ".git").collect()
}

#[test]
fn docs_name_only_paths_that_exist() {
    let folders = folders();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (file, text) in texts(".", &["md"]) {
        let beside = root().join(&file).parent().unwrap().to_owned();
        for (line, path) in named(&text, &folders) {
            seen += 1;
            let is_there = |path: &String| exists(root(), path) || exists(&beside, path);
            let is_excepted = EXCEPTIONS.iter().any(|(excepted, _)| *excepted == path);
            if !is_excepted && !alternatives(&path).iter().all(is_there) {
                wrong.push(format!("{file}:{line}: {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "the docs name paths that do not exist:\n{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} paths were found: this test no longer finds them");
    for (path, reason) in EXCEPTIONS {
        assert!(!exists(root(), path), "{path} exists: it needs no exception ({reason})");
    }
}

#[test]
fn this_test_sees_a_path_that_does_not_exist() {
    let folders = ["src".to_owned(), "docs".to_owned(), "tests".to_owned()];
    let text = "See `src/a.rs`, `tests/it/x.rs::a_test`, `ls docs/x.md#part.` and `/v1/src/a`.\n\
        ```sh\ncat `src/example.rs`\n```\n[link](docs/gone.md#part), [page](https://example.com/src), [here](#there)\n\
        `src/{a,b}.rs` `other/x.rs`";
    let found = named(text, &folders);
    let expected = [(1, "src/a.rs"), (1, "tests/it/x.rs"), (1, "docs/x.md"), (5, "docs/gone.md"), (6, "src/{a,b}.rs")];
    assert_eq!(found.iter().map(|(line, path)| (*line, path.as_str())).collect::<Vec<_>>(), expected);
    assert_eq!(alternatives("src/{a,b}.rs"), ["src/a.rs", "src/b.rs"]);
    for path in ["src/main.rs", "src/main.rs:1", "docs/decisions/NNNN-title.md", "src/*.rs", "src/store/NOUN.rs"] {
        assert!(exists(root(), path), "{path}");
    }
    for path in ["src/gone.rs", "gone/*.rs", "src/gone.rs:1", "src/gone/NOUN.rs"] {
        assert!(!exists(root(), path), "{path}");
    }
}
