//! What the API says is defined once, in `src/views/`, and read as those types.

use crate::{code, sources, without_tests};

/// Methods that find a field of a JSON object by its name, as they begin.
const METHODS: [&str; 8] =
    ["get(", "get_mut(", "pointer(", "pointer_mut(", "remove(", "entry(", "contains_key(", "remove_entry("];
/// Names that a field's name has where it is no literal.
const NAMES: [&str; 6] = ["key", "*key", "&key", "field", "*field", "&field"];

/// Files of the command line that find fields by name, for a reason.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "src/cli/policy/import.rs",
    "it lays its changes over whatever JSON a manager sent, field by field and without knowing them",
)];

/// Returns the places in a line that find a field by name: `view["name"]`, `object.get("name")`.
fn by_name(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices('[') {
        // An index stands behind a value; an array behind nothing, a bracket or an operator.
        let is_index = line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ')' | ']' | '?'));
        let rest = &line[at + 1..];
        if is_index && (rest.starts_with('"') || NAMES.iter().any(|name| rest.starts_with(&format!("{name}]")))) {
            found.push(&line[at..]);
        }
    }
    for method in METHODS {
        for (at, _) in line.match_indices(&format!(".{method}")) {
            let rest = &line[at + 1 + method.len()..];
            // A path of the API, not a field.
            let is_path = method == "get(" && rest.starts_with("\"/");
            if (rest.starts_with('"') && !is_path) || NAMES.iter().any(|name| rest.starts_with(&format!("{name})"))) {
                found.push(&line[at..]);
            }
        }
    }
    found
}

#[test]
fn the_command_line_reads_views_and_no_fields_by_name() {
    let mut wrong = Vec::new();
    let mut excepted = Vec::new();
    let mut typed = 0;
    for (path, text) in sources("src/cli") {
        let code = code(without_tests(&text));
        typed += code.matches("use crate::views::").count();
        for (number, line) in (1..).zip(code.lines()) {
            for place in by_name(line) {
                if EXCEPTIONS.iter().any(|(file, _)| *file == path) {
                    excepted.push(path.clone());
                } else {
                    wrong.push(format!("{path}:{number}: {place}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} fields by name; read a type of src/views:\n{}", wrong.len(), wrong.join("\n"));
    assert!(typed > 20, "only {typed} uses of src/views were found: this test no longer finds them");
    for (file, reason) in EXCEPTIONS {
        assert!(excepted.iter().any(|path| path == file), "{file} needs no exception ({reason})");
    }
}

#[test]
fn bodies_are_defined_in_views_and_the_domain_only() {
    let mut places = Vec::new();
    let mut defined = 0;
    for (path, text) in sources("src") {
        let count = code(&text).lines().filter(|line| line.contains("derive(") && line.contains("ToSchema")).count();
        if path.starts_with("src/views/") {
            defined += count;
        } else if count > 0 && !path.starts_with("src/domain/") {
            places.push(path);
        }
    }
    assert!(places.is_empty(), "bodies outside src/views: {places:?}");
    assert!(defined > 40, "only {defined} bodies were found: this test no longer finds them");
}

#[test]
fn this_test_sees_a_field_by_name() {
    for line in [
        r#"view["name"].as_str()"#,
        r#"page(&path).await?["items"].take()"#,
        r#"array()["x"]"#,
        r#"object.get("kind").is_some()"#,
        "agent[key].as_str()",
        "object.get(key)",
        "sample[*key]",
        r#"imported.get_mut("report")"#,
    ] {
        assert_eq!(by_name(line).len(), 1, "{line}");
    }
    for line in [
        r#"["connection reset", "closed before"].iter()"#,
        r#"args(["enroll", "--manager"])"#,
        r#"vec!["a"]"#,
        "rows[index]",
        "names.get(id.as_str())",
        r#"remote.get("/v1/agents").await?"#,
        r#"#[serde(rename = "for")]"#,
        r#"println!("[\"a\"]")"#,
    ] {
        assert_eq!(by_name(line), [""; 0], "{line}");
    }
}
