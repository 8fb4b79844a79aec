//! `/wazuh`: the part of Wazuh's API that playbooks use, so that they change only a URL and credentials.
//!
//! `login.rs` and `caller.rs` are the way in, `active_response.rs` makes responses by hand, `agents.rs` and
//! `about.rs` read. What Wazuh's words mean is in `src/compat/wazuh_api/`; guardrails, rights and scopes are the
//! engine's, as for `POST /v1/responses`. [`shape`] puts every error below `/wazuh` into Wazuh's form.

mod about;
mod active_response;
mod agents;
mod caller;
mod login;
mod refused;
pub mod shape;

use crate::api::front::table::{Table, operations};

/// The operations of this resource.
pub(super) fn routes<T: Table>() -> T {
    T::new()
        .with(operations!(login::issue, login::issue_by_get, login::end))
        .with(operations!(active_response::run))
        .with(operations!(agents::list))
        .with(operations!(agents::summary))
        .with(operations!(about::manager))
        .with(operations!(about::api))
}
