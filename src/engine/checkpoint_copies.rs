//! Copies of checkpoints elsewhere: a file to append to, a syslog receiver, a webhook. Each place has its
//! own position; what it missed is sent later. A failure is a warning, and delays no other work.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};
use tokio::time::timeout;

use super::Engine;
use super::checkpoint_webhook::CheckpointWebhook;
use super::egress::error::words;
use super::egress::rules::Egress;
use super::syslog::{self, SyslogTls};
use crate::config::{CheckpointPlaces, SyslogAddress};
use crate::domain::checkpoint::Checkpoint;
use crate::domain::egress::allow_list::Destination;
use crate::store::StoreError;
use crate::store::ledger::checkpoints::{self, StoredCheckpoint};

/// Checkpoints that are sent to a place in one round. The rest comes with the next.
const MAX_AT_ONCE: i64 = 1000;
/// Time limit of a round at a place.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of the file's end is read, in bytes: several lines.
const END_BYTES: u64 = 8192;
/// Severity 5 (notice), by RFC 5424.
const NOTICE: u8 = 5;
/// Name of these messages.
const NAME: &str = "checkpoint";

/// The places, and how far each one has come.
#[derive(Debug)]
pub(super) struct CheckpointCopies {
    places: CheckpointPlaces,
    webhook: Option<CheckpointWebhook>,
    /// For a syslog receiver.
    tls: SyslogTls,
    /// The last checkpoint in the file; `None` before the first look.
    in_file: Option<i64>,
    /// The last checkpoint that was sent to the syslog receiver.
    in_syslog: Option<i64>,
    /// The last checkpoint that the webhook has taken.
    in_webhook: Option<i64>,
}

impl CheckpointCopies {
    /// Copies at these places.
    pub(super) fn new(places: CheckpointPlaces, webhook: Option<CheckpointWebhook>) -> Self {
        Self { places, webhook, tls: SyslogTls::default(), in_file: None, in_syslog: None, in_webhook: None }
    }

