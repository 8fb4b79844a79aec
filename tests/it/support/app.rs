//! The manager under test: the real one, in this process, on a port of its own, with a clock that stands until the
//! test moves it.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use riposte::cli::serve::serve;
use riposte::clock::Clock;
use riposte::config::Config;
use riposte::shutdown::Tasks;
use riposte::store::Db;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use super::{Client, Database, FakeAgent, eventually};

/// When every test begins.
pub(crate) const NOW: &str = "2026-11-24T10:00:00Z";

/// A running manager.
pub(crate) struct TestApp {
    pub(crate) base: String,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    serving: JoinHandle<anyhow::Result<bool>>,
    /// Asks it to stop when the test is over.
    stop: DropGuard,
    dir: TempDir,
    database: Database,
}

impl TestApp {
    /// A manager on SQLite, and its administrator.
    pub(crate) async fn start() -> (Self, Client) {
        Self::start_on(Database::sqlite()).await
    }

    /// A manager on `database`, and its administrator.
    pub(crate) async fn start_on(database: Database) -> (Self, Client) {
        Self::start_with(database, |_| ()).await
    }

    /// A manager with a configuration of its own.
    pub(crate) async fn start_with(database: Database, configure: impl FnOnce(&mut Config)) -> (Self, Client) {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        // Most tests tell of alerts and not of their age: the clock stands, and moves by hours and days.
        let max_age = "none".to_owned();
        let mut config = Config { data_dir, database_url: database.url(), max_age, ..Config::default() };
        configure(&mut config);
        Self::run(config, Clock::manual(NOW.parse().unwrap()), dir, database).await
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
        // The listener is open before anybody serves it: the first answer comes when there is one.
        tokio::select! {
            answer = anonymous.get("/readyz") => assert_eq!(answer.status, 200, "{}", answer.text),
            ended = &mut serving => panic!("the manager did not start: {ended:?}"),
        }
        let key = std::fs::read_to_string(config.data_dir.join("admin.key")).unwrap();
        let admin = anonymous.with_key(key.trim());
        (Self { base, clock, config, serving, stop, dir, database }, admin)
    }

    /// Stops the manager gracefully and starts it again on the same data.
    pub(crate) async fn restart(self) -> (Self, Client) {
        let Self { clock, config, serving, stop, dir, database, .. } = self;
        drop(stop);
        let clean = serving.await.unwrap().unwrap();
        assert!(clean, "the manager did not stop in time, or a task of it died");
        Self::run(config, clock, dir, database).await
    }

    /// Where it keeps its keys.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone()
    }

    /// A way into its database that it does not know of.
    pub(crate) async fn db(&self) -> Db {
        Db::open(&self.config.database()).await.unwrap()
    }

    /// Changes the database past the manager; gives how many rows.
    pub(crate) async fn execute(&self, sql: &'static str) -> u64 {
        let mut tx = self.db().await.begin().await.unwrap();
        let rows = tx.execute(sql, vec![]).await.unwrap();
        tx.commit().await.unwrap();
        rows
    }

    /// Moves the time.
    pub(crate) fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// As [`eventually`], with the time going on: for what a sweep or a timer does some seconds later.
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

    /// Enrols an agent with these labels.
    pub(crate) async fn enrol(&self, admin: &Client, name: &str, labels: &Value) -> FakeAgent {
        let token = admin.post("/v1/enrollment-tokens", &json!({"labels": labels})).await.is(201);
        FakeAgent::enrol(self, token["token"].as_str().unwrap(), name, vec![]).await
    }
}

/// The manager's complaints, shown with a test that fails. `RUST_LOG` shows more.
fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
    // Every manager of a test asks for it; the first one gets it.
    let _ = logs.try_init();
}
