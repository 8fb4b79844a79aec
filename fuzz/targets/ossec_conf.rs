//! `ossec.conf`: whatever a file holds, the import yields documents that can be stored, or says why
//! not.

use riposte::compat::ossec::{Imported, Load, import};
use riposte::domain::action::{Action, Catalogue};
use riposte::domain::policy::Policy;
use riposte::domain::protected_document::ProtectedDocument;
use riposte::views::import::Level;

use crate::input::parts;

/// Two files of one configuration; the second may be missing.
pub(crate) fn check(input: &[u8]) {
    let [first, second] = parts(input);
    let mut files = vec![("ossec.conf".to_owned(), first.to_vec())];
    if !second.is_empty() {
        files.push(("shared.conf".to_owned(), second.to_vec()));
    }
    let imported = import(&files, None);
    assert_eq!(import(&files, None), imported, "the same each time");
    stored(&imported);
    let lines = files.iter().map(|(_, bytes)| bytes.split(|byte| *byte == b'\n').count()).max().unwrap();
    for note in &imported.answer.report {
        assert!(!note.message.is_empty());
        assert!(note.line.is_none_or(|line| (1..=lines).contains(&usize::try_from(line).unwrap())), "{note:?}");
    }
}

fn stored(imported: &Imported) {
    let answer = &imported.answer;
    if imported.wazuh.load != Load::Ok {
        assert!(answer.policies.is_empty() && answer.actions.is_empty() && answer.protected.is_empty());
        assert!(answer.report.iter().any(|note| note.level == Level::Error), "a refusal without a reason");
        return;
    }
    let actions: Vec<Action> = answer.actions.iter().map(|document| Action::parse(document).unwrap()).collect();
    let catalogue = Catalogue::with(actions);
    let mut names = Vec::new();
    for document in &answer.policies {
        let policy = Policy::parse(document, &catalogue).unwrap_or_else(|faults| panic!("{document}: {faults:?}"));
        assert!(!names.contains(&policy.name), "two policies are called {}", policy.name);
        names.push(policy.name);
    }
    for name in imported.carried.iter().flatten() {
        assert!(names.contains(name), "{name} was not converted");
    }
    for document in &answer.protected {
        let entry = ProtectedDocument::parse(document, None);
        assert!(entry.is_ok(), "{document}: {entry:?}");
    }
}
