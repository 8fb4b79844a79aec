//! `matches`: regular expressions, compiled once. CEL's own function compiles its pattern at each
//! evaluation, which costs more than the rest of a condition; this one replaces it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use cel::common::ast::{CallExpr, Expr, LiteralValue};
use cel::common::types::{CelBool, CelString};
use cel::{DeclarationError, Env, ExecutionError};
use regex::{Regex, RegexBuilder};

/// Maximum size of a compiled pattern, in bytes: `\w{1000}` would take several MiB. The crate
/// bounds the matching cache at a few MiB.
const MAX_BYTES: usize = 1 << 20;
/// Maximum number of cached patterns, from policies and drafts. Beyond it the cache is cleared, and
/// patterns are compiled again on use.
const MAX_KEPT: usize = 4096;

/// Compiled patterns, shared by all expressions. Sharing beats copying: a copy would start with a
/// cold cache.
static COMPILED: LazyLock<RwLock<HashMap<String, Arc<Regex>>>> = LazyLock::new(RwLock::default);

/// Adds `matches` as a function and as a method.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>, id = "matches")?;
    cel::add_member_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>)
}

fn matches(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    let compiled = compiled(pattern.inner()).map_err(|fault| ExecutionError::function_error("matches", fault))?;
    Ok(CelBool::from(compiled.is_match(text.inner())))
}

/// The compiled pattern, from the cache.
fn compiled(pattern: &str) -> Result<Arc<Regex>, String> {
    if let Some(kept) = COMPILED.read().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return Ok(Arc::clone(kept));
    }
    let compiled = RegexBuilder::new(pattern).size_limit(MAX_BYTES).build().map_err(|fault| match fault {
        regex::Error::CompiledTooBig(_) => format!("takes more than {MAX_BYTES} bytes"),
        // The message follows a drawing of the pattern.
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

/// Checks a call of `matches`: its pattern must be a valid literal. A pattern from an alert would
/// be controlled by an attacker.
pub(super) fn check(call: &CallExpr) -> Result<(), String> {
    // A leading dot marks an absolute name of the same function.
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
