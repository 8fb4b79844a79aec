//! What Windows shows of the host.

use std::path::Path;

use serde_json::{Value, json};

/// The host's open connections, which are not read here yet.
pub(in super::super) fn host(_proc: &Path) -> Value {
    json!({ "kind": "host", "unseen": "the agent does not read the connections of Windows" })
}
