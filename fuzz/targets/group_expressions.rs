//! Wazuh's group expressions against a second reading of the same rules, one alternative at a time.

use riposte::domain::group_expression::GroupExpression;

use crate::input::{parts, text};

/// An expression, and groups, one a line.
pub(crate) fn check(input: &[u8]) {
    let [source, groups] = parts(input);
    let source = text(source);
    let groups: Vec<String> = text(groups).lines().map(str::to_owned).collect();
    let Ok(expression) = GroupExpression::parse(&source) else { return };
    let json = serde_json::to_value(&expression).unwrap();
    assert_eq!(GroupExpression::parse(json.as_str().unwrap()).as_ref(), Ok(&expression));
    let matches = expression.matches(&groups);
    let alone = |part: &str| GroupExpression::parse(part).is_ok_and(|part| part.matches(&groups));
    // An empty alternative is no expression of its own, and is found in every text.
    let by_parts = source.split('|').any(|part| part.is_empty() || alone(part));
    assert_eq!(matches, by_parts, "{source:?} on {groups:?}");
    // Case and spaces around groups do not count.
    let other: Vec<String> = groups.iter().map(|group| format!(" {} ", group.to_ascii_uppercase())).collect();
    assert_eq!(expression.matches(&other), matches, "{source:?} on {other:?}");
    if let Some(group) = groups.iter().find(|group| group.trim() == source && !source.contains(['^', '$', '|'])) {
        assert!(matches, "the group {group:?} itself");
    }
}
