//! Takes an input apart. Parts are separated by a line, so that an input with several texts can be
//! read and edited in the corpus.

/// The line between two parts.
const SEPARATOR: &[u8] = b"\n---\n";

/// Splits `input` into exactly `N` parts; missing ones are empty, and the last has the rest.
pub(crate) fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    std::array::from_fn(|index| {
        let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        match end.filter(|_| index + 1 < N) {
            Some(end) => {
                let part = &rest[..end];
                rest = &rest[end + SEPARATOR.len()..];
                part
            }
            None => std::mem::take(&mut rest),
        }
    })
}

/// The text of `bytes`, with U+FFFD for what is no UTF-8.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number of the first eight bytes.
pub(crate) fn number(bytes: &[u8]) -> usize {
    bytes.iter().take(7).fold(0, |number, byte| number << 8 | usize::from(*byte))
}
