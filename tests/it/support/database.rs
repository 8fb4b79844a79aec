//! The two databases. SQLite is a file in the manager's data directory. PostgreSQL is a server of
//! the test's own: it starts in under a second and ends with the test, however the test ends.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::eventually;

#[path = "../../../chaos/src/postgres_programs.rs"]
mod postgres_programs;

/// The database of a manager's ledger.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    Sqlite,
    Postgresql(Arc<Server>),
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite
    }

    /// Starts a fresh PostgreSQL.
    ///
    /// # Panics
    /// If PostgreSQL is not installed, saying what to install.
    pub(crate) async fn postgresql() -> Self {
        Self::Postgresql(Arc::new(Server::start().await))
    }

    /// Returns its PostgreSQL server.
    pub(crate) fn server(&self) -> &Server {
        match self {
            Self::Sqlite => panic!("SQLite has no server"),
            Self::Postgresql(server) => server,
        }
    }

    /// Returns its URL; empty for SQLite, the default.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite => String::new(),
            Self::Postgresql(server) => server.url(),
        }
    }
}

/// Returns an empty cluster to copy. To make one costs a second of processor time, and hundreds of
/// tests need one, so the first test makes it for all.
fn empty_cluster(programs: &Path) -> PathBuf {
    let version = Command::new(programs.join("postgres")).arg("--version").output().unwrap();
    let version: String =
        String::from_utf8(version.stdout).unwrap().chars().filter(char::is_ascii_alphanumeric).collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{version}-empty"));
    let lock = std::fs::File::create(kept.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !kept.exists() {
        // In a folder that an account without rights can reach, and under its name only when it is whole.
        let dir = tempfile::Builder::new().prefix("riposte-initdb-").tempdir().unwrap();
        let (owner, data) = (Owner::of(dir.path()), dir.path().join("data"));
        // The cluster is empty: initdb need not wait for the disk. The manager's commits do.
        let mut init = owner.command(&programs.join("initdb"));
        init.args(["--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        let made = init.args(["--locale=C", "--pgdata"]).arg(&data).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let half = kept.with_extension("half");
        let _ = std::fs::remove_dir_all(&half);
        copy(&data, &half);
        std::fs::rename(&half, &kept).unwrap();
    }
    kept
}

/// Copies a folder with its owner and modes.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).output().unwrap();
    assert!(copied.status.success(), "cp: {}", String::from_utf8_lossy(&copied.stderr));
}

/// A PostgreSQL server that listens on a socket in its own directory and nowhere else.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    dir: TempDir,
}

impl Server {
    async fn start() -> Self {
        let programs = postgres_programs::programs().expect("half of the tests need it");
        let dir = tempfile::Builder::new().prefix("riposte-pg-").tempdir().unwrap();
        let owner = Owner::of(dir.path());
        let data = dir.path().join("data");
        copy(&empty_cluster(&programs), &data);
        let mut serve = owner.command(&programs.join("postgres"));
        serve.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-h", "", "-c", "fsync=on"]);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut server = Self { process, dir };
        server.answers().await;
        server
    }

    fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.dir.path().display())
    }

    /// Sends a signal to the server and to all processes that it has started.
    pub(crate) fn signal(&self, name: &str) {
        let script = r#"for pid in $(pgrep -P "$1") "$1"; do kill -s "$0" "$pid" || true; done"#;
        let sent = Command::new("sh").args(["-c", script, name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Puts a `PgBouncer` in front of it.
    ///
    /// # Panics
    /// If it is not installed, saying what to install.
    pub(crate) async fn pooler(&self, pool_mode: &str) -> Pooler {
        let dir = tempfile::Builder::new().prefix("riposte-pooler-").tempdir().unwrap();
        let owner = Owner::of(dir.path());
        let config = dir.path().join("pgbouncer.ini");
        let (here, server) = (dir.path().display(), self.dir.path().display());
        let text = format!(
            "[databases]\npostgres = host={server} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 5432\n\
             unix_socket_dir = {here}\nauth_type = any\npool_mode = {pool_mode}\n"
        );
        std::fs::write(&config, text).unwrap();
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let program = program.expect("PgBouncer is not installed: apt-get install pgbouncer");
        let process = owner.command(&program).arg("-q").arg(&config).stdin(Stdio::null()).spawn().unwrap();
        let socket = dir.path().join(".s.PGSQL.5432");
        let pooler = Pooler { process, dir };
        eventually("PgBouncer listens", || async { socket.exists().then_some(()) }).await;
        pooler
    }

    async fn answers(&mut self) {
        use sqlx::Connection as _;
        let url = self.url();
        let log = self.dir.path().join("log");
        eventually("PostgreSQL answers", || {
            let ended = self.process.try_wait().unwrap();
            let url = url.clone();
            assert!(ended.is_none(), "PostgreSQL did not start: {}", std::fs::read_to_string(&log).unwrap());
            async move { sqlx::PgConnection::connect(&url).await.ok() }
        })
        .await;
    }
}

impl Drop for Server {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot wait in another way")]
    fn drop(&mut self) {
        // A server that is killed leaves a segment of shared memory behind, and a system has 4096 of them.
        for signal in ["QUIT", "CONT"] {
            let _ = Command::new("kill").args(["-s", signal, &self.process.id().to_string()]).status();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A `PgBouncer` in front of a server.
#[derive(Debug)]
pub(crate) struct Pooler {
    process: Child,
    dir: TempDir,
}

impl Pooler {
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.dir.path().display())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The account of the server: PostgreSQL refuses to run as root.
enum Owner {
    Us,
    Unprivileged,
}

impl Owner {
    /// The account that PostgreSQL runs as; `dir` becomes its own.
    fn of(dir: &Path) -> Self {
        if std::fs::metadata(dir).unwrap().uid() != 0 {
            return Self::Us;
        }
        let id = |flag: &str| -> u32 {
            let id = Command::new("id").args([flag, "nobody"]).output().unwrap();
            String::from_utf8(id.stdout).unwrap().trim().parse().expect("root needs an account called `nobody`")
        };
        chown(dir, Some(id("-u")), Some(id("-g"))).unwrap();
        Self::Unprivileged
    }

    /// Returns a command that ends at once when this process ends, however it ends.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        // PostgreSQL then removes its shared memory, and PgBouncer ends at once too.
        command.args(["--pdeathsig", "QUIT"]);
        if matches!(self, Self::Unprivileged) {
            command.args(["--reuid", "nobody", "--clear-groups"]);
        }
        command.arg(program).current_dir("/");
        command
    }
}
