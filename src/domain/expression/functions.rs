//! Functions in conditions: CEL's own, and additions for addresses, times and texts. Calls are
//! checked on save by name, form and number of arguments, because an unknown function would
//! silently never hold.

use std::str::FromStr as _;

use cel::common::ast::{CallExpr, Expr, LiteralValue};
use cel::common::types::{CelBool, CelInt, CelList, CelString};
use cel::{DeclarationError, Env, ExecutionError};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use riposte_protocol::account::fold_case;
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::words::nearest;

use super::patterns;
use crate::domain::duration::Span;
use crate::domain::protected::Covered;

/// A function: its name, and the numbers of arguments as a function and as a method.
type Signature = (&'static str, &'static [usize], &'static [usize]);

/// All functions.
const FUNCTIONS: [Signature; 31] = [
    ("bool", &[1], &[]),
    ("bytes", &[1], &[]),
    ("double", &[1], &[]),
    ("dyn", &[1], &[]),
    ("int", &[1], &[]),
    ("string", &[1], &[]),
    ("type", &[1], &[]),
    ("uint", &[1], &[]),
    ("seconds", &[1], &[]),
    ("has", &[1], &[]),
    ("size", &[1], &[0]),
    ("matches", &[2], &[1]),
    ("contains", &[], &[1]),
    ("endsWith", &[], &[1]),
    ("startsWith", &[], &[1]),
    ("lower", &[], &[0]),
    ("upper", &[], &[0]),
    ("equals_ignore_case", &[], &[1]),
    ("contains_ignore_case", &[], &[1]),
    ("in_cidr", &[], &[1]),
    ("hour", &[], &[0, 1]),
    ("weekday", &[], &[0, 1]),
    ("value", &[], &[0]),
    ("hasValue", &[], &[0]),
    ("or", &[], &[1]),
    ("orValue", &[], &[1]),
    // Macros: absent from the syntax tree if used correctly.
    ("all", &[], &[2]),
    ("exists", &[], &[2]),
    ("exists_one", &[], &[2]),
    ("filter", &[], &[2]),
    ("map", &[], &[2, 3]),
];
/// Names of functions in other languages, with CEL's equivalent.
const ELSEWHERE: [(&str, &str); 16] = [
    ("lowercase", "lower"),
    ("toLowerCase", "lower"),
    ("tolower", "lower"),
    ("lowerAscii", "lower"),
    ("toUpperCase", "upper"),
    ("upperAscii", "upper"),
    ("length", "size"),
    ("len", "size"),
    ("count", "size"),
    ("includes", "contains"),
    ("match", "matches"),
    ("regex", "matches"),
    ("any", "exists"),
    ("some", "exists"),
    ("equalsIgnoreCase", "equals_ignore_case"),
    ("cidr", "in_cidr"),
];

/// Adds the functions that CEL lacks.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    patterns::declare(env)?;
    cel::add_overload!(env, fn seconds: (CelString) -> Result<CelInt>, id = "seconds")?;
    cel::add_member_overload!(env, fn lower: (CelString) -> CelString<'static>)?;
    cel::add_member_overload!(env, fn upper: (CelString) -> CelString<'static>)?;
    cel::add_member_overload!(env, fn equals_ignore_case: (CelString, CelString) -> CelBool,
        name = "equals_ignore_case", id = "equals_ignore_case")?;
    cel::add_member_overload!(env, fn contains_ignore_case: (CelString, CelString) -> CelBool,
        name = "contains_ignore_case", id = "contains_ignore_case")?;
    cel::add_member_overload!(env, fn in_network: (CelString, CelString) -> Result<CelBool>,
        name = "in_cidr", id = "in_cidr")?;
    cel::add_member_overload!(env, fn in_networks: (CelString, CelList) -> Result<CelBool>,
        name = "in_cidr", id = "in_cidr_list")?;
    cel::add_member_overload!(env, fn hour: (CelString) -> Result<CelInt>, id = "hour")?;
    cel::add_member_overload!(env, fn hour_in: (CelString, CelString) -> Result<CelInt>,
        name = "hour", id = "hour_zone")?;
    cel::add_member_overload!(env, fn weekday: (CelString) -> Result<CelInt>, id = "weekday")?;
    cel::add_member_overload!(env, fn weekday_in: (CelString, CelString) -> Result<CelInt>,
        name = "weekday", id = "weekday_zone")
}

/// Checks a call.
pub(super) fn check(call: &CallExpr) -> Result<(), String> {
    // A leading dot marks an absolute name of the same function.
    let name = call.func_name.trim_start_matches('.');
    if is_operator(name) {
        return Ok(());
    }
    let Some((_, alone, on_value)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
        let names = || FUNCTIONS.iter().map(|(known, ..)| *known);
        let same = |known: &str| known.eq_ignore_ascii_case(name);
        let other = |word: &str| {
            ELSEWHERE.iter().find(|(other, _)| *other == word).map_or(word.to_owned(), |(_, meant)| (*meant).to_owned())
        };
        let all = || names().chain(ELSEWHERE.iter().map(|(other, _)| *other));
        let meant = all().find(|known| same(known)).map(&other);
        let meant = meant.or_else(|| nearest(name, names()).map(str::to_owned));
        let meant = meant.or_else(|| nearest(name, all()).map(other));
        return Err(match meant {
            Some(meant) => format!("there is no function {name}; did you mean {meant}?"),
            None => format!("there is no function {name}"),
        });
    };
    let (counts, how) = match call.target {
        Some(_) => (*on_value, format!("x.{name}(…)")),
        None => (*alone, format!("{name}(…)")),
    };
    if counts.is_empty() {
        let right = if call.target.is_some() { format!("{name}(x)") } else { format!("x.{name}(…)") };
        return Err(format!("{how} is no way to call {name}: write {right}"));
    }
    let given = call.args.len();
    if !counts.contains(&given) {
        let takes: Vec<String> = counts.iter().map(ToString::to_string).collect();
        let takes = takes.join(" or ");
        let s = if takes == "1" { "" } else { "s" };
        return Err(format!("{how} takes {takes} argument{s}, and has {given}"));
    }
    match name {
        "matches" => patterns::check(call),
        "in_cidr" => networks(call),
        "hour" | "weekday" => {
            call.args.first().map_or(Ok(()), |arg| written(arg, "a time zone", |text| zone(text).map(drop)))
        }
        "seconds" => written(&call.args[0], "a duration", |text| span(text).map(drop)),
        _ => Ok(()),
    }
}

/// Whether the name is an operator's: these contain symbols.
fn is_operator(name: &str) -> bool {
    name.starts_with(['_', '!', '-', '@'])
}

/// Checks a literal argument. Other arguments are checked at evaluation.
fn written(arg: &cel::IdedExpr, what: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    match &arg.expr {
        Expr::Literal(LiteralValue::String(text)) => check(text.inner()),
        Expr::Literal(_) => Err(format!("needs {what} as a text")),
        _ => Ok(()),
    }
}

fn networks(call: &CallExpr) -> Result<(), String> {
    let network = |arg: &cel::IdedExpr| written(arg, "an address or a network", |text| net(text).map(drop));
    match &call.args[0].expr {
        Expr::List(list) => list.elements.iter().try_for_each(network),
        _ => network(&call.args[0]),
    }
}

fn fault(function: &'static str) -> impl Fn(String) -> ExecutionError {
    move |why| ExecutionError::function_error(function, why)
}

fn lower(text: &CelString<'_>) -> CelString<'static> {
    text.inner().to_lowercase().into()
}

fn upper(text: &CelString<'_>) -> CelString<'static> {
    text.inner().to_uppercase().into()
}

fn equals_ignore_case(one: &CelString<'_>, other: &CelString<'_>) -> CelBool {
    CelBool::from(fold_case(one.inner()) == fold_case(other.inner()))
}

fn contains_ignore_case(text: &CelString<'_>, part: &CelString<'_>) -> CelBool {
    CelBool::from(fold_case(text.inner()).contains(&fold_case(part.inner())))
}

fn net(text: &str) -> Result<IpNet, String> {
    match Covered::network(text) {
        Ok(Covered::Network(net)) => Ok(net),
        Ok(_) => Err(format!("{text:?} is not a network")),
        Err(error) => Err(format!("{text:?} {error}")),
    }
}

fn address(text: &CelString<'_>) -> Result<std::net::IpAddr, ExecutionError> {
    let target = Target::parse(TargetKind::Ip, text.inner()).ok();
    target.and_then(|target| target.ip()).ok_or_else(|| fault("in_cidr")("the text is not an address".into()))
}

fn in_network(text: &CelString<'_>, network: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    let net = net(network.inner()).map_err(fault("in_cidr"))?;
    Ok(CelBool::from(net.contains(&address(text)?)))
}

fn in_networks(text: &CelString<'_>, list: &CelList<'_>) -> Result<CelBool, ExecutionError> {
    let address = address(text)?;
    let mut is_in = false;
    for item in list.inner() {
        let Some(network) = item.downcast_ref::<CelString>() else {
            return Err(fault("in_cidr")("the list contains a value that is not a text".into()));
        };
        is_in |= net(network.inner()).map_err(fault("in_cidr"))?.contains(&address);
    }
    Ok(CelBool::from(is_in))
}

fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error| format!("{text:?} {error}"))
}

fn seconds(text: &CelString<'_>) -> Result<CelInt, ExecutionError> {
    let span = span(text.inner()).map_err(fault("seconds"))?;
    Ok(CelInt::from(i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX)))
}

/// An IANA time zone, or an offset such as `+01:00`.
fn zone(text: &str) -> Result<TimeZone, String> {
    let offset = || jiff::fmt::strtime::parse("%:z", text).ok()?.offset().map(TimeZone::fixed);
    let found = if text.starts_with(['+', '-']) { offset() } else { TimeZone::get(text).ok() };
    found.ok_or_else(|| format!("{text:?} is not a time zone such as \"Europe/Berlin\" or \"+01:00\""))
}

fn civil(
    function: &'static str,
    text: &CelString<'_>,
    zone: &TimeZone,
) -> Result<jiff::civil::DateTime, ExecutionError> {
    let instant = jiff::Timestamp::from_str(text.inner());
    let instant = instant.map_err(|_| fault(function)("the text is not a time such as 2026-11-24T10:00:00Z".into()))?;
    Ok(zone.to_datetime(instant))
}

fn hour(text: &CelString<'_>) -> Result<CelInt, ExecutionError> {
    Ok(CelInt::from(i64::from(civil("hour", text, &TimeZone::UTC)?.hour())))
}

fn hour_in(text: &CelString<'_>, name: &CelString<'_>) -> Result<CelInt, ExecutionError> {
    let zone = zone(name.inner()).map_err(fault("hour"))?;
    Ok(CelInt::from(i64::from(civil("hour", text, &zone)?.hour())))
}

/// Monday is 1, Sunday is 7, as in ISO 8601.
fn weekday(text: &CelString<'_>) -> Result<CelInt, ExecutionError> {
    Ok(CelInt::from(i64::from(civil("weekday", text, &TimeZone::UTC)?.date().weekday().to_monday_one_offset())))
}

fn weekday_in(text: &CelString<'_>, name: &CelString<'_>) -> Result<CelInt, ExecutionError> {
    let zone = zone(name.inner()).map_err(fault("weekday"))?;
    Ok(CelInt::from(i64::from(civil("weekday", text, &zone)?.date().weekday().to_monday_one_offset())))
}
