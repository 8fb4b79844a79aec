//! Tells Riposte which agents the Wazuh manager has, by their ids and names, whenever the list changes. New agents of Riposte that
//! say which of them they are can then be believed. The keys in the file stay where they are.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use reqwest::Method;
use tokio_util::sync::CancellationToken;

use super::report::own_name;
use crate::cli::client::Remote;
use crate::views::agents::{TakenList, WazuhAgentList, WazuhListed};

/// Interval of looks at the list.
const EVERY: Duration = Duration::from_secs(30);

/// The list of the Wazuh manager whose alerts are at `alerts`, if there is one.
pub(super) fn beside(alerts: &Path) -> Option<PathBuf> {
    let keys = alerts.parent()?.parent()?.parent()?.join("etc/client.keys");
    keys.is_file().then_some(keys)
}

/// Sends the list until `stop`.
pub(super) async fn run(remote: Remote, keys: PathBuf, stop: CancellationToken) {
    let (mut sent, mut is_said) = (None::<SystemTime>, false);
    loop {
        let changed = std::fs::metadata(&keys).and_then(|status| status.modified()).ok();
        if changed.is_some() && changed != sent {
            match send(&remote, &keys).await {
                Ok(TakenList { agents, believed }) => {
                    tracing::info!(
                        "the manager knows {agents} agents of Wazuh; {believed} more of its own are recognised"
                    );
                    (sent, is_said) = (changed, false);
                }
                Err(error) if !is_said => {
                    tracing::warn!("the list of Wazuh's agents could not be sent, and is tried again: {error:#}");
                    is_said = true;
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn send(remote: &Remote, keys: &Path) -> anyhow::Result<TakenList> {
    let text = std::fs::read_to_string(keys)?;
    let manager = own_name()?;
    let list = WazuhAgentList { manager, agents: agents_in(&text) };
    remote.send(Method::PUT, "/v1/wazuh-agents", None, Some(&list)).await?.done()
}

/// The agents of a file of keys. One that was removed has a sign before its name.
fn agents_in(text: &str) -> Vec<WazuhListed> {
    let agent = |line: &str| {
        let mut words = line.split(' ');
        let (id, name) = (words.next()?, words.next()?);
        let is_there = id.parse::<u32>().is_ok() && !name.is_empty() && !name.starts_with(['!', '#']);
        is_there.then(|| WazuhListed { id: id.to_owned(), name: name.to_owned() })
    };
    text.lines().filter_map(agent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_and_names_of_agents_leave_the_host() {
        let list = agents_in("001 web-01 any secret\n002 !gone any secret\n\nbad\n003 db-01 10.0.0.3 secret\n");
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(text, r#"[{"id":"001","name":"web-01"},{"id":"003","name":"db-01"}]"#);
    }
}
