//! Names of accounts: each is the same account in every notation, and the superuser is always
//! protected.

use riposte_protocol::account::Account;
use riposte_protocol::target::{Target, TargetKind};

use crate::input::text;

pub(crate) fn check(input: &[u8]) {
    let text = text(input);
    let account = Account::of(&text);
    assert!(account.may_be(&account));
    let name = account.name();
    assert!(Account::of(name).may_be(&account) && account.may_be(&Account::of(name)), "{name:?} of {text:?}");
    for notation in notations(name) {
        assert!(!is_plain(name) || Account::of(&notation).may_be(&Account::of(name)), "{notation:?} is not {name:?}");
    }
    let Ok(target) = Target::account(&text) else { return };
    let is_superuser = ["root", "system"].contains(&name);
    assert_eq!(target.always_protected().is_some(), is_superuser, "{text:?}");
    if is_superuser {
        for notation in notations(name) {
            let same = Target::named(TargetKind::User, &notation).unwrap();
            assert!(same.always_protected().is_some(), "{notation:?}");
        }
    }
}

/// Whether `name` has no separator, so that a realm can be written around it.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\\', '/', ':', '@']) && name.trim() == name
}

/// Notations of the account `name`, with and without a realm, in other cases.
pub(crate) fn notations(name: &str) -> Vec<String> {
    let other_case = other_case(name);
    vec![
        other_case.clone(),
        format!("corp\\{name}"),
        format!("CORP\\{other_case}"),
        format!("corp/{name}"),
        format!("a.b:{other_case}"),
        format!("{name}@corp.example"),
        format!("{other_case}@CORP"),
    ]
}

/// `name` with each letter in its other case, if that letter has exactly one.
fn other_case(name: &str) -> String {
    let other = |c: char| {
        let (lower, upper): (String, String) = (c.to_lowercase().collect(), c.to_uppercase().collect());
        let other = if upper == c.to_string() { &lower } else { &upper };
        let mut letters = other.chars();
        let one = letters.next().filter(|_| letters.next().is_none());
        // Back again, or it is another letter: `ſ` is `S` in upper case.
        one.filter(|one| one.to_lowercase().chain(one.to_uppercase()).any(|back| back == c)).unwrap_or(c)
    };
    name.chars().map(other).collect()
}
