//! Policy documents: what is accepted can be written, stored and read again as the same policy, and
//! the index of policies finds what trying each selector finds.

use std::sync::Arc;

use riposte::domain::action::Catalogue;
use riposte::domain::formats::{self, AlertMappings};
use riposte::domain::index::{PolicyIndex, Seen, VersionedPolicy, holds};
use riposte::domain::policy::Policy;
use serde_json::Value;

use crate::input::parts;

/// A policy, and optionally an alert.
pub(crate) fn check(input: &[u8]) {
    let [document, alert] = parts(input);
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    let catalogue = Catalogue::built_in();
    let policy = match Policy::parse(&document, catalogue) {
        Ok(policy) => policy,
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal without a reason");
            assert!(
                faults.iter().all(|fault| fault.pointer.is_empty() || fault.pointer.starts_with('/')),
                "{faults:?}"
            );
            return;
        }
    };
    assert_eq!(
        Policy::parse_stored(&document, catalogue).as_ref(),
        Ok(&policy),
        "what can be saved can be read at a start"
    );
    let written = serde_json::to_value(&policy).unwrap();
    let again = Policy::parse(&written, catalogue).unwrap_or_else(|faults| panic!("{written}: {faults:?}"));
    assert_eq!(again, policy, "{written}");
    assert_eq!(serde_json::to_value(&again).unwrap(), written);
    // Warnings are for people; they must not depend on the notation.
    assert_eq!(again.warnings(), policy.warnings());
    let policy = Arc::new(policy);
    let index = PolicyIndex::compile(vec![Arc::new(VersionedPolicy { policy: Arc::clone(&policy), version: 1 })]);
    let Ok((raw, alert)) = formats::read(alert, &AlertMappings::default(), None) else { return };
    let fired = !index.matching(&alert, &raw, &|| None).fired.is_empty();
    let seen = Seen::new(&alert, &raw, &|| None);
    let tried = alert.rule.level > 0 && policy.selectors.iter().any(|selector| holds(selector, &seen));
    assert_eq!(fired, tried, "the index finds what trying finds: {written}");
    assert!(!fired || index.could_match(&alert.rule.id, alert.rule.level));
}
