//! `when`: a CEL condition on one alert. CEL has no loops except macros, and no I/O, but no step
//! limit either. So an expression is checked on save: its length, how deep it is nested
//! (`nesting.rs`), no nested macros, only known names. Every evaluation error means "does not hold".
//!
//! `functions.rs` checks calls; `mistakes.rs` explains common mistakes.
//!
//! Names: `source.ip`, `source.user`, `destination.ip`, `destination.user`, `file.path`, and the
//! alert's own fields (`data.url`, `rule.level`, `agent.name` …). Everything is also available
//! under `alert`.

mod bindings;
mod field_refs;
mod functions;
mod mistakes;
mod nesting;
mod patterns;
#[cfg(test)]
mod reference_tests;

use std::fmt::{self, Write as _};
use std::sync::Arc;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr};
use cel::{ExecutionError, Program, Value};
use riposte_protocol::words::nearest;

pub use bindings::Bindings;
use bindings::{NAMES, Numbers};
pub use field_refs::{EVERYTHING, FieldRefs};

/// Maximum length of an expression, in bytes.
const MAX_BYTES: usize = 2048;
/// Maximum length of a failure's text, in characters.
const MAX_FAILURE_CHARS: usize = 300;

/// A compiled expression.
#[derive(Clone)]
pub struct Expression {
    source: String,
    program: Arc<Program>,
    field_refs: FieldRefs,
    dead: Option<String>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// How strictly an expression is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// A new expression: a condition that can never hold is a fault.
    New,
    /// A stored expression of an earlier version without these checks: such a condition never
    /// holds, and is not a fault.
    Stored,
}

/// An evaluation error; the condition does not hold.
#[derive(Clone, Debug)]
pub struct Failure(ExecutionError);

