//! Bounds on how deep a condition is nested. The parser and the evaluation call themselves once for
//! each level, and a stack that overflows ends the whole manager. So brackets are counted before the
//! parser sees the text, it runs on a stack of its own, and a tree that is too deep is not evaluated.

use std::thread;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// Limit of brackets inside one another. People write three or four.
const MAX_BRACKETS: usize = 32;
/// Limit of operators and calls inside one another, such as those of `a + b + c …`: each takes up to
/// 64 KiB of the 2 MiB of a thread that evaluates. `&&` and `||` are balanced by the parser, so a
/// thousand of them are ten levels. Fields of fields (`a.b.c`) take next to nothing, and do not count.
const MAX_LEVELS: usize = 24;
/// Stack of the parser, in bytes. A bracket takes up to 200 KiB, and each of the 1,000 operators that
/// fit into an expression up to 64 KiB. Only what is used takes memory.
const STACK_BYTES: usize = 128 * 1024 * 1024;

/// The offset of the first bracket that is nested too deep, and the fault.
pub(super) fn too_many_brackets(source: &str) -> Option<(usize, String)> {
    let mut open = 0_usize;
    for (offset, byte) in source.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_BRACKETS {
            return Some((offset, format!("has more than {MAX_BRACKETS} brackets inside one another")));
        }
    }
    None
}

/// Runs `read` on a stack that is large enough for any expression with few enough brackets.
///
/// # Errors
/// If the system starts no thread, or what `read` returns.
pub(super) fn on_a_large_stack<T: Send>(read: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let reading = thread::Builder::new().name("condition".into()).stack_size(STACK_BYTES).spawn_scoped(scope, read);
        let reading = reading.map_err(|error| format!("cannot be read now: {error}"))?;
        reading.join().map_err(|_| "cannot be read".to_owned())?
    })
}

/// Why a tree is not evaluated: it is too deep.
pub(super) fn too_deep(tree: &IdedExpr) -> Option<String> {
    let mut open = vec![(tree, 0)];
    while let Some((node, level)) = open.pop() {
        if level > MAX_LEVELS {
            return Some(format!("has more than {MAX_LEVELS} operators or calls inside one another"));
        }
        let next = if matches!(node.expr, Expr::Select(_)) { level } else { level + 1 };
        open.extend(children(&node.expr).into_iter().map(|child| (child, next)));
    }
    None
}

fn children(node: &Expr) -> Vec<&IdedExpr> {
    match node {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| parts(&entry.expr)).collect(),
        Expr::Struct(object) => object.entries.iter().flat_map(|entry| parts(&entry.expr)).collect(),
        Expr::Comprehension(all) => vec![&all.iter_range, &all.accu_init, &all.loop_cond, &all.loop_step, &all.result],
    }
}

fn parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expression, Strictness};
    use super::*;

    fn shapes(depth: usize) -> Vec<String> {
        vec![
            format!("{}true{}", "(".repeat(depth), ")".repeat(depth)),
            format!("{}1{} == []", "[".repeat(depth), "]".repeat(depth)),
            format!("{}1{} == {{}}", "{1:".repeat(depth), "}".repeat(depth)),
            format!("{}'a'{} == 1", "size(".repeat(depth), ")".repeat(depth)),
            format!("1{} > 1", "+1".repeat(depth)),
            format!("1{}", "==1".repeat(depth)),
            format!("data{} == 1", "[1]".repeat(depth)),
        ]
    }

    #[test]
    fn a_condition_may_be_nested_as_deep_as_people_write() {
        for source in shapes(MAX_LEVELS - 2) {
            let read = Expression::parse(&source);
            assert!(
                read.as_ref().err().is_none_or(|fault| !fault.contains("inside one another")),
                "{source}: {read:?}"
            );
        }
        for source in [format!("data{} == 1", ".a".repeat(600)), format!("true{}", " || true".repeat(200))] {
            Expression::parse(&source).unwrap();
        }
    }

    #[test]
    fn a_condition_of_any_depth_overflows_no_stack() {
        for depth in [30, 33, 64, 128, 340, 500, 1000, 2047] {
            let all = shapes(depth)
                .into_iter()
                .chain(["(", "[", "{", "!", "-", "- ", "a?", "a.", "''+"].map(|it| it.repeat(depth)));
            for source in all.filter(|source| source.len() <= super::super::MAX_BYTES) {
                // A worker of the manager has 2 MiB.
                let new = Expression::parse(&source);
                let stored = Expression::read(&source, Strictness::Stored);
                for expression in [new, stored].into_iter().flatten() {
                    // An error counts as "does not hold".
                    let _holds = expression.holds(&super::super::Bindings::sample());
                }
            }
        }
        let fault = Expression::parse(&shapes(300)[0]).unwrap_err();
        assert_eq!(fault, "line 1, column 33: has more than 32 brackets inside one another");
        let fault = Expression::parse(&shapes(300)[4]).unwrap_err();
        assert_eq!(fault, "has more than 24 operators or calls inside one another");
    }

    #[test]
    fn a_deep_condition_that_was_stored_is_read_and_never_holds() {
        for source in [&shapes(300)[0], &shapes(300)[5]] {
            let stored = Expression::read(source, Strictness::Stored).unwrap();
            assert!(stored.why_dead().unwrap().contains("inside one another"), "{stored:?}");
            assert!(!stored.holds(&super::super::Bindings::sample()).unwrap());
        }
    }
}
