//! Notifications to systemd: the agent is ready, its status, and its watchdog heartbeat. See
//! `sd_notify(3)`: datagrams to the socket that `NOTIFY_SOCKET` names. Without that variable,
//! nothing is sent.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::tasks::Tasks;

/// The agent is ready: it has read its journal, and its lanes run.
pub fn ready() {
    notify("READY=1");
}

/// The agent stops because it was asked to.
pub fn stopping() {
    notify("STOPPING=1\nSTATUS=stopping; what is in force stays in force");
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    notify(&format!("STATUS={text}"));
}

/// Sends the watchdog heartbeat, if systemd asks for it. The thread that does all work sends it, so
/// a hang stops the heartbeat.
pub async fn watch(tasks: &Tasks) {
    let Some(every) = watchdog_period() else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => notify("WATCHDOG=1"),
            () = tasks.stopped() => return,
        }
    }
}

/// Half of systemd's watchdog time-out.
fn watchdog_period() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    // `WATCHDOG_PID` names the process that systemd watches: a child that inherits the variables is
    // not watched.
    let is_meant = std::env::var("WATCHDOG_PID").map_or(Ok(std::process::id()), |pid| pid.parse());
    (micros > 0 && is_meant == Ok(std::process::id())).then(|| Duration::from_micros(micros / 2))
}

fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        tracing::debug!(%error, "systemd could not be notified");
    }
}

fn send(socket: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let address = match socket.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagrams = UnixDatagram::unbound()?;
    // A systemd that does not read must not block the agent.
    datagrams.set_nonblocking(true)?;
    datagrams.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("riposte-test-{}", std::process::id());
        let abstract_name = <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
        for (socket, said_to) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            send(&said_to, "READY=1").unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
    }
}
