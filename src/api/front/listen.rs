//! The listener: accepts connections and spawns a task for each. axum's own listener lacks limits
//! on the number of connections, and on the time to send a request or to read the response
//! ([`Connection`]). With a certificate ([`Tls`]) it speaks TLS, with HTTP/1.1 and 2 inside.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONTENT_TYPE, HOST, STRICT_TRANSPORT_SECURITY};
use axum::http::{Extensions, HeaderValue, Request};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::address::TrustedProxies;
use super::connection::{Connection, IsStream};
use super::limits::network;
use super::tls::{H2, Tls};
use crate::domain::client_certificate::Fingerprint;
use crate::shutdown::Tasks;

/// Time limit for a request's head, and idle time between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a head, in bytes: a token and generous headers.
const HEAD_BYTES: usize = 64 * 1024;
/// Delay after the system refused to accept (out of file descriptors, for example).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Time limit for sending a 503 to a refused client.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum concurrent requests on one HTTP/2 connection.
const H2_STREAMS: u32 = 100;
/// Interval of HTTP/2 pings, which find clients that have gone.
const H2_PING: Duration = Duration::from_secs(30);
/// One year, for this host alone: others of its domain may have no certificate.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
const NO_ROOM: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/problem+json\r\n",
    "Content-Length: 160\r\nConnection: close\r\n\r\n",
    r#"{"type":"urn:riposte:problem:unavailable","title":"Overloaded or unavailable","status":503,"#,
    r#""detail":"the limit of open connections is reached; retry after 1 s"}"#,
);

/// Limits on connections: a total, and a maximum per address of connections that are not
/// authenticated yet.
#[derive(Debug)]
pub struct Door {
    room: Arc<Semaphore>,
    unknown: Arc<Unknown>,
    proxies: TrustedProxies,
}

impl Door {
    /// Creates limits of `max_connections` in total and `max_unknown` unauthenticated ones per
    /// address. Addresses of `proxies` have no limit of their own, because many clients share them.
    pub fn new(max_connections: usize, max_unknown: usize, proxies: TrustedProxies) -> Self {
        let unknown = Arc::new(Unknown { most: max_unknown, of: Mutex::default() });
        Self { room: Arc::new(Semaphore::new(max_connections)), unknown, proxies }
    }

    fn enter(&self, peer: IpAddr) -> Option<(OwnedSemaphorePermit, Newcomer)> {
        let newcomer =
            if self.proxies.holds(peer) { Newcomer::default() } else { self.unknown.enter(network(peer))? };
        Some((Arc::clone(&self.room).try_acquire_owned().ok()?, newcomer))
    }
}

/// Counts the unauthenticated connections of each address.
#[derive(Debug)]
struct Unknown {
    most: usize,
    of: Mutex<HashMap<IpAddr, usize>>,
}

impl Unknown {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Newcomer> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of.entry(address).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Newcomer(Arc::new(Mutex::new(Some(Counted { unknown: Arc::clone(self), address })))))
    }
}

/// A connection counted as unauthenticated, until it is dropped.
#[derive(Debug)]
struct Counted {
    unknown: Arc<Unknown>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut of = self.unknown.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.address);
            }
        }
    }
}

/// A connection that is not authenticated yet; handlers find it among the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Newcomer(Arc<Mutex<Option<Counted>>>);

impl Newcomer {
    /// Marks the connection as authenticated: it no longer counts against its address.
    pub fn is_known(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// How a request came; handlers find it among the request's extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Whether the connection ends its TLS here.
    pub is_tls: bool,
    /// The certificate that the client has shown, of a known authority.
    pub certificate: Option<Fingerprint>,
}

/// What a request's extensions say of its connection, for a request that is made in its place.
pub fn connection_of(of: &Extensions) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(peer) = of.get::<ConnectInfo<SocketAddr>>() {
        extensions.insert(*peer);
    }
    if let Some(is_stream) = of.get::<IsStream>() {
        extensions.insert(is_stream.clone());
    }
    if let Some(newcomer) = of.get::<Newcomer>() {
        extensions.insert(newcomer.clone());
    }
    if let Some(transport) = of.get::<Transport>() {
        extensions.insert(*transport);
    }
    extensions
}

