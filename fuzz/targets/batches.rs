//! Bodies with several alerts: they are taken apart as a JSON parser would, without a loss.

use riposte::domain::batch::{elements, lines};
use serde_json::value::RawValue;

pub(crate) fn check(input: &[u8]) {
    let taken = elements(input);
    if let Ok(values) = serde_json::from_slice::<Vec<&RawValue>>(input) {
        let expected: Vec<&[u8]> = values.iter().map(|value| value.get().as_bytes()).collect();
        assert_eq!(taken.as_deref(), Some(expected.as_slice()), "two readers of one array");
    }
    if let Some(taken) = taken {
        assert!(taken.iter().all(|element| !element.is_empty() && element.trim_ascii() == *element));
        // Together again, they are taken apart in the same way.
        let again = [b"[".as_slice(), &taken.join(&b','), b"]"].concat();
        assert_eq!(elements(&again).as_ref(), Some(&taken));
        // Around elements a form feed is space too, which JSON does not know.
        let is_plain = !input.contains(&b'\x0c');
        let whole = taken.iter().all(|element| serde_json::from_slice::<&RawValue>(element).is_ok());
        let read = serde_json::from_slice::<Vec<&RawValue>>(input);
        assert!(!is_plain || whole == read.is_ok(), "one bad element, and only that one: {read:?}");
    }
    let lines = lines(input);
    assert!(lines.iter().all(|line| !line.is_empty() && !line.contains(&b'\n')));
    let visible = |bytes: &[u8]| bytes.iter().filter(|byte| !byte.is_ascii_whitespace()).count();
    assert_eq!(lines.iter().map(|line| visible(line)).sum::<usize>(), visible(input), "no byte is lost");
}
