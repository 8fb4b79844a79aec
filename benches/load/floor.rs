//! Limits of this machine without Riposte, measured in the same run: the time of a flush, and of a
//! few bytes to another thread and back over loopback.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use super::report::Samples;

const ROUNDS: usize = 300;

/// Returns milliseconds for appending 4 KiB to a file and flushing them to disk.
pub(crate) fn flush(dir: &Path) -> anyhow::Result<Samples> {
    let path = dir.join("flush");
    let mut file = std::fs::File::options().create(true).append(true).open(&path)?;
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(samples)
}

/// Returns milliseconds for 64 bytes to another thread and back.
pub(crate) fn ping_pong() -> anyhow::Result<Samples> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut peer, _) = listener.accept()?;
    peer.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while peer.read_exact(&mut bytes).is_ok() && peer.write_all(&bytes).is_ok() {}
    });
    let (mut samples, mut bytes) = (Samples::default(), [7; 64]);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    drop(stream);
    let _ = echo.join();
    Ok(samples)
}
