//! `when`: a condition in CEL over one alert. CEL has no loops but its macros and no I/O; what it lacks is a limit on
//! steps, so an expression is checked when it is saved: its length, no macro inside a macro, and only names that exist.
//! Whatever goes wrong when it runs means "does not hold", never a crash.
//!
//! Names: `source.ip`, `source.user`, `destination.ip`, `destination.user`, `file.path`, and the alert's own fields
//! (`data.url`, `rule.level`, `agent.name` …); everything is also under `alert`.

mod facts;
mod patterns;
mod reads;
#[cfg(test)]
mod whole;

use std::sync::Arc;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr};
use cel::{ExecutionError, Program, Value};

use super::action::nearest;
pub use facts::Facts;
use facts::Numbers;
pub use reads::{EVERYTHING, Reads};

/// The longest expression, in bytes.
const MAX_BYTES: usize = 2048;
/// The longest list that an expression gets to see: with one level of macros, the most steps per macro.
const MAX_LIST: usize = 256;
/// The top-level names of an alert that an expression may use; anything else is under `alert`.
const NAMES: [&str; 16] = [
    "agent",
    "alert",
    "cluster",
    "data",
    "decoder",
    "destination",
    "file",
    "full_log",
    "location",
    "manager",
    "pipeline",
    "predecoder",
    "process",
    "rule",
    "source",
    "syscheck",
];

/// An expression that can be run.
#[derive(Clone)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
    reads: Reads,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl serde::Serialize for Expression {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

impl Expression {
    /// Reads an expression and checks it.
    ///
    /// # Errors
    /// What is wrong, with line and column where it is a matter of writing.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        let program = Program::compile(source).map_err(|faults| {
            let first = faults.errors.first();
            let (line, column) = first.map_or((1, 1), |fault| fault.pos);
            let message = first.map_or("it cannot be read", |fault| fault.msg.as_str());
            format!("line {line}, column {column}: {message}")
        })?;
        check(program.expression(), &mut Vec::new(), false)?;
        let reads = Reads::of(program.expression());
        let expression = Self { source: source.to_owned(), program: Arc::new(program), reads };
        expression.try_on_samples()?;
        Ok(expression)
    }

    /// Unknown functions, and operators between types that never fit, show only when an expression runs.
    fn try_on_samples(&self) -> Result<(), String> {
        let outcome = self.program.execute(&Facts::sample().seen(Numbers::AsWritten).context());
        match outcome {
            Err(ExecutionError::UndeclaredReference(name)) => Err(format!("there is no {name}")),
            Ok(Value::Bool(_)) | Err(_) => Ok(()),
            Ok(other) => Err(format!("must say true or false; it says {}", other.type_of())),
        }
    }

    /// What it reads of an alert.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Whether it holds for the alert behind `facts`, which must have what it [`reads`](Self::reads).
    pub fn holds(&self, facts: &Facts) -> bool {
        match self.program.execute(&facts.seen(Numbers::AsWritten).context()) {
            Ok(value) => value == Value::Bool(true),
            // Wazuh writes every number in `data` as a text: where a number is needed, the text of one will do.
            Err(
                ExecutionError::NoSuchOverload(_)
                | ExecutionError::ValuesNotComparable(..)
                | ExecutionError::UnsupportedBinaryOperator(..),
            ) => {
                let again = self.program.execute(&facts.seen(Numbers::FromText).context());
                again.is_ok_and(|value| value == Value::Bool(true))
            }
            Err(_) => false,
        }
    }
}

/// Walks an expression: refuses names that are not known and macros inside macros (their cost multiplies).
fn check(node: &IdedExpr, bound: &mut Vec<String>, in_macro: bool) -> Result<(), String> {
    match &node.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) => {
            let known = NAMES.contains(&name.as_str()) || bound.contains(name);
            if known || is_type(name) { Ok(()) } else { Err(unknown(name)) }
        }
        Expr::Select(select) => check(&select.operand, bound, in_macro),
        Expr::Call(call) => {
            if let Some(target) = &call.target {
                check(target, bound, in_macro)?;
            }
            patterns::check(call)?;
            call.args.iter().try_for_each(|arg| check(arg, bound, in_macro))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| check(element, bound, in_macro)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| check_entry(&entry.expr, bound, in_macro)),
        Expr::Struct(object) => object.entries.iter().try_for_each(|entry| check_entry(&entry.expr, bound, in_macro)),
        Expr::Comprehension(_) if in_macro => {
            Err("has a macro (all, exists, map, filter …) inside another one, which could run for very long".into())
        }
        Expr::Comprehension(comprehension) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = &**comprehension;
            check(iter_range, bound, true)?;
            check(accu_init, bound, true)?;
            let before = bound.len();
            bound.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
            bound.extend(comprehension.iter_var2.clone());
            let checked = [loop_cond, loop_step, result].into_iter().try_for_each(|part| check(part, bound, true));
            bound.truncate(before);
            checked
        }
    }
}

