//! How a response is filed: the case that it belongs to in a system elsewhere, and how far it may be passed on.

use super::fault::Fault;
use super::tlp::Tlp;

/// Maximum length of a case, in characters.
const MAX_CASE: usize = 128;

/// How a response is filed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filing {
    /// The case, such as the number of a ticket.
    pub case: Option<String>,
    /// The label; `None`: that of its policy.
    pub tlp: Option<Tlp>,
}

impl Filing {
    /// Reads what a person or a program writes.
    ///
    /// # Errors
    /// Every fault.
    pub fn read(case: Option<&str>, tlp: Option<&str>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let case = case.map(str::trim).filter(|case| !case.is_empty());
        if case.is_some_and(|case| case.chars().count() > MAX_CASE || case.chars().any(char::is_control)) {
            faults.push(Fault::at("/case", format!("must be one line of at most {MAX_CASE} characters")));
        }
        let label = tlp.map(Tlp::parse);
        if label == Some(None) {
            faults.push(Fault::at("/tlp", format!("must be one of {}", Tlp::ALL.map(Tlp::as_str).join(", "))));
        }
        if faults.is_empty() { Ok(Self { case: case.map(str::to_owned), tlp: label.flatten() }) } else { Err(faults) }
    }

    /// What it says, for people.
    pub fn in_words(&self) -> String {
        let case = self.case.as_ref().map(|case| format!("case {case}"));
        let label = self.tlp.map(|label| format!("tlp:{label}"));
        let words: Vec<String> = case.into_iter().chain(label).collect();
        if words.is_empty() { "no case".to_owned() } else { words.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filing_is_read_and_each_fault_is_named() {
        let filed = Filing::read(Some(" SOC-17 "), Some("TLP:RED")).unwrap();
        assert_eq!(filed.in_words(), "case SOC-17, tlp:red");
        assert_eq!(Filing::read(Some("  "), None), Ok(Filing::default()));
        assert_eq!(Filing::default().in_words(), "no case");
        let faults = Filing::read(Some("a\nb"), Some("white")).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), ["/case", "/tlp"]);
        assert!(Filing::read(Some(&"x".repeat(MAX_CASE)), None).is_ok());
        assert!(Filing::read(Some(&"x".repeat(MAX_CASE + 1)), None).is_err());
    }
}