/// Serves until `tasks` are asked to stop. Then open requests are finished and new connections are
/// refused.
pub async fn run(listener: TcpListener, router: Router, tasks: &Tasks, door: Door, tls: Option<Arc<Tls>>) {
    let stop = tasks.stopping().clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Disables Nagle: small frames must not wait. A closed socket shows itself soon enough.
        let _ = stream.set_nodelay(true);
        match door.enter(peer.ip()) {
            Some((permit, newcomer)) => {
                let is_stream = IsStream::default();
                let connection = Connection::new(stream, permit, is_stream.clone());
                let client = ClientConnection { peer, is_stream, newcomer, transport: Transport::default() };
                let (router, stop) = (router.clone(), stop.clone());
                match &tls {
                    None => tasks.spawn_short(serve(connection, client, router, stop)),
                    Some(tls) => tasks.spawn_short(serve_tls(tls.acceptor(), connection, client, router, stop)),
                }
            }
            // In a client that expects TLS, a text would look like a port that speaks HTTP.
            None if tls.is_some() => drop(stream),
            None => tasks.spawn_short(refuse(stream)),
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
struct ClientConnection {
    peer: SocketAddr,
    is_stream: IsStream,
    newcomer: Newcomer,
    transport: Transport,
}

/// Serves a connection after the TLS handshake.
async fn serve_tls(
    acceptor: TlsAcceptor,
    connection: Connection<TcpStream>,
    mut client: ClientConnection,
    router: Router,
    stop: CancellationToken,
) {
    // Clients that fail, such as port scanners, need no line in the log.
    let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(connection)).await else {
        tracing::debug!(peer = %client.peer, "a TLS handshake with {} failed", client.peer);
        return;
    };
    let session = connection.get_ref().1;
    let certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| Fingerprint::of(leaf));
    client.transport = Transport { is_tls: true, certificate };
    if session.alpn_protocol() == Some(H2) {
        serve_h2(connection, client, router, stop).await;
    } else {
        serve(connection, client, router, stop).await;
    }
}

/// Serves HTTP/1.1.
async fn serve<S>(connection: S, client: ClientConnection, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| handle(request, client.clone(), router.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            // A client that disconnects or breaks HTTP needs no handling here; hyper has sent a
            // response if possible.
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Serves HTTP/2, which has no limit of its own for a client that asks for nothing.
async fn serve_h2<S>(connection: S, client: ClientConnection, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Clones are held by the requests that are open.
    let (open, asked) = (Arc::new(()), Arc::<AtomicUsize>::default());
    let (held, counter) = (Arc::clone(&open), Arc::clone(&asked));
    let service = service_fn(move |request: Request<Incoming>| {
        counter.fetch_add(1, Ordering::Relaxed);
        let (held, answer) = (Arc::clone(&held), handle(request, client.clone(), router.clone()));
        async move {
            let answer = answer.await;
            // A stream of events is open until its last message.
            answer.map(|response| match response.headers().get(CONTENT_TYPE) {
                Some(kind) if kind == "text/event-stream" => response.map(|body| holding(body, held)),
                _ => response,
            })
        }
    });
    // This function and the service hold one each.
    const NONE_OPEN: usize = 2;
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(H2_PING)
        .serve_connection(TokioIo::new(connection), service);
    tokio::pin!(connection);
    let (mut ending, mut asked_before) = (false, 0);
    loop {
        let is_stopping = tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if !ending => true,
            () = tokio::time::sleep(HEAD_TIMEOUT) => false,
        };
        let asked = asked.load(Ordering::Relaxed);
        let is_idle = asked == asked_before && Arc::strong_count(&open) == NONE_OPEN;
        asked_before = asked;
        if ending && is_idle {
            // It was told to end and has not answered, or has not even begun.
            return;
        }
        if is_stopping || is_idle {
            ending = true;
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// The same body, which holds `held` until it ends.
fn holding(body: Body, held: Arc<()>) -> Body {
    Body::new(body.map_frame(move |frame| {
        std::hint::black_box(&held);
        frame
    }))
}

/// Passes a request to the router, with what is known of its connection.
async fn handle(
    mut request: Request<Incoming>,
    client: ClientConnection,
    mut router: Router,
) -> Result<Response, Infallible> {
    let ClientConnection { peer, is_stream, newcomer, transport } = client;
    // HTTP/2 has the host in the URI; handlers read it in one place.
    let authority = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = authority.filter(|_| !request.headers().contains_key(HOST)) {
        request.headers_mut().insert(HOST, host);
    }
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo(peer));
    extensions.insert(is_stream);
    extensions.insert(newcomer);
    extensions.insert(transport);
    let mut response = router.call(request).await.unwrap_or_else(|never| match never {});
    if transport.is_tls {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
    Ok(response)
}

async fn refuse(mut stream: TcpStream) {
    let _ = tokio::time::timeout(REFUSE_TIMEOUT, stream.write_all(NO_ROOM.as_bytes())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_connection_has_the_right_length() {
        let (head, body) = NO_ROOM.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{} bytes", body.len());
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 503);
    }
}
