//! Suggests the known word that was probably meant by an unknown one. Both programs use it for text
//! that people write.

/// The word of `known` that was probably meant by `word`: at most two edits away.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|candidate| (edits(word, candidate), candidate));
    scored.filter(|(count, _)| *count <= 2).min().map(|(_, candidate)| candidate)
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
    fn a_misspelt_word_finds_its_neighbour_and_another_one_none() {
        let known = ["firewall-drop", "log-only", "npf", "pf"];
        assert_eq!(nearest("firewal-drop", known), Some("firewall-drop"));
        assert_eq!(nearest("log_only", known), Some("log-only"));
        assert_eq!(nearest("quarantine", known), None);
    }
}