    /// The last lines of the file, oldest first; none if there is no file, or it cannot be read.
    pub(super) async fn last_lines(&self) -> Vec<String> {
        let Some(path) = self.places.file.clone() else { return Vec::new() };
        tokio::task::spawn_blocking(move || read_end(&path)).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Sends each place what it does not have.
    ///
    /// # Errors
    /// If the checkpoints cannot be read.
    pub(super) async fn send(&mut self, engine: &Engine) -> Result<(), StoreError> {
        if let Some(path) = self.places.file.clone() {
            let from = match self.in_file {
                Some(seq) => seq,
                None => self.position_of_file(engine).await?,
            };
            self.in_file = Some(from);
            let due = checkpoints::after(&engine.db, from, MAX_AT_ONCE).await?;
            let place = format!("the file {}", path.display());
            if let Some(last) = due.last().map(|last| last.seq) {
                let lines: Vec<String> = due.into_iter().map(|StoredCheckpoint { token, .. }| token).collect();
                let writing = tokio::task::spawn_blocking(move || append(&path, &lines));
                let done = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
                let done = done.map_err(|error| error.to_string());
                if report(engine, "checkpoint file", &place, done) {
                    self.in_file = Some(last);
                }
            }
        }
        if let Some(address) = self.places.syslog.clone() {
            let from = match self.in_syslog {
                Some(seq) => seq,
                None => before_last(engine).await?,
            };
            self.in_syslog = Some(from);
            for StoredCheckpoint { seq, token } in checkpoints::after(&engine.db, from, MAX_AT_ONCE).await? {
                let message = syslog::message(NOTICE, engine.clock.now(), NAME, &token);
                let sent = timeout(PATIENCE, emit(&engine.egress, &self.tls, &address, &message)).await;
                let sent = sent.unwrap_or_else(|_| Err(too_slow()));
                let place = format!("the syslog receiver {}", name(&address));
                if !report(engine, "checkpoint syslog", &place, sent) {
                    break;
                }
                self.in_syslog = Some(seq);
            }
        }
        if let Some(webhook) = &self.webhook {
            let from = match self.in_webhook {
                Some(seq) => seq,
                None => before_last(engine).await?,
            };
            self.in_webhook = Some(from);
            let due = checkpoints::after(&engine.db, from, MAX_AT_ONCE).await?;
            if !due.is_empty() {
                let reached = &mut self.in_webhook;
                let posting = async {
                    for checkpoint in &due {
                        webhook.post(checkpoint, engine.clock.now()).await?;
                        *reached = Some(checkpoint.seq);
                    }
                    Ok(())
                };
                let posted = timeout(PATIENCE, posting).await;
                // A slow receiver that took some of a backlog takes the rest in the next rounds.
                let is_moving = self.in_webhook != Some(from);
                let posted = posted.unwrap_or_else(|_| if is_moving { Ok(()) } else { Err(too_slow()) });
                report(engine, "checkpoint webhook", &webhook.place(), posted);
            }
        }
        Ok(())
    }

    /// How far the file has come, by its last line that this ledger knows. A file without one gets the
    /// last checkpoint and what follows.
    async fn position_of_file(&self, engine: &Engine) -> Result<i64, StoreError> {
        let lines = self.last_lines().await;
        for line in lines.iter().rev() {
            let Some(Checkpoint { seq, .. }) = Checkpoint::peek(line) else { continue };
            if checkpoints::at(&engine.db, seq).await?.is_some_and(|stored| stored.token == *line) {
                return Ok(seq);
            }
        }
        let last = checkpoints::last(&engine.db).await?.map_or(0, |last| last.seq);
        Ok(if lines.is_empty() { 0 } else { last - 1 })
    }
}

/// Where a place begins whose position is unknown. What a receiver has cannot be asked: a new start
/// repeats the last checkpoint, which stands for all before.
async fn before_last(engine: &Engine) -> Result<i64, StoreError> {
    Ok(checkpoints::last(&engine.db).await?.map_or(0, |last| last.seq) - 1)
}

fn too_slow() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// Warns when a place begins to fail, and says when it works again. Returns whether it does.
fn report(engine: &Engine, about: &'static str, place: &str, done: Result<(), String>) -> bool {
    let warning = done.err().map(|error| {
        format!("{place} does not take checkpoints of the audit log: {error}. They are stored, and sent when it does")
    });
    let is_well = warning.is_none();
    if engine.health.warn(about, warning.as_deref()) {
        match warning {
            Some(warning) => tracing::warn!("{warning}"),
            None => tracing::info!("{place} takes checkpoints of the audit log again"),
        }
    }
    is_well
}

/// The whole lines at the end of a file, oldest first; none without a file.
fn read_end(path: &Path) -> io::Result<Vec<String>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let from = file.metadata()?.len().saturating_sub(END_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Appends lines durably. A line that was cut short before stays as it is, and the next one begins anew.
fn append(path: &Path, lines: &[String]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    let mut end = [b'\n'];
    if size > 0 {
        file.read_exact_at(&mut end, size - 1)?;
    }
    let begin = if end == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{begin}{}\n", lines.join("\n")).as_bytes())?;
    file.sync_data()
}

fn name(address: &SyslogAddress) -> String {
    match address {
        SyslogAddress::Udp(pair) => format!("udp://{pair}"),
        SyslogAddress::Tcp(pair) => format!("tcp://{pair}"),
        SyslogAddress::Tls(pair) => format!("tls://{pair}"),
        SyslogAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Sends one message. The receiver's host counts as listed, because the configuration names it.
async fn emit(egress: &Egress, tls: &SyslogTls, address: &SyslogAddress, message: &str) -> Result<(), String> {
    let pair = match address {
        SyslogAddress::Udp(pair) | SyslogAddress::Tcp(pair) | SyslogAddress::Tls(pair) => pair,
        SyslogAddress::Unix(path) => {
            let sent = async { UnixDatagram::unbound()?.send_to(message.as_bytes(), path).await };
            return sent.await.map(drop).map_err(|error| error.to_string());
        }
    };
    let (host, port) = pair.rsplit_once(':').unwrap_or((pair, ""));
    let destination = Destination::new(host, port.parse().map_err(|_| format!("{pair} has no port"))?);
    let to = egress.with(&destination).connectable(&destination).await.map_err(|error| words(&error))?;
    match address {
        SyslogAddress::Tls(_) => syslog::send(&to, Some((tls, destination.host())), message).await,
        SyslogAddress::Tcp(_) => syslog::send(&to, None, message).await,
        _ => datagram(&to, message).await.map_err(|error| error.to_string()),
    }
}

async fn datagram(to: &[SocketAddr], message: &str) -> io::Result<()> {
    let to = to.first().ok_or(io::ErrorKind::HostUnreachable)?;
    let any: (IpAddr, u16) =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED.into(), 0) } else { (Ipv6Addr::UNSPECIFIED.into(), 0) };
    UdpSocket::bind(any).await?.send_to(message.as_bytes(), to).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_appended_whole_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        assert_eq!(read_end(&path).unwrap(), Vec::<String>::new());
        append(&path, &["a".into(), "b".into()]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "a\nb\nhal").unwrap();
        append(&path, &["half".into()]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\nhal\nhalf\n");
        assert_eq!(read_end(&path).unwrap(), ["a", "b", "hal", "half"]);
    }
}
