//! Reference implementation of [`super::bindings`]: converts the whole alert to `cel::Value`s. Too
//! slow for use; tests compare both on arbitrary alerts.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Value};
use proptest::prelude::*;

use super::bindings::{MAX_LIST, NAMES, Numbers};
use super::{Bindings, EVERYTHING, Expression, FieldRefs};
use crate::domain::alert::{Alert, Observable};
use crate::domain::decode::decode;
use crate::domain::formats::{self, AlertMappings};

/// Converts all of `alert` with its text `raw`.
fn whole(alert: &Alert, raw: &str, numbers: Numbers) -> Context<'static, 'static> {
    static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    let mut top: HashMap<Key, Value> = match serde_json::from_str(raw).map(|json| value(json, numbers)) {
        Ok(Value::Map(map)) => (*map.map).clone(),
        _ => HashMap::new(),
    };
    for (name, fields) in normalised(alert) {
        let merged = match top.remove(&Key::from(name)) {
            Some(Value::Map(map)) => (*map.map).clone().into_iter().chain(fields).collect(),
            _ => fields,
        };
        top.insert(name.into(), Value::Map(Map { map: Arc::new(merged) }));
    }
    top.insert("pipeline".into(), alert.pipeline.clone().into());
    let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
    context.add_variable_from_value("time", alert.time.to_string());
    context.add_variable_from_value("age", alert.age_secs());
    for name in NAMES.iter().filter(|name| !["alert", "time", "age"].contains(*name)) {
        let empty = || Value::Map(Map { map: Arc::default() });
        context.add_variable_from_value(*name, top.get(&Key::from(*name)).cloned().unwrap_or_else(empty));
    }
    context.add_variable_from_value("alert", Value::Map(Map { map: Arc::new(top) }));
    context
}

