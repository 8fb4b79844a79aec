//! The listener: accepts connections and spawns a task for each. axum's own listener lacks limits
//! on the number of connections, and on the time to send a request or to read the response
//! ([`Connection`]).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service as _;

use super::address::TrustedProxies;
use super::connection::{Connection, IsStream};
use super::limits::network;
use crate::shutdown::Tasks;

/// Time limit for a request's head, and idle time between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a head, in bytes: a token and generous headers.
const HEAD_BYTES: usize = 64 * 1024;
/// Delay after the system refused to accept (out of file descriptors, for example).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Time limit for sending a 503 to a refused client.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(1);
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

/// Serves until `tasks` are asked to stop. Then open requests are finished and new connections are
/// refused.
pub async fn run(listener: TcpListener, router: Router, tasks: &Tasks, door: Door) {
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
                tasks.spawn_short(serve(connection, peer, (is_stream, newcomer), router.clone(), stop.clone()));
            }
            None => tasks.spawn_short(refuse(stream)),
        }
    }
}

async fn serve(
    connection: Connection<TcpStream>,
    peer: SocketAddr,
    (is_stream, newcomer): (IsStream, Newcomer),
    router: Router,
    stop: tokio_util::sync::CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(is_stream.clone());
        request.extensions_mut().insert(newcomer.clone());
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|never| match never {})) }
    });
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
