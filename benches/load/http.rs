//! A minimal HTTP/1.1 client: one keep-alive connection, one request at a time, complete bytes in,
//! status and body out. It reads only what `riposte serve` writes; a general client would cost as
//! much as the server.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use rustls::ProtocolVersion;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection in plain text, or over TLS.
pub(crate) type Wire = Either<TcpStream, TlsStream<TcpStream>>;

/// Where a server listens, and how its certificate is verified if it speaks TLS.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsConnector>,
}

impl Door {
    /// Continues a connected socket: over TLS, with its handshake.
    pub(crate) async fn enter(&self, socket: TcpStream) -> anyhow::Result<Wire> {
        socket.set_nodelay(true)?;
        let Some(connector) = &self.tls else { return Ok(Either::Left(socket)) };
        let stream = connector.connect(IpAddr::from([127, 0, 0, 1]).into(), socket).await?;
        anyhow::ensure!(stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3), "no TLS 1.3");
        Ok(Either::Right(stream))
    }
}

pub(crate) struct Connection {
    stream: Wire,
    buffer: Vec<u8>,
}

/// An HTTP response, in the connection's buffer.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// Builds the bytes of a request.
pub(crate) fn request(method: &str, path: &str, bearer: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {bearer}\r\n\
         content-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl Connection {
    pub(crate) async fn open(door: &Door) -> anyhow::Result<Self> {
        let stream = door.enter(TcpStream::connect(door.address).await?).await?;
        Ok(Self { stream, buffer: vec![0; 4096] })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let (mut filled, mut whole) = (0, None);
        loop {
            if self.buffer.len() == filled {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            filled += read;
            if whole.is_none() {
                whole = head_and_length(&self.buffer[..filled])?;
            }
            if let Some((head, length)) = whole
                && filled >= head + length
            {
                let status = std::str::from_utf8(&self.buffer[9..12])?.parse()?;
                return Ok(Answer { status, body: &self.buffer[head..head + length] });
            }
        }
    }

    /// Sends a JSON body and returns the JSON answer.
    ///
    /// # Errors
    /// If the status is not 2xx.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, bearer: &str, body: &Value) -> anyhow::Result<Value> {
        let request = request(method, path, bearer, "application/json", body.to_string().as_bytes());
        let answer = self.exchange(&request).await?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        Ok(serde_json::from_slice(answer.body)?)
    }
}

/// Returns where the body begins and its length, once the head is complete.
fn head_and_length(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no content-length")?;
    Ok(Some((end + 4, length.parse()?)))
}

/// Returns how many alerts a 202 says were accepted; 0 for any other answer.
pub(crate) fn accepted(answer: &Answer) -> usize {
    const FIELD: &[u8] = b"\"accepted\":";
    if answer.status != 202 {
        return 0;
    }
    let Some(at) = answer.body.windows(FIELD.len()).position(|window| window == FIELD) else { return 0 };
    let digits = answer.body[at + FIELD.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