impl Failure {
    /// Whether a field is missing, which is normal. Every other error is a fault of the expression
    /// or the alert.
    pub fn is_missing_field(&self) -> bool {
        matches!(self.0, ExecutionError::NoSuchKey(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.0 {
            ExecutionError::NoSuchKey(name) => format!("there is no field {name}"),
            ExecutionError::NoSuchOverload(error) => {
                let types = error.argument_types().join(" and ");
                format!("{} does not take {types}", operator(error.function()))
            }
            ExecutionError::ValuesNotComparable(one, other) => {
                format!("{} and {} cannot be compared", one.type_of(), other.type_of())
            }
            ExecutionError::UnsupportedBinaryOperator(sign, one, other) => {
                format!("{} does not take {} and {}", operator(sign), one.type_of(), other.type_of())
            }
            ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
            other => other.to_string(),
        };
        // The message may contain text of the alert.
        for letter in text.chars().take(MAX_FAILURE_CHARS) {
            if letter.is_control() { write!(f, "{}", letter.escape_debug())? } else { f.write_char(letter)? }
        }
        Ok(())
    }
}

/// `_>_` is `>`.
fn operator(function: &str) -> &str {
    let sign = function.trim_matches('_').trim_start_matches('@');
    if sign.is_empty() { function } else { sign }
}

impl Expression {
    /// Compiles and checks a new expression.
    ///
    /// # Errors
    /// The fault, with line and column.
    pub fn parse(source: &str) -> Result<Self, String> {
        Self::read(source, Strictness::New)
    }

    /// Compiles an expression with the given strictness.
    ///
    /// # Errors
    /// The fault, with line and column.
    pub fn read(source: &str, strictness: Strictness) -> Result<Self, String> {
        if source.len() > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        if let Some((offset, fault)) = nesting::too_many_brackets(source) {
            return Self::too_deep(source, strictness, at(source, offset, &fault));
        }
        nesting::on_a_large_stack(|| Self::read_here(source, strictness))
    }

    /// Reads an expression on this thread's stack.
    fn read_here(source: &str, strictness: Strictness) -> Result<Self, String> {
        let program = Program::compile(source).map_err(|faults| {
            if let Some(mistake) = mistakes::find(source) {
                return at(source, mistake.offset, &mistake.advice);
            }
            let first = faults.errors.first();
            let (line, column) = first.map_or((1, 1), |fault| fault.pos);
            let message = first.map_or("it cannot be read", |fault| fault.msg.as_str());
            format!("line {line}, column {column}: {message}")
        })?;
        if let Some(fault) = nesting::too_deep(program.expression()) {
            return Self::too_deep(source, strictness, fault);
        }
        let mut checker = Checker { source, program: &program, strictness, bound: Vec::new(), dead: None };
        checker.check(program.expression(), false)?;
        let dead = checker.dead;
        let field_refs = FieldRefs::of(program.expression());
        let expression = Self { source: source.to_owned(), program: Arc::new(program), field_refs, dead };
        expression.try_on_samples(strictness)?;
        Ok(expression)
    }

    /// A new expression that is too deep to be evaluated is refused; a stored one never holds.
    fn too_deep(source: &str, strictness: Strictness, fault: String) -> Result<Self, String> {
        match strictness {
            Strictness::New => Err(fault),
            Strictness::Stored => {
                let never = Program::compile("false").map_err(|_| fault.clone())?;
                let field_refs = FieldRefs::of(never.expression());
                Ok(Self { source: source.to_owned(), program: Arc::new(never), field_refs, dead: Some(fault) })
            }
        }
    }

    /// Evaluates samples: operators on incompatible types fail only at evaluation.
    fn try_on_samples(&self, strictness: Strictness) -> Result<(), String> {
        let outcome = self.program.execute(&Bindings::sample().seen(Numbers::AsWritten).context());
        match outcome {
            Err(ExecutionError::UndeclaredReference(name)) if strictness == Strictness::New => {
                Err(format!("there is no {name}"))
            }
            Ok(Value::Bool(_)) | Err(_) => Ok(()),
            Ok(other) => Err(format!("must say true or false; it says {}", other.type_of())),
        }
    }

    /// Why a stored expression can never hold, if so.
    pub fn why_dead(&self) -> Option<&str> {
        self.dead.as_deref()
    }

    /// The fields that it reads.
    pub fn field_refs(&self) -> &FieldRefs {
        &self.field_refs
    }

    /// Evaluates the condition; `bindings` must contain its [`field_refs`](Self::field_refs).
    ///
    /// # Errors
    /// If the evaluation fails; then the condition does not hold.
    pub fn holds(&self, bindings: &Bindings) -> Result<bool, Failure> {
        let first = match self.program.execute(&bindings.seen(Numbers::AsWritten).context()) {
            Ok(value) => return Ok(value == Value::Bool(true)),
            Err(failure) => failure,
        };
        // Wazuh writes every number in `data` as a string, so numeric strings are accepted as
        // numbers.
        if let ExecutionError::NoSuchOverload(_)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..) = first
            && let Ok(value) = self.program.execute(&bindings.seen(Numbers::FromText).context())
        {
            return Ok(value == Value::Bool(true));
        }
        Err(Failure(first))
    }
}

/// A fault with its position.
fn at(source: &str, offset: usize, fault: &str) -> String {
    let (line, column) = mistakes::place(source, offset);
    format!("line {line}, column {column}: {fault}")
}

/// Refuses unknown names and functions, and nested macros, whose costs multiply.
struct Checker<'a> {
    source: &'a str,
    program: &'a Program,
    strictness: Strictness,
    bound: Vec<String>,
    /// The first fault that is tolerated in a stored expression.
    dead: Option<String>,
}

impl Checker<'_> {
    /// A fault with its position, at `word` or before it if the node's position is that of a
    /// bracket.
    fn fault(&self, node: &IdedExpr, word: &str, fault: &str) -> String {
        let offset = self.program.source_info().offset_for(node.id).map_or(0, |(start, _)| start as usize);
        // The parser counts characters, not bytes.
        let offset = self.source.char_indices().nth(offset).map_or(self.source.len(), |(byte, _)| byte);
        let until = self.source.len().min(offset + word.len());
        let until = self.source.floor_char_boundary(until);
        let offset = if word.is_empty() { None } else { self.source[..until].rfind(word) }.unwrap_or(offset);
        at(self.source, offset, fault)
    }

    fn check(&mut self, node: &IdedExpr, in_macro: bool) -> Result<(), String> {
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                let known = NAMES.contains(&name.as_str()) || self.bound.contains(name);
                if known || is_type(name) { Ok(()) } else { Err(self.fault(node, name, &unknown(name))) }
            }
            Expr::Select(select) => self.check(&select.operand, in_macro),
            Expr::Call(call) => {
                if let Some(target) = &call.target {
                    self.check(target, in_macro)?;
                }
                if let Err(fault) = functions::check(call) {
                    let fault = self.fault(node, call.func_name.trim_start_matches('.'), &fault);
                    if self.strictness == Strictness::New {
                        return Err(fault);
                    }
                    self.dead.get_or_insert(fault);
                    patterns::check(call)?;
                }
                call.args.iter().try_for_each(|arg| self.check(arg, in_macro))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element, in_macro)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.check_entry(&entry.expr, in_macro)),
            Expr::Struct(object) => object.entries.iter().try_for_each(|entry| self.check_entry(&entry.expr, in_macro)),
            Expr::Comprehension(_) if in_macro => {
                let fault =
                    "has a macro (all, exists, map, filter …) inside another one, which could run for very long";
                Err(self.fault(node, "", fault))
            }
            Expr::Comprehension(comprehension) => {
                let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = &**comprehension;
                self.check(iter_range, true)?;
                self.check(accu_init, true)?;
                let before = self.bound.len();
                self.bound.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
                self.bound.extend(comprehension.iter_var2.clone());
                let checked = [loop_cond, loop_step, result].into_iter().try_for_each(|part| self.check(part, true));
                self.bound.truncate(before);
                checked
            }
        }
    }

    fn check_entry(&mut self, entry: &EntryExpr, in_macro: bool) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.check(&field.value, in_macro),
            EntryExpr::MapEntry(entry) => {
                self.check(&entry.key, in_macro)?;
                self.check(&entry.value, in_macro)
            }
        }
    }
}

