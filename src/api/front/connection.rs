//! A client's connection: it holds a permit until it closes, is dropped if the client stops
//! reading, and is rate-limited once upgraded to a stream.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::rate_limit::RateLimit;

/// Time limit for reading [`TAKES_AT_LEAST`] bytes of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Minimum read within that time, in bytes: two kilobytes per second.
const TAKES_AT_LEAST: usize = 64 * 1024;
/// Read rate of a stream: 4 MiB per second. Fragments of a message are limited nowhere else, and a
/// million tiny ones would occupy a core.
const BYTE_EVERY: Duration = Duration::from_nanos(238);
/// Read burst of a stream: more than an agent's longest report and all its results.
const BYTES_AT_ONCE: u32 = 8 * 1024 * 1024;

/// Set when a connection becomes a stream; handlers find it among the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct IsStream(Arc<AtomicBool>);

impl IsStream {
    /// Marks the connection as a stream.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection<S> {
    socket: S,
    /// The write-stall deadline, and the bytes written since it started.
    stuck: Option<(Pin<Box<Sleep>>, usize)>,
    is_stream: IsStream,
    rate_limit: Option<RateLimit>,
    waits: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl<S> Connection<S> {
    /// Wraps a socket with its connection permit.
    pub fn new(socket: S, permit: OwnedSemaphorePermit, is_stream: IsStream) -> Self {
        Self { socket, stuck: None, is_stream, rate_limit: None, waits: None, _permit: permit }
    }

    /// Passes on the result of a write, or fails once the client has read too little for too long.
    fn patiently(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match (&sent, &mut self.stuck) {
            (Poll::Ready(Ok(bytes)), Some((_, taken))) => {
                *taken += bytes;
                if *taken >= TAKES_AT_LEAST {
                    self.stuck = None;
                }
                sent
            }
            (Poll::Ready(_), _) => sent,
            (Poll::Pending, stuck) => {
                let (patience, _) = stuck.get_or_insert_with(|| (Box::pin(tokio::time::sleep(WRITE_TIMEOUT)), 0));
                ready!(patience.as_mut().poll(cx));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(wait) = &mut this.waits {
            ready!(wait.as_mut().poll(cx));
            this.waits = None;
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, into))?;
        let heard = into.filled().len() - before;
        // A client that sends its next request has read the last response.
        this.stuck = None;
        if heard > 0 && this.is_stream.0.load(Ordering::Relaxed) {
            let now = Instant::now();
            let rate_limit = this.rate_limit.get_or_insert_with(|| RateLimit::new(BYTE_EVERY, BYTES_AT_ONCE, now));
            rate_limit.step(heard, now);
            let wait = rate_limit.wait(now);
            if !wait.is_zero() {
                this.waits = Some(Box::pin(tokio::time::sleep(wait)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.patiently(cx, sent)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        this.patiently(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::Semaphore;

    use super::*;

    fn connection(buffer: usize) -> (Connection<DuplexStream>, DuplexStream, Arc<Semaphore>, IsStream) {
        let (permits, is_stream) = (Arc::new(Semaphore::new(1)), IsStream::default());
        let (socket, client) = tokio::io::duplex(buffer);
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        (Connection::new(socket, permit, is_stream.clone()), client, permits, is_stream)
    }

    #[tokio::test(start_paused = true)]
    async fn promise_11_a_client_that_reads_nothing_is_disconnected() {
        let (mut connection, client, permits, _) = connection(1024);
        let begun = tokio::time::Instant::now();
        let error = connection.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::TimedOut, WRITE_TIMEOUT));
        assert_eq!(permits.available_permits(), 0);
        drop((connection, client));
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn promise_11_a_stalled_client_is_disconnected_and_a_slow_one_is_not() {
        for (bytes, pause, is_served) in [(1, 1, false), (64 * 1024, 29, true)] {
            let (mut connection, mut client, _permits, _) = connection(1024);
            let takes = async {
                let mut some = vec![0; bytes];
                while client.read_exact(&mut some).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
            };
            let answer = vec![0; 1024 * 1024];
            tokio::select! {
                sent = connection.write_all(&answer) => assert_eq!(sent.is_ok(), is_served, "{bytes} bytes each {pause} s"),
                () = takes => panic!("the connection is open"),
            }
        }
    }

    #[tokio::test]
    async fn promise_11_a_stream_is_rate_limited_and_a_request_is_not() {
        for is_limited in [false, true] {
            let (mut connection, mut client, _permits, is_stream) = connection(1024 * 1024);
            if is_limited {
                is_stream.set();
            }
            let said = vec![0; 12 * 1024 * 1024];
            let mut heard = said.clone();
            let begun = Instant::now();
            let (sent, read) = tokio::join!(client.write_all(&said), connection.read_exact(&mut heard));
            assert!(sent.is_ok() && read.is_ok());
            // Eight pass at once, the others at four per second; a slow machine takes longer.
            assert!(!is_limited || begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
            assert_eq!(connection.rate_limit.is_some(), is_limited);
        }
    }
}
