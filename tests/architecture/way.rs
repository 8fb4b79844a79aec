//! The way of an alert in ARCHITECTURE.md is the one that the code takes: each function stands in its
//! file, and is called in the file that the page names.

use crate::{code, root, without_tests};

struct Step {
    function: String,
    file: String,
    caller: String,
}

/// Returns the rows of the table whose head is `| function | file | called in | does |`.
fn steps(page: &str) -> Vec<Step> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| function | file | called in |")).skip(2);
    let cells = |row: &str| -> Option<Step> {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).skip(1);
        Some(Step { function: cells.next()?, file: cells.next()?, caller: cells.next()? })
    };
    rows.take_while(|line| line.starts_with('|')).filter_map(cells).collect()
}

/// Why a step is not what the code does, if so. `read` returns the code of a file.
fn fault(step: &Step, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let Step { function, file, caller } = step;
    let (Some(own), Some(calling)) = (read(file), read(caller)) else {
        return Some(format!("{file} or {caller} does not exist"));
    };
    let is_defined = own.contains(&format!("fn {function}(")) || own.contains(&format!("fn {function}<"));
    let is_called = calling.match_indices(&format!("{function}(")).any(|(at, _)| {
        let before = &calling[..at];
        !before.ends_with("fn ") && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    });
    if !is_defined {
        Some(format!("{file} has no function {function}"))
    } else if !is_called {
        Some(format!("{caller} does not call {function} of {file}"))
    } else {
        None
    }
}

#[test]
fn the_way_of_an_alert_is_the_one_that_the_code_takes() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let steps = steps(&page);
    assert!(steps.len() > 10, "only {} steps were found", steps.len());
    let read = |path: &str| {
        let text = std::fs::read_to_string(root().join(path)).ok()?;
        Some(code(without_tests(&text)))
    };
    let faults: Vec<String> = steps.iter().filter_map(|step| fault(step, read)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn this_test_sees_a_step_that_is_not_taken() {
    let step = |function: &str, file: &str, caller: &str| Step {
        function: function.to_owned(),
        file: file.to_owned(),
        caller: caller.to_owned(),
    };
    let read = |path: &str| match path {
        "a.rs" => Some("pub fn go() {}".to_owned()),
        "b.rs" => Some("fn f() { a::go(); cargo(1); }".to_owned()),
        _ => None,
    };
    assert_eq!(fault(&step("go", "a.rs", "b.rs"), read), None);
    assert!(fault(&step("go", "a.rs", "a.rs"), read).unwrap().contains("does not call"));
    assert!(fault(&step("stop", "a.rs", "b.rs"), read).unwrap().contains("has no function"));
    assert!(fault(&step("go", "c.rs", "b.rs"), read).unwrap().contains("does not exist"));
}