/// Type names, which CEL accepts as values.
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
    use crate::domain::formats;

    fn holds(source: &str) -> bool {
        let raw = r#"{"timestamp":"2026-11-20T10:11:12Z","id":"1","agent":{"id":"005","name":"web-01"},
            "rule":{"id":"5763","level":10,"groups":["sshd","authentication_failures"]},
            "data":{"srcip":"203.0.113.45","srcport":"40118","dstuser":"admin"},"location":"/var/log/auth.log","odd":{"x":3}}"#;
        said(source, raw).unwrap_or(false)
    }

    fn said(source: &str, raw: &str) -> Result<bool, Failure> {
        let alert = formats::parse(raw, &formats::AlertMappings::default(), None).unwrap();
        let received = alert.time.plus(std::time::Duration::from_secs(90));
        let alert = alert.received(received);
        let expression = Expression::parse(source).unwrap_or_else(|why| panic!("{source}: {why}"));
        expression.holds(&Bindings::new(&alert, raw, expression.field_refs()))
    }

    #[test]
    fn conditions_read_raw_and_normalised_fields() {
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
            r#"source.ip.in_cidr("203.0.113.0/24") && !source.ip.in_cidr("10.0.0.0/8")"#,
            r#"source.ip.in_cidr(["10.0.0.0/8", "2001:db8::/32", "203.0.113.45"])"#,
            "!source.ip.in_cidr([])",
            r#"time == "2026-11-20T10:11:12.000Z" && age == 90 && age < seconds("2m")"#,
            r#"time.hour() == 10 && time.hour("Europe/Berlin") == 11 && time.hour("-03:30") == 6"#,
            r#"time.weekday() == 5 && time.weekday("+14:00") == 6"#,
            r#"agent.name.upper() == "WEB-01" && data.dstuser.lower() == "admin""#,
            r#"data.dstuser.equals_ignore_case("ADMIN") && location.contains_ignore_case("/AUTH")"#,
            r#"!data.dstuser.equals_ignore_case("adm")"#,
        ] {
            assert!(holds(source), "{source}");
        }
    }

    #[test]
    fn an_evaluation_error_means_no_match() {
        for source in [
            r#"data.url.contains("x")"#,
            r#"source.user == "x""#,
            "data.dstuser > 3",
            "1 / 0 == 1",
            "data.list.exists(x, x == 1)",
            r#"!location.in_cidr("10.0.0.0/8")"#,
            "location.hour() > 3",
        ] {
            assert!(!holds(source), "{source}");
        }
    }

    #[test]
    fn an_invalid_expression_is_refused_on_save() {
        let refused = |source: &str| Expression::parse(source).unwrap_err();
        assert!(refused("rule.level >").starts_with("line 1, column"), "{}", refused("rule.level >"));
        assert_eq!(refused("dat.url == 'x'"), "line 1, column 1: there is no dat; did you mean data?");
        assert_eq!(
            refused("threat.score > 3"),
            "line 1, column 1: there is no threat; fields of other shapes are under alert, as in alert.threat"
        );
        assert!(refused("1 + 1").contains("true or false"));
        assert!(refused("nosuch(rule.level)").contains("nosuch"));
        assert_eq!(
            refused(r#"data.url.matches("(admin")"#),
            r#"line 1, column 10: matches: the pattern "(admin": unclosed group"#
        );
        assert!(refused(r#"matches(data.url, "\\w{1000}{100}")"#).contains("bytes"));
        for pattern_of_the_alert in ["data.url.matches(data.pattern)", ".matches(data.url, data.pattern)"] {
            assert!(refused(pattern_of_the_alert).contains("written out"), "{pattern_of_the_alert}");
        }
        let nested = "rule.groups.all(a, rule.groups.all(b, rule.groups.all(c, a == b && b == c)))";
        assert!(refused(nested).contains("inside another"));
        assert!(refused(&"true && ".repeat(400)).contains("2048"));
    }

    /// Earlier versions accepted these, and they never held.
    #[test]
    fn a_call_that_can_never_work_is_refused_with_its_place_and_a_suggestion() {
        for (source, fault) in [
            ("data.url.startWith('x')", "column 10: there is no function startWith; did you mean startsWith?"),
            (
                "has(data.url) && data.url.Contains('x')",
                "column 27: there is no function Contains; did you mean contains?",
            ),
            ("data.url.toLowerCase() == 'x'", "column 10: there is no function toLowerCase; did you mean lower?"),
            ("data.url.contans('x')", "column 10: there is no function contans; did you mean contains?"),
            ("rule.level > 3 && lenght(data.url) > 3", "column 19: there is no function lenght; did you mean"),
            ("false && nosuch(data.url)", "column 10: there is no function nosuch"),
            ("data.url.contains('x', 'y')", "column 10: x.contains(…) takes 1 argument, and has 2"),
            ("data.url.contains()", "column 10: x.contains(…) takes 1 argument, and has 0"),
            ("contains(data.url, 'x')", "column 1: contains(…) is no way to call contains: write x.contains(…)"),
            ("data.port.int() > 3", "column 11: x.int(…) is no way to call int: write int(x)"),
            ("time.hour('Mars/Base') > 3", "column 6: \"Mars/Base\" is not a time zone"),
            ("time.hour('+99:00') > 3", "column 6: \"+99:00\" is not a time zone"),
            ("time.hour(1) > 3", "column 6: needs a time zone as a text"),
            ("source.ip.in_cidr('10.0.0.1/8')", "column 11: \"10.0.0.1/8\" is not a network: host bits are set"),
            ("source.ip.in_cidr(['10.0.0.0/8', 'x'])", "column 11: \"x\" is not an address or a network"),
            ("age > seconds('1 hour')", "column 7: \"1 hour\" is not a duration"),
            ("data.list.exists(x)", "column 11: x.exists(…) takes 2 arguments, and has 1"),
            ("data.a = 3", "line 1, column 8: use == to compare"),
            ("rule.level > 3\n  and data.a == 3", "line 2, column 3: use &&"),
            ("'é' == 'é' && rul.level > 3", "line 1, column 15: there is no rul; did you mean rule?"),
        ] {
            let refused = Expression::parse(source).unwrap_err();
            assert!(refused.contains(fault), "{source}: {refused}");
        }
    }

    #[test]
    fn expressions_of_earlier_versions_load_and_never_hold() {
        for source in ["data.url.startWith('x')", "false || nosuch(data.url)"] {
            let expression = Expression::read(source, Strictness::Stored).unwrap();
            assert!(expression.holds(&Bindings::sample()).is_err(), "{source}");
        }
        assert!(Expression::read("data.a = 3", Strictness::Stored).is_err());
    }

    #[test]
    fn a_failed_condition_has_a_reason() {
        let raw = r#"{"timestamp":"2026-11-20T10:11:12Z","id":"1","agent":{"id":"005"},"rule":{"id":"1","level":3},
            "data":{"user":"root","ip":"1.2.3.4.5\u001b","list":[1]}}"#;
        for (source, is_missing, text) in [
            ("data.url.contains('x')", true, "there is no field url"),
            ("data.user > 3", false, "string and int"),
            ("data.ip.in_cidr('10.0.0.0/8')", false, "in_cidr: the text is not an address"),
            ("1 / 0 == 1", false, "division by zero"),
            ("data.user.hour() == 3", false, "hour: the text is not a time"),
        ] {
            let failure = said(source, raw).unwrap_err();
            assert_eq!(failure.is_missing_field(), is_missing, "{source}");
            assert!(failure.to_string().contains(text), "{source}: {failure}");
            assert!(!failure.to_string().contains('\u{1b}'));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_causes_a_panic(source in "\\PC{0,80}") {
            if let Ok(expression) = Expression::parse(&source) {
                let _ = expression.holds(&Bindings::sample());
            }
        }
    }
}