fn check_entry(entry: &EntryExpr, bound: &mut Vec<String>, in_macro: bool) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => check(&field.value, bound, in_macro),
        EntryExpr::MapEntry(entry) => {
            check(&entry.key, bound, in_macro)?;
            check(&entry.value, bound, in_macro)
        }
    }
}

/// Type names, which CEL lets stand where a value can.
fn is_type(name: &str) -> bool {
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint", "type"].contains(&name)
}

fn unknown(name: &str) -> String {
    match nearest(name, NAMES) {
        Some(meant) => format!("there is no {name}; did you mean {meant}?"),
        None => format!("there is no {name}; fields of other shapes are under alert, as in alert.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::shapes;

    fn holds(source: &str) -> bool {
        let raw = r#"{"timestamp":"2026-11-20T10:11:12Z","id":"1","agent":{"id":"005","name":"web-01"},
            "rule":{"id":"5763","level":10,"groups":["sshd","authentication_failures"]},
            "data":{"srcip":"203.0.113.45","srcport":"40118","dstuser":"admin"},"location":"/var/log/auth.log","odd":{"x":3}}"#;
        let alert = shapes::parse(raw, &shapes::Sources::default()).unwrap();
        let expression = Expression::parse(source).unwrap();
        expression.holds(&Facts::new(&alert, raw, expression.reads()))
    }

    #[test]
    fn conditions_read_the_alert_and_what_was_normalised() {
        for source in [
            r#"data.srcport > 1024 && !source.ip.startsWith("10.")"#,
            "rule.level >= 10 && rule.level + 1 == 11",
            r#"destination.user == "admin" && location.endsWith("auth.log")"#,
            r#"rule.groups.exists(group, group == "sshd")"#,
            "has(data.srcip) && !has(data.url)",
            r#"alert.odd.x == 3 && agent.name in ["web-01", "web-02"]"#,
            r#"source.ip.matches("^203\\.0\\.113\\.[0-9]+$")"#,
            r#"matches(source.ip, "113[.]45$") && !agent.name.matches("^db-")"#,
            r#"data.srcport == "40118""#,
        ] {
            assert!(holds(source), "{source}");
        }
    }

    #[test]
    fn what_goes_wrong_means_no() {
        for source in [
            r#"data.url.contains("x")"#,
            r#"source.user == "x""#,
            "data.dstuser > 3",
            "1 / 0 == 1",
            "data.list.exists(x, x == 1)",
        ] {
            assert!(!holds(source), "{source}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_when_it_is_saved() {
        let refused = |source: &str| Expression::parse(source).unwrap_err();
        assert!(refused("rule.level >").starts_with("line 1, column"), "{}", refused("rule.level >"));
        assert_eq!(refused("dat.url == 'x'"), "there is no dat; did you mean data?");
        assert_eq!(
            refused("threat.score > 3"),
            "there is no threat; fields of other shapes are under alert, as in alert.threat"
        );
        assert!(refused("1 + 1").contains("true or false"));
        assert!(refused("nosuch(rule.level)").contains("nosuch"));
        assert_eq!(refused(r#"data.url.matches("(admin")"#), r#"matches: the pattern "(admin": unclosed group"#);
        assert!(refused(r#"matches(data.url, "\\w{1000}{100}")"#).contains("bytes"));
        for pattern_of_the_alert in ["data.url.matches(data.pattern)", ".matches(data.url, data.pattern)"] {
            assert!(refused(pattern_of_the_alert).contains("written out"), "{pattern_of_the_alert}");
        }
        let nested = "rule.groups.all(a, rule.groups.all(b, rule.groups.all(c, a == b && b == c)))";
        assert!(refused(nested).contains("inside another"));
        assert!(refused(&"true && ".repeat(400)).contains("2048"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_crash(source in "\\PC{0,80}") {
            if let Ok(expression) = Expression::parse(&source) {
                let _ = expression.holds(&Facts::sample());
            }
        }
    }
}