fn normalised(alert: &Alert) -> [(&'static str, HashMap<Key, Value>); 4] {
    let observables = &alert.observables;
    let of = |fields: &[(&'static str, &Option<Observable>)]| {
        let present = fields.iter().filter_map(|(name, field)| Some((*name, field.as_ref()?)));
        present.map(|(name, observable)| (Key::from(name), Value::from(observable.value.clone()))).collect()
    };
    let groups: Vec<Value> = alert.rule.groups.iter().take(MAX_LIST).map(|group| group.clone().into()).collect();
    let rule = [
        (Key::from("id"), Value::from(alert.rule.id.clone())),
        (Key::from("level"), Value::Int(i64::from(alert.rule.level))),
        (Key::from("groups"), Value::List(Arc::new(groups))),
    ];
    [
        ("source", of(&[("ip", &observables.source_ip), ("user", &observables.source_user)])),
        ("destination", of(&[("ip", &observables.destination_ip), ("user", &observables.destination_user)])),
        ("file", of(&[("path", &observables.file_path)])),
        ("rule", rule.into_iter().collect()),
    ]
}

fn value(json: serde_json::Value, numbers: Numbers) -> Value {
    match json {
        serde_json::Value::Object(fields) => {
            let map = fields.into_iter().map(|(name, item)| (Key::from(name.as_str()), value(item, numbers))).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
        serde_json::Value::Array(items) => {
            let items = items.into_iter().take(MAX_LIST).map(|item| value(item, numbers));
            Value::List(Arc::new(items.collect()))
        }
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, float) => Value::Float(float.unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => match text.parse::<i64>() {
            Ok(number) if numbers == Numbers::FromText && number.to_string() == *text => Value::Int(number),
            _ => text.into(),
        },
        serde_json::Value::Null => Value::Null,
    }
}

/// The result, or the kind of error, which decides whether numbers are tried.
fn said(expression: &Expression, context: &Context) -> Result<Value, Discriminant<ExecutionError>> {
    expression.program.execute(context).map_err(|fault| discriminant(&fault))
}

/// Checks that each expression has the same result on the whole alert, on its own fields, and on
/// the fields of all.
fn agree(expressions: &[Expression], alert: &Alert, raw: &str) {
    let raw = &*decode(raw.as_bytes());
    let mut all = FieldRefs::default();
    for expression in expressions {
        all.add(expression.field_refs());
    }
    for numbers in [Numbers::AsWritten, Numbers::FromText] {
        let whole = whole(alert, raw, numbers);
        let (everything, all) = (Bindings::new(alert, raw, &EVERYTHING), Bindings::new(alert, raw, &all));
        for expression in expressions {
            let expected = said(expression, &whole);
            let own = Bindings::new(alert, raw, expression.field_refs());
            for (bindings, what) in [(&own, "what it reads"), (&all, "what all read"), (&everything, "everything")] {
                assert_eq!(
                    said(expression, &bindings.seen(numbers).context()),
                    expected,
                    "{expression:?}, {what}: {raw}"
                );
            }
        }
    }
}

fn parsed(sources: &[&str]) -> Vec<Expression> {
    sources.iter().map(|source| Expression::parse(source).unwrap_or_else(|why| panic!("{source}: {why}"))).collect()
}

const CONDITIONS: &[&str] = &[
    "data.srcport > 1024 || rule.level > 3",
    r#"data.srcport == "40118" && data.dstport == 22"#,
    r#"!source.ip.startsWith("10.") && source.user != destination.user"#,
    r#"rule.groups.exists(group, group.startsWith("authentication"))"#,
    "has(data.srcip) && has(source.ip) && !has(data.url)",
    "has(data.win.eventdata.ipAddress) || has(syscheck.path)",
    r#"data.win.eventdata.targetUserName.contains("$")"#,
    r#"rule.mitre.id.all(id, id.startsWith("T1"))"#,
    r#"alert.rule.mitre.technique.size() > 1 && alert.agent.name != """#,
    r#"data.all(key, key != "url")"#,
    r#"alert.exists(key, key == "previous_output")"#,
    "size(data) > 5 || size(alert) > 12",
    r#""srcip" in data && data["srcip"] != "0.0.0.0""#,
    "data == alert.data && rule == alert.rule",
    "location == alert.location && decoder.name == predecoder.program_name",
    "rule.firedtimes > 1 && rule.id > 5700 && rule.level >= 3",
    r#"full_log.contains("ssh") && manager.name.endsWith("1")"#,
    r#"data[location.startsWith("/") ? "srcip" : "dstip"] == source.ip"#,
    "int(data.srcport) + 1 > 1024 && data.srcport - 1 < 65535",
    "file.path == syscheck.path && pipeline == alert.pipeline",
    "time > \"2026\" && age >= 0",
];

#[test]
fn facts_agree_with_the_reference_on_the_corpus() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/alerts-sample.ndjson");
    let ours = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/alerts.ndjson");
    let mut text = std::fs::read_to_string(ours).unwrap();
    match std::fs::read_to_string(corpus) {
        Ok(more) => text.push_str(&more),
        Err(_) => eprintln!("corpus not present: ../shared/corpus; only the alerts in tests/data were tried"),
    }
    let (conditions, mut count) = (parsed(CONDITIONS), 0);
    for raw in text.lines() {
        agree(&conditions, &formats::parse(raw, &AlertMappings::default(), None).unwrap(), raw);
        count += 1;
    }
    assert!(count > 0, "no alert was tried");
}

#[test]
fn undecodable_fields_hide_no_other_field() {
    let alert = Alert::default();
    let conditions = parsed(&[r#"data.user == "root" && data.port == 22"#]);
    for odd in ["1e400", "-1e400", r#""\ud800""#, r#"{"\udc00": 1}"#, r#"[1, {"a": "\ud800"}]"#] {
        for raw in [
            format!(r#"{{"odd": {odd}, "data": {{"user": "root", "port": 22}}}}"#),
            format!(r#"{{"data": {{"odd": {odd}, "user": "root", "port": 22}}}}"#),
            format!(r#"{{"data": {{"user": "root", "port": 22, "odd": {{"odd": [{odd}]}}}}}}"#),
            r#"{"data": {"\ud800": ODD, "user": "root", "port": 22}}"#.replace("ODD", odd),
        ] {
            for field_refs in [conditions[0].field_refs(), &EVERYTHING] {
                let text = decode(raw.as_bytes());
                let bindings = Bindings::new(&alert, &text, field_refs);
                let said = said(&conditions[0], &bindings.seen(Numbers::AsWritten).context());
                assert_eq!(said, Ok(Value::Bool(true)), "{raw}");
            }
        }
    }
    let odd = parsed(&[r#"data.port == "1e400""#, "data.user == 'attack \u{fffd}'", "has(data.user)"]);
    let text = decode(br#"{"data": {"port": 1e400, "user": "attack \ud800"}}"#);
    let bindings = Bindings::new(&alert, &text, &EVERYTHING);
    for one in &odd {
        assert_eq!(said(one, &bindings.seen(Numbers::AsWritten).context()), Ok(Value::Bool(true)), "{one:?}");
    }
}

#[test]
fn deep_or_invalid_json_hides_the_same_fields() {
    let conditions =
        parsed(&[r#"data.url == "x""#, "has(data.deep)", "size(alert.odd) > 0", "size(alert) > 0", "has(rule.id)"]);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for odd in [
        nested(10),
        // With its surroundings, as deep as an alert may be.
        nested(formats::MAX_DEPTH - 2),
        "1e400".to_owned(),
        "-1e400".to_owned(),
        r#""\ud800""#.to_owned(),
        r#"{"\udc00": 1}"#.to_owned(),
        "9".repeat(400),
        "01".to_owned(),
        "[1,]".to_owned(),
        format!("[{}1e400]", "1,".repeat(MAX_LIST + 1)),
    ] {
        for raw in [
            format!(r#"{{"data": {{"url": "x"}}, "odd": {odd}}}"#),
            format!(r#"{{"odd": {odd}, "data": {{"url": "x"}}}}"#),
            format!(r#"{{"data": {{"url": "x", "deep": {odd}}}}}"#),
            format!(r#"{{"data": {{"url": "x"}}, "rule": {{"id": {odd}}}}}"#),
            format!(r#"{{"data": {{"url": "x"}}}} {odd}"#),
        ] {
            agree(&conditions, &Alert::default(), &raw);
        }
    }
}

/// JSON with few names, so that they meet those of expressions; some of it is invalid.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "3",
        "-3",
        "1.5",
        "40118",
        "1e400",
        "18446744073709551615",
        "1e3",
        r#""""#,
        r#""x""#,
        r#""3""#,
        r#""-3""#,
        r#""007""#,
        r#""40118""#,
        r#""9223372036854775808""#,
        r#""\u0078""#,
        r#""a\"b""#,
        r#""é""#,
        r#""url""#,
        r#""\ud800""#,
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            object(inner),
        ]
    })
}

fn object(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "data",
        r"d\u0061ta",
        "rule",
        "source",
        "file",
        "location",
        "alert",
        "pipeline",
        "url",
        r"\u0075rl",
        "srcport",
        "level",
        "ip",
        "path",
        "x",
    ]);
    prop::collection::vec((name, inner), 0..7).prop_map(|entries| {
        let entries: Vec<String> = entries.into_iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        format!("{{{}}}", entries.join(","))
    })
}

fn condition() -> impl Strategy<Value = String> {
    let root =
        prop::sample::select(vec!["data", "rule", "source", "file", "location", "alert", "alert.data", "pipeline"]);
    let field = prop::sample::select(vec!["url", "srcport", "level", "ip", "path", "x", "data"]);
    let path = (root, prop::collection::vec(field.clone(), 0..3))
        .prop_map(|(root, fields)| fields.iter().fold(root.to_owned(), |path, field| format!("{path}.{field}")));
    let shape = prop::sample::select(vec![
        "P > 3",
        "Q <= P",
        "P == Q",
        r#"P == "40118""#,
        "P == 3",
        "has(P.F)",
        r#"P.contains("x")"#,
        "size(P) > 1",
        r#"P.exists(one, one == "url")"#,
        "P.all(one, one != Q)",
        r#"P["F"] == 3"#,
        "P[Q] != 3",
        r#""F" in P"#,
        "P in Q",
        "P + Q == P",
        "int(P) > 3",
        "P.exists(data, data == Q)",
        "[P, Q][0] == 3",
        r#"{"a": P}.a == 3"#,
        "(has(P.F) ? P : Q) == 3",
        "P.map(one, one == Q).size() > 1",
    ]);
    let one = (shape, path.clone(), path, field)
        .prop_map(|(shape, p, q, field)| shape.replace('P', &p).replace('Q', &q).replace('F', field));
    let joint = prop::sample::select(vec!["A", "!(A)", "A && B", "A || B", "A ? B : true"]);
    (joint, one.clone(), one).prop_map(|(joint, a, b)| joint.replace('A', &a).replace('B', &b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn facts_agree_with_the_reference_on_hostile_alerts(
        raw in prop_oneof![9 => object(json()), 1 => json()],
        sources in prop::collection::vec(condition(), 1..4),
        observed in any::<bool>(),
    ) {
        let mut alert = Alert::default();
        if observed {
            alert.pipeline = "wazuh".into();
            alert.rule.level = 3;
            alert.rule.groups = vec!["url".into(), "x".into()];
            alert.observables.source_ip = Some(Observable { value: "3".into(), field: "data.srcip".into() });
            alert.observables.file_path = Some(Observable { value: "x".into(), field: "syscheck.path".into() });
        }
        // Some are refused on save, such as nested macros.
        let expressions: Vec<Expression> = sources.iter().filter_map(|source| Expression::parse(source).ok()).collect();
        prop_assume!(!expressions.is_empty());
        agree(&expressions, &alert, &raw);
    }
}
