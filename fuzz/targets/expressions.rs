//! Conditions in CEL: what is accepted can be stored and evaluated in bounded time, gives the same
//! result each time, and reads no field beside those that it is said to read.

use riposte::domain::expression::{Bindings, EVERYTHING, Expression, Strictness};
use riposte::domain::formats::{self, AlertMappings};

use crate::input::{parts, text};

/// An alert for inputs that bring none.
const ALERT: &[u8] = br#"{"timestamp":"2026-11-24T08:01:07.250+0000","rule":{"level":10,"id":"5763","groups":["sshd","pci_dss_11.4"]},"agent":{"id":"005"},"id":"1","data":{"srcip":"203.0.113.21","srcport":"22","dstuser":"mallory","n":[1,2.5,null,true,{"a":"b"}]}}"#;

/// An expression, and optionally an alert.
pub(crate) fn check(input: &[u8]) {
    let [source, own] = parts(input);
    let source = text(source);
    let parsed = Expression::parse(&source);
    let stored = Expression::read(&source, Strictness::Stored);
    let expression = match (parsed, stored) {
        (Ok(new), stored) => {
            assert_eq!(stored.as_ref(), Ok(&new), "what can be saved can be read at a start");
            assert_eq!(stored.unwrap().why_dead(), None);
            new
        }
        (Err(fault), Ok(stored)) => {
            assert!(!fault.is_empty());
            stored
        }
        (Err(fault), Err(_)) => return assert!(!fault.is_empty()),
    };
    assert!(source.len() <= 2048);
    let mappings = AlertMappings::default();
    let alert = formats::read(own, &mappings, None).or_else(|_| formats::read(ALERT, &mappings, None));
    let (raw, alert) = alert.unwrap();
    let all = Bindings::new(&alert, &raw, &EVERYTHING);
    let some = Bindings::new(&alert, &raw, expression.field_refs());
    let result = |bindings: &Bindings| expression.holds(bindings).map_err(|failure| failure.to_string());
    assert_eq!(result(&all), result(&all), "the same each time");
    assert_eq!(result(&all), result(&some), "with its own fields alone, {:?}", expression.field_refs());
    if let Err(failure) = expression.holds(&all) {
        let text = failure.to_string();
        assert!(!text.contains(char::is_control) && text.len() <= 8 * 300, "{text:?}");
    }
}
