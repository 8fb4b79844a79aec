//! The server under load: the real `riposte serve`, built with the bench, as a child process on
//! loopback. It has its own data directory, all defaults, and authentication on.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::http::{Connection, Door, request};

/// The unit of `/proc/PID/stat`; the same on every Linux target of Rust.
const TICKS_PER_SECOND: f64 = 100.0;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    dir: PathBuf,
    /// Where it listens.
    pub(crate) door: Door,
    /// The first admin key.
    pub(crate) key: String,
    /// From starting the process to its first answer.
    pub(crate) started_in: Duration,
}

impl Server {
    /// Starts a server on `dir`, which may hold the ledger of an earlier one.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(dir, None, None).await
    }

    /// As [`Self::start`], over TLS with a certificate that `riposte tls self-signed` makes.
    pub(crate) async fn start_tls(dir: &Path) -> anyhow::Result<Self> {
        let files = dir.join("tls");
        let mut command = Command::new(env!("CARGO_BIN_EXE_riposte"));
        command.args(["tls", "self-signed", "--name", "127.0.0.1", "--dir"]).arg(&files);
        let made = command.stdout(Stdio::null()).status()?;
        anyhow::ensure!(made.success(), "no certificate could be made");
        Self::start_with(dir, Some(&files), None).await
    }

    /// Starts `count` servers on the database at `url`, each in a folder of its own.
    pub(crate) async fn start_all(dir: &Path, url: &str, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut servers: Vec<Self> = Vec::with_capacity(count);
        for number in 1..=count {
            let home = dir.join(format!("manager-{number}"));
            std::fs::create_dir(&home)?;
            servers.push(Self::start_on(&home, url, servers.first()).await?);
        }
        Ok(servers)
    }

    /// Starts a server on the database at `url`, beside `first` if there is one.
    async fn start_on(dir: &Path, url: &str, first: Option<&Self>) -> anyhow::Result<Self> {
        if let Some(first) = first {
            let (from, data) = (first.dir.join("data"), dir.join("data"));
            std::fs::create_dir(&data)?;
            std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            for name in ["signing.key", "admin.key"] {
                std::fs::copy(from.join(name), data.join(name))?;
            }
        }
        Self::start_with(dir, None, Some(url)).await
    }

    async fn start_with(dir: &Path, tls: Option<&Path>, database: Option<&str>) -> anyhow::Result<Self> {
        // Free now; another program is unlikely to take it within the next milliseconds.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::options().create(true).append(true).open(dir.join("server.log"))?;
        let begun = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_riposte"));
        command.args(["serve", "--listen", &address.to_string(), "--data-dir"]).arg(dir.join("data"));
        // The load's alerts carry a fixed day of their own.
        command.args(["--max-age", "none"]);
        if let Some(url) = database {
            command.args(["--database-url", url]);
        }
        if let Some(files) = tls {
            command.arg("--tls-cert").arg(files.join("cert.pem")).arg("--tls-key").arg(files.join("key.pem"));
        }
        let door = Door { address, tls: tls.map(|files| connector(&files.join("ca.pem"))).transpose()? };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut server = Self { child, dir: dir.to_owned(), door, key: String::new(), started_in: Duration::default() };
        let ask = request("GET", "/readyz", "", "application/json", b"");
        loop {
            if let Ok(mut connection) = Connection::open(&server.door).await
                && connection.exchange(&ask).await.is_ok_and(|answer| answer.status == 200)
            {
                break;
            }
            if begun.elapsed() > START_TIMEOUT || server.child.try_wait()?.is_some() {
                bail!("the server does not answer; see {}", dir.join("server.log").display());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.started_in = begun.elapsed();
        std::fs::read_to_string(dir.join("data/admin.key"))?.trim().clone_into(&mut server.key);
        Ok(server)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join("data/riposte.db")
    }

    /// Stops the server as an administrator would, and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status()?;
        let ended = self.child.wait()?;
        if !asked.success() || !ended.success() {
            bail!("the server did not stop cleanly: {ended}");
        }
        Ok(())
    }

    /// Returns the CPU seconds used so far, in user and kernel mode, over all threads.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

/// A client of TLS that trusts one authority, and resumes no session: each handshake is a whole one.
fn connector(authority: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU seconds of a process so far; `self` is this one.
pub(crate) fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may contain blanks; utime and stime are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')').context("stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}
