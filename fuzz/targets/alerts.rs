//! Alerts in any format: decoding and reading are stable, every reader sees the same alert, and what
//! becomes of it is bounded.

use riposte::domain::alert::{Alert, TargetField};
use riposte::domain::decode::{decode, legible};
use riposte::domain::expression::{Bindings, EVERYTHING, Expression};
use riposte::domain::formats::{self, AlertMappings};
use serde_json::Value;

pub(crate) fn check(input: &[u8]) {
    let decoded = decode(input).into_owned();
    assert_eq!(decode(decoded.as_bytes()), decoded, "decoding again changes nothing");
    let legible_text = legible(input).into_owned();
    assert_eq!(legible(legible_text.as_bytes()), legible_text);
    let mappings = AlertMappings::default();
    match formats::read(input, &mappings, None) {
        Ok((text, alert)) => {
            assert_eq!(text, decoded, "the text that every reader gets");
            assert_eq!(formats::parse(&text, &mappings, None).as_ref(), Ok(&alert));
            assert_eq!(formats::read(text.as_bytes(), &mappings, None).unwrap().1, alert);
            bounded(&alert, input.len());
            // Readers of stored alerts, programs of agents among them, use common JSON parsers.
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value.is_object());
            observables(&alert);
            seen_by_conditions(&alert, &text);
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal without a reason");
            assert!(
                faults.iter().all(|fault| fault.pointer.is_empty() || fault.pointer.starts_with('/')),
                "{faults:?}"
            );
        }
    }
}

/// The sizes that the ledger relies on.
fn bounded(alert: &Alert, received: usize) {
    let rule = &alert.rule;
    assert!(
        rule.level <= 16 && rule.id.len() <= 256 && rule.description.len() <= 512 && alert.pipeline_id.len() <= 256
    );
    assert!(rule.groups.len() <= 2048 && rule.mitre.len() <= 1024);
    let groups: usize = rule.groups.iter().map(String::len).sum();
    // A group grows by a prefix such as `pci_dss_`, and takes at least three bytes.
    assert!(groups <= received * 8, "{groups} bytes of groups from {received}");
    let texts = [&rule.id, &alert.pipeline, &alert.pipeline_id, &rule.description];
    assert!(texts.into_iter().chain(&rule.groups).all(|text| !text.contains('\0')), "{alert:?}");
}

/// An observable that is a target is in canonical form already.
fn observables(alert: &Alert) {
    for name in TargetField::NAMES {
        let field = serde_json::from_value(Value::from(name)).unwrap();
        let Some(observable) = alert.observables.field(field) else { continue };
        assert!(observable.value.len() <= 4097 && !observable.value.is_empty() && !observable.field.is_empty());
        if let Some(Ok(target)) = alert.observables.target(field) {
            assert_eq!(target.value(), observable.value, "{name}");
        }
    }
}

/// A condition sees the alert that the rest of the program sees.
fn seen_by_conditions(alert: &Alert, text: &str) {
    thread_local! {
        static LEVELS: Vec<Expression> =
            (0..=16).map(|level| Expression::parse(&format!("rule.level == {level}")).unwrap()).collect();
        static ADDRESS: Expression = Expression::parse("has(source.ip) && size(source.ip) > 0").unwrap();
    }
    let bindings = Bindings::new(alert, text, &EVERYTHING);
    LEVELS.with(|levels| {
        let holds = |level: &usize| levels[*level].holds(&bindings).unwrap();
        let seen: Vec<usize> = (0..=16).filter(holds).collect();
        assert_eq!(seen, [usize::from(alert.rule.level)]);
    });
    if alert.observables.source_ip.is_some() {
        assert_eq!(ADDRESS.with(|address| address.holds(&bindings)).ok(), Some(true));
    }
}
