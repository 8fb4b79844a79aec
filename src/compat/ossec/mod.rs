//! Converts a Wazuh manager's `ossec.conf`: active responses become policies, commands actions, the
//! allowlist protected entries. Wazuh's semantics are reproduced first (`xml.rs` parses, `load.rs`
//! and `values.rs` load as Wazuh would), then converted (`programs.rs`, `policies.rs`,
//! `allowlist.rs`). `report.rs` lists the differences.
//!
//! The files are untrusted: any content yields valid documents or an error note.

mod allowlist;
mod load;
mod loaded;
mod policies;
mod programs;
mod report;
#[cfg(test)]
mod tests;
mod values;
mod wazuh_error;
mod xml;

use crate::views::import::Import;

pub use allowlist::Allowlist;
pub use loaded::{ActiveResponse, Command, Load, Loaded, Location, Message};
pub use programs::meaning;
pub use report::Place;
pub use wazuh_error::WazuhError;

/// What an import comes to, with what it is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The documents and the report.
    pub answer: Import,
    /// What Wazuh would load.
    pub wazuh: Loaded,
    /// For each active response that Wazuh would load: the name of its policy, if converted.
    pub carried: Vec<Option<String>>,
}

/// Reads configuration files (name and bytes) as if they were one, in this order. If Wazuh would refuse them, nothing is
/// carried over and the report has every error. Wazuh reads bytes in whatever encoding: those that are no UTF-8 become U+FFFD.
/// Agents' numbers are those of `wazuh_manager`, if it is named: two Wazuh managers both count from 001.
pub fn import(files: &[(String, Vec<u8>)], wazuh_manager: Option<&str>) -> Imported {
    let texts: Vec<(String, String)> =
        files.iter().map(|(name, bytes)| (name.clone(), String::from_utf8_lossy(bytes).into_owned())).collect();
    let mut report = report::ImportReport::new(&texts);
    for (file, (_, bytes)) in files.iter().enumerate() {
        if let Err(error) = std::str::from_utf8(bytes) {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.split(|byte| *byte == b'\n').count();
            report.bad_bytes(Place { file, line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 });
        }
    }
    let wazuh = load::load(&texts, &mut report);
    let mut import = Imported::default();
    if wazuh.load == Load::Ok {
        let programs = programs::carry(&wazuh, &mut report);
        let carried = policies::carry(&wazuh, &programs, wazuh_manager, &mut report);
        import.answer.protected = allowlist::protect(&wazuh.allowlist, &mut report);
        import.answer.policies = carried.documents;
        import.carried = carried.names;
        import.answer.actions = programs.documents;
    }
    import.answer.report = report.into_notes();
    import.wazuh = wazuh;
    import
}
