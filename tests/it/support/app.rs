//! The manager under test: the real one, in this process, on a port of its own. Its clock stands
//! still until the test moves it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use riposte::cli::serve::serve;
use riposte::clock::Clock;
use riposte::config::Config;
use riposte::domain::ledger_key::LedgerKey;
use riposte::shutdown::Tasks;
use riposte::store::Db;
use riposte::store::seals::whole;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use super::{Client, Database, FakeAgent, eventually};

/// The time at which every test begins.
pub(crate) const NOW: &str = "2026-11-24T10:00:00Z";

/// The password of every person.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running manager.
pub(crate) struct TestApp {
    pub(crate) base: String,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    serving: JoinHandle<anyhow::Result<bool>>,
    /// Stops it when the test is over.
    stop: DropGuard,
    dir: TempDir,
    database: Database,
    /// A connection that the manager does not know, opened while the ledger was whole.
    outside: OnceCell<Db>,
}

impl TestApp {
    /// Starts a manager on SQLite; returns it and its administrator.
    pub(crate) async fn start() -> (Self, Client) {
        Self::start_on(Database::sqlite()).await
    }

    /// Starts a manager on `database`; returns it and its administrator.
    pub(crate) async fn start_on(database: Database) -> (Self, Client) {
        Self::start_with(database, |_| ()).await
    }

    /// Starts a manager with a configuration of its own.
    pub(crate) async fn start_with(database: Database, configure: impl FnOnce(&mut Config)) -> (Self, Client) {
        Self::start_at(NOW.parse().unwrap(), database, configure).await
    }

    /// As [`TestApp::start_with`], at another time.
    pub(crate) async fn start_at(
        now: Timestamp,
        database: Database,
        configure: impl FnOnce(&mut Config),
    ) -> (Self, Client) {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        // Most tests ignore the age of alerts: the clock stands still, and moves by hours and days.
        let max_age = "none".to_owned();
        let mut config = Config::default();
        (config.server.data_dir, config.server.database_url) = (data_dir, database.url());
        config.alerts.max_age = max_age;
        configure(&mut config);
        Self::run(config, Clock::manual(now), dir, database).await
    }

    async fn run(config: Config, clock: Clock, dir: TempDir, database: Database) -> (Self, Client) {
        show_logs();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let stop = tasks.stopping().clone().drop_guard();
        #[expect(clippy::disallowed_methods, reason = "the program under test is no task of the program under test")]
        let mut serving = tokio::spawn(serve(config.clone(), listener, clock.clone(), tasks));
        let anonymous = Client::anonymous(&base);
        // The listener is open before the manager serves it: the first answer comes when it is
        // ready.
        tokio::select! {
            answer = anonymous.get("/readyz") => assert_eq!(answer.status, 200, "{}", answer.text),
            ended = &mut serving => panic!("the manager did not start: {ended:?}"),
        }
        let key = std::fs::read_to_string(config.server.data_dir.join("admin.key")).unwrap();
        let admin = anonymous.with_key(key.trim());
        (Self { base, clock, config, serving, stop, dir, database, outside: OnceCell::new() }, admin)
    }

    /// Stops the manager gracefully and starts it again on the same data.
    pub(crate) async fn restart(self) -> (Self, Client) {
        self.restart_after(async |_, _| ()).await
    }

    /// As [`TestApp::restart`], and does something to its database and its data directory in between.
    pub(crate) async fn restart_after(self, between: impl AsyncFnOnce(Db, PathBuf)) -> (Self, Client) {
        let Self { clock, config, serving, stop, dir, database, .. } = self;
        drop(stop);
        let clean = serving.await.unwrap().unwrap();
        assert!(clean, "the manager did not stop in time, or a task of it died");
        between(Db::open(&config.database()).await.unwrap(), config.server.data_dir.clone()).await;
        Self::run(config, clock, dir, database).await
    }

