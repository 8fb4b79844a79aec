//! The errors at which Wazuh stops loading a configuration. Its XML errors are all one number; their
//! texts are Wazuh's own.

use serde::Serialize;

/// Wazuh's number for all XML errors.
pub(super) const XML_ERROR: u16 = 1226;
/// Wazuh's message for an XML declaration, which it parses as an element with attributes.
pub(super) const DECLARATION: &str = "XMLERR: Attribute '?' has no value.";

/// An error of Wazuh, with its number and message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WazuhError {
    /// Wazuh's error number; absent for limits of Riposte.
    pub code: Option<u16>,
    /// Wazuh's message.
    pub text: String,
}

impl WazuhError {
    pub(super) fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code: Some(code), text: text.into() }
    }
}
