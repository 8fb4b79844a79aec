//! The manager as an isolated host must keep it: its addresses, the resolvers that find it again, and
//! whether it answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;

use super::super::{ActionError, Host, Os};
use crate::platform::network;

/// Time limit for a connection to the manager.
const PROOF: Duration = Duration::from_secs(5);

/// The manager's addresses, and the resolvers that are needed to find it again.
pub(super) async fn managers(host: &Host) -> Result<(Vec<SocketAddr>, Vec<IpAddr>), ActionError> {
    let (mut managers, mut has_name) = (Vec::new(), false);
    for url in &host.managers {
        let url =
            Url::parse(url).map_err(|error| ActionError::Failed(format!("{url} is no manager's URL: {error}")))?;
        let (Some(name), Some(port)) = (url.host_str(), url.port_or_known_default()) else { continue };
        let name = name.trim_matches(['[', ']']);
        has_name |= name.parse::<IpAddr>().is_err();
        let found = tokio::net::lookup_host((name, port)).await;
        let found = found.map_err(|error| ActionError::Refused(format!("{name} has no address here: {error}")))?;
        managers.extend(found);
    }
    managers.sort_unstable();
    managers.dedup();
    if managers.is_empty() {
        return Err(ActionError::Refused("the agent does not know its manager's address".into()));
    }
    let mut resolvers = Vec::new();
    if host.os == Os::Windows {
        resolvers = network::kept_for_isolation(has_name);
    } else if has_name {
        // The second file lists the upstream resolvers of the stub in the first.
        for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
            let text = std::fs::read_to_string(host.path(file)).unwrap_or_default();
            let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
            resolvers.extend(servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()));
        }
        resolvers.retain(|address| !address.is_loopback());
        resolvers.sort_unstable();
        resolvers.dedup();
    }
    Ok((managers, resolvers))
}

/// Whether the manager accepts a connection at one of its addresses.
pub(super) async fn answers(managers: &[SocketAddr]) -> bool {
    let connect = |address: &SocketAddr| tokio::time::timeout(PROOF, tokio::net::TcpStream::connect(*address));
    join_all(managers.iter().map(connect)).await.into_iter().any(|connected| matches!(connected, Ok(Ok(_))))
}
