//! No file uses a file that uses it back, directly or through others.

use std::collections::BTreeSet;

use crate::imports::{Modules, Uses};

/// The root file of each crate.
pub(crate) const CRATES: [&str; 5] =
    ["src/lib.rs", "agent/src/lib.rs", "protocol/src/lib.rs", "simulation/src/lib.rs", "chaos/src/main.rs"];

/// Returns the sets of files that use each other.
fn circles(uses: &Uses) -> Vec<BTreeSet<&str>> {
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = vec![from];
        while let Some(file) = open.pop() {
            for (used, _) in uses.get(file).into_iter().flatten() {
                if reached.insert(used.as_str()) {
                    open.push(used);
                }
            }
        }
        reached
    };
    let all: Vec<(&str, BTreeSet<&str>)> = uses.keys().map(|file| (file.as_str(), reached(file))).collect();
    let reaches = |from: &str, to: &str| all.iter().any(|(file, reached)| *file == from && reached.contains(to));
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for (file, reached) in all.iter().filter(|(file, reached)| reached.contains(file)) {
        if !circles.iter().any(|circle| circle.contains(file)) {
            circles.push(reached.iter().copied().filter(|other| reaches(other, file)).collect());
        }
    }
    circles
}

/// Describes a circle by the uses inside it.
fn describe(uses: &Uses, circle: &BTreeSet<&str>) -> String {
    let mut lines = format!("{} files:", circle.len());
    for file in circle {
        for other in circle {
            let names = uses[*file].iter().filter(|(used, _)| used == other).map(|(_, name)| name.as_str());
            let names: Vec<&str> = names.collect();
            if !names.is_empty() {
                lines.push_str(&["\n  ", file, " uses ", other, ": ", &names.join(", ")].concat());
            }
        }
    }
    lines
}

#[test]
fn no_file_uses_itself_through_others() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in CRATES {
        let uses = Modules::read(entry).uses();
        seen += uses.values().map(BTreeSet::len).sum::<usize>();
        for circle in circles(&uses) {
            wrong.push(describe(&uses, &circle));
        }
    }
    assert!(wrong.is_empty(), "{} circles; move what both files use below them:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 2000, "only {seen} uses were found: this test no longer finds them");
}

#[test]
fn this_test_sees_a_circle() {
    let found = |texts: &[(&str, &str)]| {
        let uses = Modules::of(texts).uses();
        circles(&uses).iter().map(|circle| circle.iter().copied().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let root = ("", "pub mod a;\npub mod b;\npub mod c;");
    let b = ("b", "pub struct B;\npub const LIMIT: usize = 1;");
    for a in [
        "use crate::b::B;\npub struct A;",
        "use super::{b::{self, B as Other}};\npub struct A;",
        "pub struct A(crate::b::B);",
        "use crate::b;\npub struct A;\nfn f() -> usize { b::LIMIT }",
        "use crate::b::*;\npub struct A;",
        "use crate::c::B;\npub struct A;",
        "pub use crate::b::B;\npub struct A(B);",
        "#[cfg(test)]\nuse x::Y;\nuse crate::b::B;\npub struct A;",
    ] {
        let c = ("c", "pub use super::b::B;");
        let back = ("b", "use crate::a::A;\npub struct B;\npub const LIMIT: usize = 1;");
        assert_eq!(found(&[root, ("a", a), back, c]), ["a b"], "{a}");
        assert_eq!(found(&[root, ("a", a), b, c]), [""; 0], "{a}");
    }
    let back = ("b", "use crate::a::A;\npub struct B;");
    for a in [
        "pub struct A;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}",
        "pub struct A;\n#[cfg(test)]\nuse crate::b::B;",
        "pub struct A;\n// use crate::b::B;\n/* use crate::b::B; */",
        "pub struct A;\nconst TEXT: &str = \"use crate::b::B;\";\nconst RAW: &str = r#\"\" crate::b::B\"#;",
        "pub struct A;\npub use crate::b::B;",
        "pub struct A;\nuse other::b::B;\nfn f() { my_crate::b::g() }",
        "pub struct A;\nuse crate::b;",
    ] {
        assert_eq!(found(&[root, ("a", a), back]), [""; 0], "{a}");
    }
    // A parent that uses an item of its child, not one that declares and re-exports it.
    let child = ("a::x", "use super::A;\npub struct X;");
    for (parent, expected) in [
        ("mod x;\npub use self::x::X;\npub struct A;", vec![]),
        ("mod x;\npub struct A(x::X);", vec!["a a::x"]),
        ("mod x;\nuse self::x::X;\npub struct A(X);", vec!["a a::x"]),
        ("pub mod x;\npub use crate::b::A;", vec![]),
    ] {
        assert_eq!(found(&[root, ("a", parent), child, ("b", "pub struct A;")]), expected, "{parent}");
    }
    let three = [("a", "use crate::b::B;"), ("b", "use crate::c::C;\nstruct B;"), ("c", "use crate::a::A;\nstruct C;")];
    assert_eq!(found(&[&[root][..], &three].concat()), ["a b c"]);
}
