//! What stands for a person who was forgotten, and the lists of the entries of the audit log whose texts were removed.
//! Both follow from a key that is not in the database.

use aws_lc_rs::hmac;

use super::ledger_key::LEDGER_KEY_BYTES;

/// Begins the name that a forgotten person gets.
pub const PSEUDONYM_PREFIX: &str = "forgotten-";

/// Digits of a pseudonym, of a hash, and of the code of a list.
const DIGITS: usize = 16;

/// Longest range that is believed: a list is of one batch.
const LONGEST: i64 = 1000;

/// The key that pseudonyms, hashes and the codes of lists follow from.
pub struct ForgettingKey(hmac::Key);

impl std::fmt::Debug for ForgettingKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ForgettingKey")
    }
}

impl ForgettingKey {
    /// From secret bytes.
    pub fn new(bytes: &[u8; LEDGER_KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn digits(&self, parts: &[&str], count: usize) -> String {
        let mut signed = hmac::Context::with_key(&self.0);
        for part in parts {
            signed.update(&(part.len() as u64).to_be_bytes());
            signed.update(part.as_bytes());
        }
        let tag = signed.sign();
        tag.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]).take(count).map(digit).collect()
    }

    /// The pseudonym of a person. A name is given once, so it is of one person.
    pub fn pseudonym(&self, name: &str) -> String {
        format!("{PSEUDONYM_PREFIX}{}", self.digits(&["pseudonym", name], DIGITS))
    }

    /// What is stored of a subject at an OpenID provider whose person was forgotten.
    pub fn former_subject(&self, issuer: &str, subject: &str) -> String {
        format!("{PSEUDONYM_PREFIX}{}", self.digits(&["subject", issuer, subject], 2 * DIGITS))
    }

    /// The list of these entries, which rise, whose texts were removed for `pseudonym`: `12-15, 40; CODE`. No other
    /// program can make one.
    pub fn list(&self, pseudonym: &str, entries: impl IntoIterator<Item = i64>) -> String {
        let list = ranges(entries);
        let code = self.digits(&["list", pseudonym, &list], 2 * DIGITS);
        format!("{list}; {code}")
    }

    /// The entries of a list that this manager, or another one of the ledger, has made.
    pub fn open(&self, pseudonym: &str, text: &str) -> Option<Vec<i64>> {
        let (list, code) = text.rsplit_once("; ")?;
        let expected = self.digits(&["list", pseudonym, list], 2 * DIGITS);
        let is_right: bool = subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), code.as_bytes()).into();
        is_right.then(|| entries_of(list))
    }
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

/// The entries of a list, without a look at its code.
pub fn unproven_entries(text: &str) -> Vec<i64> {
    text.rsplit_once("; ").map_or_else(Vec::new, |(list, _)| entries_of(list))
}

fn ranges(entries: impl IntoIterator<Item = i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for entry in entries {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == entry => *last = entry,
            _ => ranges.push((entry, entry)),
        }
    }
    let text = |(first, last): &(i64, i64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn entries_of(list: &str) -> Vec<i64> {
    let range = |part: &str| -> Option<(i64, i64)> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && last - first < LONGEST).then_some((first, last))
    };
    list.split(", ").filter_map(range).flat_map(|(first, last)| first..=last).collect()
}

#[cfg(test)]
mod tests {
    use super::super::user::is_user_name;
    use super::*;

    fn key(byte: u8) -> ForgettingKey {
        ForgettingKey::new(&[byte; LEDGER_KEY_BYTES])
    }

    #[test]
    fn a_list_names_each_entry_and_is_the_managers() {
        let own = key(7);
        for (entries, list) in [(vec![], ""), (vec![7], "7"), (vec![12, 13, 14, 15, 40, 42, 43], "12-15, 40, 42-43")] {
            let text = own.list("forgotten-1", entries.clone());
            assert!(text.starts_with(&format!("{list}; ")), "{text}");
            assert_eq!((own.open("forgotten-1", &text), unproven_entries(&text)), (Some(entries.clone()), entries));
            assert_eq!((own.open("forgotten-2", &text), key(8).open("forgotten-1", &text)), (None, None));
            assert_eq!(own.open("forgotten-1", &format!("1-900{}", &text[list.len()..])), None);
        }
        assert_eq!(own.open("forgotten-1", "7"), None);
        for wrong in ["x", "3-1", "1-9223372036854775807", "-4", "1-", "1,2"] {
            assert_eq!(entries_of(wrong), Vec::<i64>::new(), "{wrong}");
        }
    }

    #[test]
    fn a_pseudonym_is_a_name_that_follows_from_the_person_and_the_key() {
        let name = key(7).pseudonym("alice");
        assert_eq!((name.len(), is_user_name(&name)), (PSEUDONYM_PREFIX.len() + DIGITS, true));
        assert_eq!(name, key(7).pseudonym("alice"));
        assert!(name != key(7).pseudonym("bob") && name != key(8).pseudonym("alice"));
        assert_ne!(key(7).former_subject("a", "bc"), key(7).former_subject("ab", "c"));
    }
}
