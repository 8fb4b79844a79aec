//! Selectors of agents: what is written is read again, and one that is within another never selects
//! more agents than it.

use std::collections::BTreeMap;

use riposte::domain::agent_selector::AgentSelector;
use riposte::domain::labels::parse_labels;
use serde_json::Value;

use crate::input::parts;

/// Two selectors, and the labels of agents, one object a line.
pub(crate) fn check(input: &[u8]) {
    let [inner, outer, agents] = parts(input);
    let read = |bytes: &[u8]| {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let selector = AgentSelector::parse(&value, "/agents");
        if let Err(faults) = &selector {
            assert!(
                !faults.is_empty() && faults.iter().all(|fault| fault.pointer.starts_with("/agents")),
                "{faults:?}"
            );
        }
        selector.ok()
    };
    let Some(inner) = read(inner) else { return };
    let written = serde_json::to_value(&inner).unwrap();
    assert_eq!(AgentSelector::parse(&written, "").as_ref(), Ok(&inner), "{written}");
    assert!(inner.is_within(&inner), "{written} is within itself");
    assert!(inner.is_within(&AgentSelector::default()));
    let Some(outer) = read(outer) else { return };
    let both = AgentSelector { all: vec![inner.clone(), outer.clone()], ..AgentSelector::default() };
    assert!(both.is_within(&inner) && both.is_within(&outer), "{both}");
    let is_within = inner.is_within(&outer);
    for agent in agents.split(|byte| *byte == b'\n').take(16) {
        let object = serde_json::from_slice::<Value>(agent).ok().and_then(|value| value.as_object().cloned());
        let Some(agent) = object.and_then(|object| parse_labels(&object).ok()) else { continue };
        judge(&inner, &outer, is_within, &agent);
    }
    judge(&inner, &outer, is_within, &BTreeMap::new());
}

fn judge(inner: &AgentSelector, outer: &AgentSelector, is_within: bool, agent: &BTreeMap<String, String>) {
    assert!(!inner.is_empty() || inner.selects(agent), "an empty selector selects every agent");
    assert!(!is_within || !inner.selects(agent) || outer.selects(agent), "{inner} is not within {outer}: {agent:?}");
}
