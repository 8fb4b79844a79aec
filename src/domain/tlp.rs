//! The Traffic Light Protocol 2.0 (<https://www.first.org/tlp/>): how far something may be passed on.

use std::fmt;

/// A label, from what may be passed on freely to what may not be passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tlp {
    /// To everyone.
    Clear,
    /// To the community.
    Green,
    /// To the organisation and its clients; what nothing else is said of.
    #[default]
    Amber,
    /// To the organisation.
    AmberStrict,
    /// To no one.
    Red,
}

impl Tlp {
    /// All labels, in that order.
    pub const ALL: [Self; 5] = [Self::Clear, Self::Green, Self::Amber, Self::AmberStrict, Self::Red];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Green => "green",
            Self::Amber => "amber",
            Self::AmberStrict => "amber+strict",
            Self::Red => "red",
        }
    }

    /// Whether it is what counts where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Parses a name, also with `TLP:` before it and in capitals.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix("tlp:").unwrap_or(&text);
        Self::ALL.into_iter().find(|label| label.as_str() == text)
    }
}

impl serde::Serialize for Tlp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Tlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_people_write_them_and_are_in_order() {
        assert_eq!(Tlp::parse("TLP:AMBER+STRICT"), Some(Tlp::AmberStrict));
        assert_eq!(Tlp::parse(" red "), Some(Tlp::Red));
        assert_eq!(Tlp::parse("white"), None);
        for label in Tlp::ALL {
            assert_eq!(Tlp::parse(label.as_str()), Some(label));
        }
        assert!(Tlp::ALL.is_sorted() && Tlp::default() == Tlp::Amber);
    }
}
