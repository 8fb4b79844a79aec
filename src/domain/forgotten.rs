//! Which entries of the audit log had their texts removed, as a text of the log: `12-15, 40`.

/// Begins the name that a forgotten person gets.
pub const PSEUDONYM_PREFIX: &str = "forgotten-";

/// The list of these entries, which rise.
pub fn list_of(entries: impl IntoIterator<Item = i64>) -> String {
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

/// Longest range that is believed: a list is of one batch.
const LONGEST: i64 = 1000;

/// The entries of a list; a part that is none is left out.
pub fn entries_of(list: &str) -> Vec<i64> {
    let range = |part: &str| -> Option<(i64, i64)> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && last - first < LONGEST).then_some((first, last))
    };
    list.split(", ").filter_map(range).flat_map(|(first, last)| first..=last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_each_entry() {
        for (entries, list) in [(vec![], ""), (vec![7], "7"), (vec![12, 13, 14, 15, 40, 42, 43], "12-15, 40, 42-43")] {
            assert_eq!(list_of(entries.clone()), list);
            assert_eq!(entries_of(list), entries);
        }
        for wrong in ["x", "3-1", "1-9223372036854775807", "-4", "1-", "1,2"] {
            assert_eq!(entries_of(wrong), Vec::<i64>::new(), "{wrong}");
        }
    }
}
