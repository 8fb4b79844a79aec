//! Suggestions for words of `ossec.conf` in a policy. They are hints and not aliases: an alias
//! would hide a difference in meaning.

/// Fields of an active response, and their equivalents in a policy.
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

/// The equivalent of the unknown field `key`.
pub(super) fn field(key: &str) -> Option<String> {
    let (_, meant) = FIELDS.iter().find(|(word, _)| *word == key)?;
    Some(format!("is Wazuh's word; write {meant}"))
}

/// The equivalent of the location `word`.
pub(super) fn location(word: &str) -> Option<&'static str> {
    match word {
        "local" => Some("Wazuh's local is origin"),
        "defined-agent" | "defined_agent" => Some("Wazuh's defined-agent is {agents: [...]}"),
        _ => None,
    }
}
