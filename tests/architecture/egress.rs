//! Calls of the manager to other hosts leave by `src/engine/egress/`, and only there.

use crate::{code, sources, without_tests};

/// What makes an HTTP client, or resolves and connects by itself.
const MEANS: [&str; 9] = [
    "Client::builder",
    "Client::new(",
    "ClientBuilder",
    "reqwest::get",
    "reqwest::blocking",
    "hyper::client",
    "legacy::Client",
    "lookup_host",
    "to_socket_addrs",
];

/// Files that open sockets: to addresses that `egress` has checked.
const SOCKETS: [&str; 2] = ["src/engine/checkpoint_copies.rs", "src/engine/syslog.rs"];

#[test]
fn the_managers_calls_leave_by_one_module() {
    let (mut clients, mut sockets) = (Vec::new(), Vec::new());
    for (path, text) in sources("src") {
        let text = without_tests(&code(&text)).to_owned();
        // The command line is a client of the manager, and runs with the rights of the person.
        if path.starts_with("src/cli/") || path.contains("/tests") {
            continue;
        }
        clients.extend(MEANS.iter().filter(|means| text.contains(**means)).map(|means| format!("{path}: {means}")));
        if ["TcpStream::connect", "UdpSocket::bind", "TcpSocket"].iter().any(|means| text.contains(means)) {
            sockets.push(path);
        }
    }
    let (inside, outside): (Vec<_>, Vec<_>) = clients.iter().partition(|found| found.starts_with("src/engine/egress/"));
    assert!(outside.is_empty(), "use Egress, which checks the address: {outside:#?}");
    assert!(inside.len() >= 2, "this test no longer finds the client and the resolver: {inside:#?}");
    assert_eq!(sockets, SOCKETS, "connect to what Egress::connectable returns, and list the file here");
}
