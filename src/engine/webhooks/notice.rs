//! What people are told of one event, in chat and by mail. Its texts are tame; how they are written is the business of `chat.rs`.

use serde::{Deserialize, Serialize};

/// Longest text in a notice, in characters: it may come from an attacker.
const LONGEST: usize = 300;

/// What people are told of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// In one line.
    pub(super) title: String,
    /// What else there is to know, a line each.
    pub(super) lines: Vec<String>,
    /// The links by which the person decides.
    pub(super) choice: Option<Choice>,
    /// Whether a person must act.
    pub(super) is_urgent: bool,
}

/// Links to the page on which a response is approved or rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Choice {
    /// With approval chosen.
    pub(super) approve: String,
    /// With rejection chosen.
    pub(super) reject: String,
}

impl Notice {
    /// A notice that tells of nothing.
    pub(super) fn test(webhook: &str, agree: Option<String>) -> Self {
        let title = format!("A test of the webhook {webhook}");
        let lines = std::iter::once("Messages of Riposte come here.".to_owned()).chain(agree).collect();
        Self { title, lines, choice: None, is_urgent: false }
    }
}

/// Text without what could change how a line is shown: control characters, and marks that turn its direction.
pub(crate) fn clean(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let shown: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > LONGEST { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_attackers_are_tame() {
        assert_eq!(clean("a\u{1b}[31m\n\u{202e}b"), "a\u{fffd}[31m\u{fffd}\u{fffd}b");
        assert_eq!(clean(&"x".repeat(400)).chars().count(), LONGEST + 1);
    }
}
