//! Messages of syslog (RFC 5424) over TCP and TLS, with their length before them (RFC 6587, RFC 5425).
//!
//! Syslog has no answer. So each message has a connection of its own, and counts as taken when the receiver closes that after
//! our end: it has read everything then. A message whose end is not known is sent again.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::host;

/// Time limit of a message, with its connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a receiver is watched for closing the connection before our end.
const EARLY: Duration = Duration::from_millis(20);
/// Facility 13: log audit.
const FACILITY: u8 = 13;
/// Longest message that receivers are expected to take, in bytes, by RFC 5425.
pub(super) const MAX_MESSAGE: usize = 8192;
/// Longest name of a message, by RFC 5424.
const MAX_NAME: usize = 32;

/// One message of RFC 5424. `name` says what kind it is.
pub(super) fn message(severity: u8, at: Timestamp, name: &str, text: &str) -> String {
    let name: String = name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
    let (priority, host, process) = (FACILITY * 8 + severity, host_name(), std::process::id());
    format!("<{priority}>1 {at} {host} riposte {process} {name} - {text}")
}

/// The name of this host, as a header can hold it.
fn host_name() -> String {
    let name: String = host::name().unwrap_or_default().chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// JSON in ASCII alone: a text in another encoding would have to begin with a byte order mark, at which readers of JSON fail.
pub(super) fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            let mut units = [0; 2];
            text.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// What verifies receivers by the authorities of this host. It is read once, and again after a receiver was not accepted.
#[derive(Clone, Debug, Default)]
pub(super) struct SyslogTls(Arc<Mutex<Option<Arc<ClientConfig>>>>);

impl SyslogTls {
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = kept.as_ref() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(ClientConfig::with_platform_verifier().map_err(|error| error.to_string())?);
        *kept = Some(Arc::clone(&config));
        Ok(config)
    }

    async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connected = TlsConnector::from(self.config()?).connect(name, stream).await;
        connected.map_err(|error| {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
            error.to_string()
        })
    }
}

/// Sends a message to one of these addresses; by TLS to a receiver of this name, if there is one.
///
/// # Errors
/// If the receiver cannot be reached, or does not say that it has read the message.
pub(super) async fn send(to: &[SocketAddr], tls: Option<(&SyslogTls, &str)>, message: &str) -> Result<(), String> {
    let sent = timeout(PATIENCE, async {
        let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
        match tls {
            None => hand_over(stream, message).await.map_err(|error| error.to_string()),
            Some((tls, host)) => {
                let stream = tls.connect(host, stream).await?;
                hand_over(stream, message).await.map_err(|error| error.to_string())
            }
        }
    });
    sent.await.unwrap_or_else(|_| Err(format!("it did not read the message within {} s", PATIENCE.as_secs())))
}

async fn hand_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, message: &str) -> io::Result<()> {
    stream.write_all(format!("{} {message}", message.len()).as_bytes()).await?;
    stream.flush().await?;
    // A receiver that closes before our end has not waited for it, and may have read nothing.
    match timeout(EARLY, closed(&mut stream)).await {
        Ok(Ok(())) => return Err(io::Error::other("it closed the connection before the end of the message")),
        Ok(Err(error)) => return Err(error),
        Err(_) => {}
    }
    stream.shutdown().await?;
    closed(&mut stream).await
}

/// Waits until the receiver closes the connection.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut answer = [0; 512];
    loop {
        match stream.read(&mut answer).await {
            Ok(0) => return Ok(()),
            // Syslog has no answers; what comes is nothing that means something.
            Ok(_) => {}
            // Receivers close the connection without the end of TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_header_of_rfc_5424_and_its_text_is_ascii() {
        let at = Timestamp::from_millis(0);
        let text = message(5, at, "response.created äö and a name that is far too long", &ascii("{\"a\":\"ä😀\"}"));
        let (head, rest) = text.split_once(" riposte ").unwrap();
        assert!(head.starts_with("<109>1 1970-01-01T00:00:00.000Z "), "{head}");
        let expected =
            format!("{} response.createdandanamethatisfa - {{\"a\":\"\\u00e4\\ud83d\\ude00\"}}", std::process::id());
        assert_eq!(rest, expected);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&ascii("{\"a\":\"ä😀\"}")).unwrap()["a"], "ä😀");
    }
}
