//! The network between the programs: a proxy that forwards bytes and can cut, stall, throttle,
//! reset and half-close connections. It never changes a byte: TCP would not deliver a changed one
//! either.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::random::Random;

/// How long the other direction of a half-closed connection stays open.
const HALF_OPEN: Duration = Duration::from_secs(20);

/// The current state of the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// No byte is forwarded.
    pub(crate) stalled: bool,
    /// New connections are reset.
    pub(crate) closed: bool,
    /// Limit of bytes a second in each direction; 0 is no limit.
    pub(crate) bytes_per_second: usize,
}

/// What happens to a connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both sides are reset.
    Reset,
    /// Both sides are closed.
    Close,
    /// The client's direction is closed, the manager's stays open.
    HalfUp,
    /// The manager's direction is closed, the client's stays open.
    HalfDown,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Address that it listens on.
    pub(crate) address: SocketAddr,
    weather: watch::Sender<Weather>,
    cuts: broadcast::Sender<(Cut, u64)>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy before `upstreams`. Each connection goes to one of them by chance, or to the next that accepts it.
    ///
    /// # Errors
    /// If no port is free.
    pub(crate) async fn start(upstreams: Vec<SocketAddr>, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, _) = watch::channel(Weather::default());
        let (cuts, _) = broadcast::channel(64);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, upstreams, weather.clone(), cuts.clone(), seed));
        Ok(Self { address, weather, cuts, _task: task })
    }

    /// Changes the state of the network.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Applies `cut` to `percent` of the open connections.
    pub(crate) fn cut(&self, cut: Cut, percent: u64) {
        let _ = self.cuts.send((cut, percent));
    }
}

async fn accept(
    listener: TcpListener,
    upstreams: Vec<SocketAddr>,
    weather: watch::Sender<Weather>,
    cuts: broadcast::Sender<(Cut, u64)>,
    seed: u64,
) {
    let mut connections = JoinSet::new();
    let random = Arc::new(Mutex::new(Random::new(seed, 77)));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if weather.borrow().closed {
            let _ = client.set_zero_linger();
            continue;
        }
        let line = Line { weather: weather.subscribe(), cuts: cuts.subscribe(), random: Arc::clone(&random) };
        let mut order = upstreams.clone();
        let first = random.lock().unwrap_or_else(PoisonError::into_inner).next();
        order.rotate_left(usize::try_from(first % order.len() as u64).unwrap_or(0));
        connections.spawn(async move { line.carry(client, &order).await });
    }
}

struct Line {
    weather: watch::Receiver<Weather>,
    cuts: broadcast::Receiver<(Cut, u64)>,
    random: Arc<Mutex<Random>>,
}

impl Line {
    async fn carry(mut self, mut client: TcpStream, upstreams: &[SocketAddr]) {
        let Ok(mut manager) = TcpStream::connect(upstreams).await else {
            let _ = client.set_zero_linger();
            return;
        };
        let _ = (client.set_nodelay(true), manager.set_nodelay(true));
        let (up, down) = (tokio_util::sync::CancellationToken::new(), tokio_util::sync::CancellationToken::new());
        let is_reset = {
            let (from_client, to_client) = client.split();
            let (from_manager, to_manager) = manager.split();
            let carried = async {
                tokio::join!(
                    pump(from_client, to_manager, self.weather.clone(), &up),
                    pump(from_manager, to_client, self.weather.clone(), &down)
                );
            };
            tokio::pin!(carried);
            loop {
                tokio::select! {
                    () = &mut carried => break false,
                    cut = self.cuts.recv() => {
                        let Ok((cut, percent)) = cut else { continue };
                        if !self.random.lock().unwrap_or_else(PoisonError::into_inner).chance(percent) {
                            continue;
                        }
                        match cut {
                            Cut::Reset => break true,
                            Cut::Close => break false,
                            Cut::HalfUp => up.cancel(),
                            Cut::HalfDown => down.cancel(),
                        }
                    }
                }
            }
        };
        if is_reset {
            let _ = (client.set_zero_linger(), manager.set_zero_linger());
        }
    }
}

/// Forwards bytes in one direction until an end, an error, or the order to half-close. Then this
/// direction is closed. The connection is dropped when the other direction ends too, or after a
/// time limit.
async fn pump(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    shut: &tokio_util::sync::CancellationToken,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let limit = weather.borrow().bytes_per_second;
        let most = if limit == 0 { buffer.len() } else { (limit / 10).clamp(1, buffer.len()) };
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read,
            () = shut.cancelled() => {
                let _ = to.shutdown().await;
                tokio::time::sleep(HALF_OPEN).await;
                return;
            }
        };
        let Ok(length @ 1..) = read else { break };
        if weather.wait_for(|weather| !weather.stalled).await.is_err() {
            return;
        }
        if limit > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