    /// As [`TestApp::restart`], with rows that grant power changed in between, as an earlier version or the manager itself
    /// would have written them: it accepts them.
    pub(crate) async fn restart_with(self, changes: &[&'static str]) -> (Self, Client) {
        self.restart_after(async |db, data_dir| {
            execute_all(&db, changes).await;
            whole::arm(&db, &ledger_key(&data_dir), Some("for a test"), NOW.parse().unwrap()).await.unwrap();
        })
        .await
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.config.server.data_dir.clone()
    }

    /// Opens a connection to its database that the manager does not know.
    pub(crate) async fn db(&self) -> Db {
        Db::open(&self.config.database()).await.unwrap()
    }

    /// Changes the database behind the manager's back; returns the number of rows.
    pub(crate) async fn execute(&self, sql: &'static str) -> u64 {
        execute_all(self.outside.get_or_init(|| self.db()).await, &[sql]).await
    }

    /// As [`TestApp::execute`], and against the checks of SQLite's columns. It runs beside the test, whose thread the
    /// manager needs to end its own transaction.
    pub(crate) async fn spoil(&self, sql: &'static str) {
        let file = self.data_dir().join("riposte.db");
        let spoiled = tokio::task::spawn_blocking(move || {
            let ledger = rusqlite::Connection::open(file).unwrap();
            ledger.execute_batch("PRAGMA busy_timeout = 30000; PRAGMA ignore_check_constraints = ON").unwrap();
            ledger.execute(sql, []).unwrap()
        });
        assert!(spoiled.await.unwrap() > 0, "{sql} changes nothing");
    }

    /// Advances the clock.
    pub(crate) fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// As [`eventually`], with the clock running: for work that a sweep or a timer does some
    /// seconds later.
    pub(crate) async fn in_time<T, F: Future<Output = Option<T>>>(&self, what: &str, mut look: impl FnMut() -> F) -> T {
        eventually(what, || {
            self.clock.advance(Duration::from_millis(200));
            look()
        })
        .await
    }

    /// A client with a new key of `role`.
    pub(crate) async fn client_with_role(&self, admin: &Client, role: &str) -> Client {
        let made = admin.post("/v1/api-keys", &json!({"name": role, "role": role})).await.is(201);
        admin.with_key(made["key"].as_str().unwrap())
    }

    /// Makes a user of `role` and logs in; returns a client with the access token, which lasts for
    /// 15 minutes.
    pub(crate) async fn session(&self, admin: &Client, name: &str, role: &str) -> Client {
        let user = json!({"name": name, "role": role, "password": PASSWORD});
        admin.post("/v1/users", &user).await.is(201);
        let tokens = admin.post("/v1/auth/token", &json!({"username": name, "password": PASSWORD})).await.is(200);
        admin.with_key(tokens["access_token"].as_str().unwrap())
    }

    /// Makes a user of `role`; returns a client with a personal key, which lasts for 90 days.
    pub(crate) async fn person(&self, admin: &Client, name: &str, role: &str) -> Client {
        let session = self.session(admin, name, role).await;
        session.personal_key("k", role).await
    }

    /// Enrols an agent with these labels.
    pub(crate) async fn enrol(&self, admin: &Client, name: &str, labels: &Value) -> FakeAgent {
        let token = admin.post("/v1/enrollment-tokens", &json!({"labels": labels})).await.is(201);
        FakeAgent::enrol(self, token["token"].as_str().unwrap(), name, vec![]).await
    }
}

/// The manager's warnings, shown with a failing test. `RUST_LOG` shows more.
fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
    // Every manager of a test installs it; the first one succeeds.
    let _ = logs.try_init();
}

/// The key of what is sealed in the ledger.
pub(crate) fn ledger_key(data_dir: &Path) -> LedgerKey {
    let text = std::fs::read_to_string(data_dir.join("signing.key")).unwrap();
    let key = text.lines().find_map(|line| line.strip_prefix("ledger ")).unwrap();
    LedgerKey::new(URL_SAFE_NO_PAD.decode(key).unwrap().try_into().unwrap())
}

/// Executes statements in one transaction; returns the number of rows of the last one.
pub(crate) async fn execute_all(db: &Db, statements: &[&'static str]) -> u64 {
    let (mut tx, mut rows) = (db.begin().await.unwrap(), 0);
    for sql in statements {
        rows = tx.execute(sql, vec![]).await.unwrap();
    }
    tx.commit().await.unwrap();
    rows
}
