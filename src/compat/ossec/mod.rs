//! A Wazuh manager's `ossec.conf` in Riposte's words: active responses become policies, commands actions, the allowlist
//! protected entries. Wazuh's own semantics are reproduced first (`xml.rs` reads, `load.rs` and `values.rs` say what Wazuh would have
//! loaded), then carried over (`programs.rs`, `policies.rs`, `allowlist.rs`), and `report.rs` says what is different.
//!
//! The files are hostile as far as this is concerned: whatever they hold gives documents that parse, or an error note.

mod allowlist;
mod load;
mod loaded;
mod policies;
mod programs;
mod report;
#[cfg(test)]
mod tests;
mod values;
mod xml;

use serde::Serialize;
use serde_json::Value;

pub use allowlist::Allowlist;
pub use loaded::{ActiveResponse, Command, Load, Loaded, Location, Message, WazuhError};
pub use report::{Level, Note, Place};

/// What files of Wazuh's come to. Nothing in it is stored yet: actions go first, then policies, then protected entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Import {
    /// Policy documents; each can be read with Riposte's own actions and those of `actions`.
    #[schema(value_type = Vec<Object>)]
    pub policies: Vec<Value>,
    /// Documents of custom actions.
    #[schema(value_type = Vec<Object>)]
    pub actions: Vec<Value>,
    /// Protected entries, as `POST /v1/protected` takes them.
    #[schema(value_type = Vec<Object>)]
    pub protected: Vec<Value>,
    /// What there is to say, in the order of the files.
    pub report: Vec<Note>,
    /// What Wazuh itself would have loaded.
    #[serde(skip)]
    pub wazuh: Loaded,
    /// By active response that Wazuh would have loaded: the name of the policy that it became, if it became one.
    #[serde(skip)]
    pub carried: Vec<Option<String>>,
}

/// Reads configuration files (name and bytes) as if they were one, in this order. If Wazuh would refuse them, nothing is
/// carried over and the report has every error. Wazuh reads bytes in whatever encoding: those that are no UTF-8 become U+FFFD.
/// Agents' numbers are those of `wazuh_manager`, if it is named: two Wazuh managers both count from 001.
pub fn import(files: &[(String, Vec<u8>)], wazuh_manager: Option<&str>) -> Import {
    let texts: Vec<(String, String)> =
        files.iter().map(|(name, bytes)| (name.clone(), String::from_utf8_lossy(bytes).into_owned())).collect();
    let mut report = report::Report::new(&texts);
    for (file, (_, bytes)) in files.iter().enumerate() {
        if let Err(error) = std::str::from_utf8(bytes) {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.split(|byte| *byte == b'\n').count();
            report.bad_bytes(Place { file, line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 });
        }
    }
    let wazuh = load::load(&texts, &mut report);
    let mut import = Import::default();
    if wazuh.load == Load::Ok {
        let programs = programs::carry(&wazuh, &mut report);
        let carried = policies::carry(&wazuh, &programs, wazuh_manager, &mut report);
        import.protected = allowlist::protect(&wazuh, &mut report);
        import.policies = carried.documents;
        import.carried = carried.names;
        import.actions = programs.documents;
    }
    import.report = report.into_notes();
    import.wazuh = wazuh;
    import
}
