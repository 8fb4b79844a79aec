//! The actions Riposte knows: what each takes and what it is aimed at unless a policy says otherwise. How an action
//! is carried out is the agent's business (`agent/src/actions/`); this table is what the manager needs to refuse a
//! policy or a request that no agent could obey.

use riposte_protocol::target::TargetKind;
use serde::Serialize;

use super::alert::TargetField;

/// One action, as the manager knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Action {
    /// Its name, the same as Wazuh's where Wazuh has it.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The kinds of target it takes.
    #[schema(value_type = Vec<String>)]
    pub target_kinds: &'static [TargetKind],
    /// The observable it is aimed at unless the policy names another.
    pub default_target: Option<TargetField>,
    /// Whether it brings something into force that has to be lifted again.
    pub undoable: bool,
    /// Operating systems it runs on.
    pub platforms: &'static [&'static str],
}

/// Every action, by name.
pub const ACTIONS: [Action; 4] = [
    Action {
        name: "disable-account",
        summary: "Locks a local account; lifting it restores exactly the earlier state.",
        target_kinds: &[TargetKind::User],
        default_target: Some(TargetField::DestinationUser),
        undoable: true,
        platforms: &["linux"],
    },
    Action {
        name: "firewall-drop",
        summary: "Drops every packet from an address, to the host and through it.",
        target_kinds: &[TargetKind::Ip],
        default_target: Some(TargetField::SourceIp),
        undoable: true,
        platforms: &["linux"],
    },
    Action {
        name: "log-only",
        summary: "Writes one line to the agent's log and changes nothing.",
        target_kinds: &[
            TargetKind::None,
            TargetKind::Ip,
            TargetKind::User,
            TargetKind::File,
            TargetKind::Process,
            TargetKind::Host,
        ],
        default_target: None,
        undoable: true,
        platforms: &["linux", "macos", "freebsd", "openbsd", "netbsd", "windows"],
    },
    Action {
        name: "route-null",
        summary: "Routes everything to an address into a black hole.",
        target_kinds: &[TargetKind::Ip],
        default_target: Some(TargetField::SourceIp),
        undoable: true,
        platforms: &["linux"],
    },
];

/// The action called `name`.
pub fn action(name: &str) -> Option<&'static Action> {
    ACTIONS.iter().find(|action| action.name == name)
}

/// The word of `known` that `word` was probably meant to be: at most two edits away.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(n, _)| *n <= 2)
        .min()
        .map(|(_, c)| c)
}

/// The Levenshtein distance, on bytes: the words it is used on are ASCII.
fn edits(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_sorted_and_found_by_name() {
        assert!(ACTIONS.is_sorted_by_key(|action| action.name));
        assert_eq!(action("route-null").map(|a| a.name), Some("route-null"));
        assert_eq!(action("firewall-drop600"), None);
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let names = || ACTIONS.iter().map(|action| action.name);
        assert_eq!(nearest("firewal-drop", names()), Some("firewall-drop"));
        assert_eq!(nearest("log_only", names()), Some("log-only"));
        assert_eq!(nearest("netsh", names()), None);
    }
}
