//! Which agent of Wazuh this host is: `etc/client.keys` of Wazuh's agent has its id and its name, and its key, which stays there.

use std::path::Path;

use riposte_protocol::message::WazuhIdentity;

use crate::platform::guarded;
use crate::platform::places::CLIENT_KEYS;

/// Limit of the file: an agent's has one line.
const MAX_BYTES: u64 = 64 * 1024;

/// The identity of the Wazuh agent in `home`; `None` where there is none, or the host is a Wazuh manager with many.
pub fn of_host(home: &Path) -> Option<WazuhIdentity> {
    let bytes = guarded::read_named(&home.join(CLIENT_KEYS), MAX_BYTES).ok()?;
    of_keys(std::str::from_utf8(&bytes).ok()?)
}

fn of_keys(text: &str) -> Option<WazuhIdentity> {
    let mut agents = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (id, name) = (words.next()?, words.next()?);
        // A removed one has a sign before its name.
        let is_id = (1..=10).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = !name.is_empty() && name.len() <= 256 && !name.starts_with(['!', '#']);
        (is_id && is_name).then(|| WazuhIdentity { id: id.to_owned(), name: name.to_owned() })
    });
    let first = agents.next()?;
    agents.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_one_agent_of_its_keys() {
        let of = |text: &str| of_keys(text).map(|identity| format!("{} {}", identity.id, identity.name));
        assert_eq!(of("005 web-01 any 0123456789abcdef\n").as_deref(), Some("005 web-01"));
        assert_eq!(of("004 !web-00 any 01\n005 web-01 any 23\n").as_deref(), Some("005 web-01"));
        for none in ["", "\n", "005", "x web any k", "001 a any k\n002 b any k\n", "# comment line\n"] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
