//! `matches`: regular expressions, each compiled once. CEL's own function compiles its pattern at each evaluation, which
//! costs more than everything else that a condition does; this one takes its place.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use cel::common::ast::{CallExpr, Expr, LiteralValue};
use cel::common::types::{CelBool, CelString};
use cel::{DeclarationError, Env, ExecutionError};
use regex::{Regex, RegexBuilder};

/// How large a compiled pattern may be, in bytes: `\w{1000}` would take several MiB. What matching keeps beside it is bounded by
/// the crate, at a few MiB.
const MAX_BYTES: usize = 1 << 20;
/// Patterns that are remembered. There are as many as policies name, and those of drafts that were tried; beyond this all are
/// forgotten and compiled again as they are needed.
const MAX_KEPT: usize = 4096;

/// Compiled patterns, shared by all expressions. Sharing beats copying: a copy would start with a
/// cold cache.
static COMPILED: LazyLock<RwLock<HashMap<String, Arc<Regex>>>> = LazyLock::new(RwLock::default);

/// Adds `matches`, as a function and as a method.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>, id = "matches")?;
    cel::add_member_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>)
}

fn matches(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    let compiled = compiled(pattern.inner()).map_err(|fault| ExecutionError::function_error("matches", fault))?;
    Ok(CelBool::from(compiled.is_match(text.inner())))
}

/// A pattern, compiled when it is first named.
fn compiled(pattern: &str) -> Result<Arc<Regex>, String> {
    if let Some(kept) = COMPILED.read().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return Ok(Arc::clone(kept));
    }
    let compiled = RegexBuilder::new(pattern).size_limit(MAX_BYTES).build().map_err(|fault| match fault {
        regex::Error::CompiledTooBig(_) => format!("takes more than {MAX_BYTES} bytes"),
        // The sentence comes after a drawing of the pattern.
        fault => fault.to_string().lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })?;
    let compiled = Arc::new(compiled);
    let mut kept = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), Arc::clone(&compiled));
    Ok(compiled)
}

/// Checks a call of `matches`: its pattern is written out and is one. A pattern out of an alert would be an attacker's.
pub(super) fn check(call: &CallExpr) -> Result<(), String> {
    // A dot in front means the same function, by its absolute name.
    if call.func_name.trim_start_matches('.') != "matches" {
        return Ok(());
    }
    match call.args.last().map(|pattern| &pattern.expr) {
        Some(Expr::Literal(LiteralValue::String(pattern))) => match compiled(pattern.inner()) {
            Ok(_) => Ok(()),
            Err(fault) => Err(format!("matches: the pattern {:?}: {fault}", pattern.inner())),
        },
        _ => Err("matches takes a pattern that is written out, as in matches(\"^[a-z]+$\")".into()),
    }
}
