//! Names of accounts, as alerts, people and protected entries write them: `alice`, `CORP\alice`,
//! `alice@corp.example`. Two names are compared only here, so that a protected account is protected
//! in every notation.

/// `text` in lower case, letter by letter. [`str::to_lowercase`] looks at the letters around a sigma,
/// also across a separator: `Σ` alone becomes another letter than in `corp:Σ`.
pub fn fold_case(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).map(|letter| if letter == 'ς' { 'σ' } else { letter }).collect()
}

/// A name in a form that can be compared: in lower case, with its realm apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    name: String,
    realm: Option<String>,
}

impl Account {
    /// Parses a name. The part before the last `\`, `/` or `:`, or after the first `@`, is its
    /// realm.
    pub fn of(text: &str) -> Self {
        let whole = fold_case(text.trim());
        let filled = |parts: &(&str, &str)| !parts.0.is_empty() && !parts.1.is_empty();
        // A separator at the start or the end separates nothing.
        let mut splits = whole.rmatch_indices(['\\', '/', ':']).map(|(at, _)| (&whole[..at], &whole[at + 1..]));
        let before = splits.find(filled);
        let (realm, rest) = before.map_or((None, whole.as_str()), |(realm, rest)| (Some(realm), rest));
        let behind = rest.split_once('@').filter(filled);
        let (name, realm) = behind.map_or((rest, realm), |(name, suffix)| (name, realm.or(Some(suffix))));
        Self { name: name.trim().to_owned(), realm: realm.map(|realm| realm.trim().to_owned()) }
    }

    /// The name without its realm, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both may be the same account: the names are equal, and so are the realms if both
    /// have one. `CORP` and `corp.example` are one realm.
    pub fn may_be(&self, other: &Self) -> bool {
        let same_realm = match (&self.realm, &other.realm) {
            (Some(one), Some(other)) => {
                let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
                short == long || (!short.contains('.') && long.split('.').next() == Some(short))
            }
            _ => true,
        };
        self.name == other.name && same_realm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_same_however_it_is_written() {
        for (one, other, same) in [
            ("alice", "ALICE", true),
            ("alice", "CORP\\alice", true),
            ("alice", "Alice@corp.example", true),
            ("alice", " alice ", true),
            ("CORP\\alice", "alice@corp.example", true),
            ("CORP\\alice", "corp/ALICE", true),
            ("corp.example\\alice", "alice@CORP", true),
            ("CORP\\alice", "OTHER\\alice", false),
            ("CORP\\alice", "alice@corporation.example", false),
            ("corp.example\\alice", "alice@corp.other", false),
            ("alice", "alice2", false),
            ("alice", "arn:aws:iam::123456789012:user/alice", true),
            ("root", "arn:aws:iam::123456789012:root", true),
            ("Müller", "mÜLLER", true),
            ("corp:Σ", "σ", true),
            ("ΑΛΕΞΙΟΣ", "αλεξιοσ@corp", true),
            ("CORP\\", "corp\\", true),
            ("@corp", "corp", false),
            ("corp/alice@\\", "alice", true),
        ] {
            assert_eq!(Account::of(one).may_be(&Account::of(other)), same, "{one} and {other}");
            assert_eq!(Account::of(other).may_be(&Account::of(one)), same, "{other} and {one}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_name_may_be_itself(text in "[a-zA-Z@\\\\/:. ]{0,12}") {
            let account = Account::of(&text);
            proptest::prop_assert!(account.may_be(&account));
            proptest::prop_assert!(Account::of(account.name()).may_be(&account));
        }
    }
}
