//! A PostgreSQL server of our own, on a socket in a folder of its own, that can be crashed, stopped
//! and locked.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use sqlx::{Connection as _, PgConnection};

use crate::postgres_programs::programs;
use crate::programs::{PATIENCE, Process, free_address, last_lines, tied};
use crate::sandbox::{self, SlowDisk};

/// The server.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// The postmaster.
    pub(crate) process: Process,
    home: PathBuf,
    programs: PathBuf,
    slow: Option<SlowDisk>,
    /// Address on loopback, beside the socket: a proxy can cut it off.
    pub(crate) address: SocketAddr,
}

impl Postgres {
    /// Creates a cluster below `home` and starts it.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or cannot be started.
    pub(crate) async fn start(home: PathBuf, log: PathBuf, slow: Option<SlowDisk>) -> anyhow::Result<Self> {
        let programs = programs()?;
        std::fs::create_dir_all(&home)?;
        let address = free_address()?;
        let mut server = Self { process: Process::new(log), home, programs, slow, address };
        if server.is_unprivileged() {
            chown(&server.home, Some(65_534), Some(65_534))?;
        }
        let mut init = server.command("initdb");
        init.args(["--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        let made = init.args(["--locale=C", "--pgdata"]).arg(server.home.join("data")).output()?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
        }
        server.run()?;
        server.answers().await?;
        Ok(server)
    }

    /// Whether the server runs as an account without rights: PostgreSQL does not run as root.
    fn is_unprivileged(&self) -> bool {
        !sandbox::is_mapped() && std::fs::metadata(&self.home).is_ok_and(|home| home.uid() == 0 || home.uid() == 65_534)
    }

    fn command(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if sandbox::is_mapped() {
            let mut command = tied(Path::new("unshare"));
            command.args(["--user", "--map-user=1000", "--map-group=1000", "--"]);
            command.args(["setpriv", "--pdeathsig", "SIGQUIT", "--"]).arg(program);
            command
        } else if self.is_unprivileged() {
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "QUIT", "--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(program);
            command
        } else {
            tied(&program)
        };
        command.current_dir("/");
        command
    }

    /// Starts the postmaster, which must not be running.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        let mut serve = self.command("postgres");
        serve.arg("-D").arg(self.home.join("data")).arg("-k").arg(&self.home);
        serve.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        // It is restarted so often that a minute never passes: with the default interval its tables
        // would never be vacuumed.
        serve.args([
            "-c",
            "fsync=on",
            "-c",
            "max_wal_size=256MB",
            "-c",
            "shared_buffers=64MB",
            "-c",
            "autovacuum_naptime=5",
        ]);
        if let Some(slow) = &self.slow {
            slow.attach(&mut serve, "store");
        }
        self.process.start(serve)
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost:{}/postgres?host={}", self.address.port(), self.home.display())
    }

    /// Its URL through a proxy.
    pub(crate) fn url_at(proxy: SocketAddr) -> String {
        format!("postgres://postgres@{proxy}/postgres?sslmode=disable")
    }

    /// Waits until it answers, and restarts it whenever it has ended.
    ///
    /// # Errors
    /// If it does not answer within [`PATIENCE`].
    pub(crate) async fn answers(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.execute(&["SELECT 1"]).await.is_err() {
            if tokio::time::Instant::now() >= deadline {
                bail!("PostgreSQL does not answer:\n{}", last_lines(&self.process.said()));
            }
            if !self.process.is_running() {
                self.run()?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Executes statements.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub(crate) async fn execute(&self, statements: &[&'static str]) -> anyhow::Result<()> {
        let work = async {
            let mut connection = PgConnection::connect(&self.url()).await?;
            for statement in statements {
                sqlx::raw_sql(*statement).execute(&mut connection).await?;
            }
            connection.close().await
        };
        Ok(tokio::time::timeout(Duration::from_secs(5), work).await.context("PostgreSQL is silent")??)
    }

    /// Ends it as in a crash: no checkpoint, every connection lost.
    pub(crate) fn crash(&mut self) {
        self.process.signal(Signal::SIGQUIT);
    }
}
