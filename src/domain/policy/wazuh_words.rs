//! Words of `ossec.conf` that people write into a policy, and what they are called here. A hint, never an alias: a word that
//! means nearly the same would hide the difference.

/// A field of an active response, and what says it in a policy.
const FIELDS: [(&str, &str); 13] = [
    ("location", "on in respond: origin (Wazuh's local), server, all or {agents: [...]}"),
    ("agent_id", "on in respond: {agents: [...]}"),
    ("timeout", "for in respond, a duration such as \"600s\""),
    ("timeout_allowed", "for in respond; without it a response lasts until it is lifted by hand"),
    ("repeated_offenders", "escalate in respond, with a ladder of durations"),
    ("command", "action in respond"),
    ("executable", "action in respond; a program of your own is a custom action"),
    ("expect", "target in respond, such as source.ip"),
    ("level", "min_level in a selector of match"),
    ("rules_id", "rule_ids in a selector of match, a list"),
    ("rules_group", "rule_groups in a selector of match (or wazuh_rules_group, with Wazuh's own semantics)"),
    ("active-response", "match and respond; riposte policy import reads an ossec.conf"),
    ("active_response", "match and respond; riposte policy import reads an ossec.conf"),
];

/// What the field `key`, which is not known where it stands, is called here.
pub(super) fn field(key: &str) -> Option<String> {
    let (_, meant) = FIELDS.iter().find(|(word, _)| *word == key)?;
    Some(format!("is Wazuh's word; write {meant}"))
}

/// What the location `word` is called here.
pub(super) fn location(word: &str) -> Option<&'static str> {
    match word {
        "local" => Some("Wazuh's local is origin"),
        "defined-agent" | "defined_agent" => Some("Wazuh's defined-agent is {agents: [...]}"),
        _ => None,
    }
}
