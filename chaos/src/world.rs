//! The test environment: a manager on its database, agents, two proxies between them, and the
//! functions that inject faults.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::api::{Api, http};
use crate::faults::{Database, Fault, FaultKind};
use crate::forwarder::Forwarder;
use crate::peer::Peer;
use crate::plan::{Network, Plan, name_of};
use crate::postgres::Postgres;
use crate::programs::{Agent, Manager};
use crate::proxy::{Cut, Proxy};
use crate::sandbox::{Disk, SlowDisk};

/// Size of the store's disk, in bytes: a million alerts with all that follows from them take about
/// 6 GB in PostgreSQL. It uses memory only as it is filled.
const STORE_BYTES: u64 = 12 << 30;
/// Size of the disk that all agents share, in bytes.
const AGENTS_BYTES: u64 = 2 << 30;

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) manager: Manager,
    /// The other managers on its database.
    pub(crate) peers: Vec<Peer>,
    /// The server of the database; `None` on SQLite.
    pub(crate) postgres: Option<Postgres>,
    pub(crate) agents: Vec<Agent>,
    /// The forwarder, once it is started.
    pub(crate) forwarder: Option<Forwarder>,
    /// Proxy between the agents and the manager.
    pub(crate) network: Proxy,
    /// Proxy between the load and the manager.
    pub(crate) pipeline: Proxy,
    /// Client of the manager, without the proxies.
    pub(crate) api: Api,
    /// The disk of the ledger.
    pub(crate) store: Disk,
    agents_disk: Disk,
    slow: Option<SlowDisk>,
    lock: Option<Lock>,
    /// Faults that could not be injected here, with the reason.
    pub(crate) not_injected: Vec<String>,
    /// How often a manager ended because its database was away, and was started again.
    pub(crate) started_again: usize,
    home: tempfile::TempDir,
}

/// Another process that holds the database.
#[derive(Debug)]
enum Lock {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl World {
    /// Starts everything and waits until every agent has connected.
    ///
    /// # Errors
    /// If any part of it fails.
    pub(crate) async fn build(database: Database, managers: usize, plan: &Plan) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("riposte-chaos-").tempdir()?;
        let at = |name: &str| home.path().join(name);
        // PostgreSQL runs as another account, which must be able to reach its folder.
        std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let store = Disk::mount(&at("store"), STORE_BYTES)?;
        let agents_disk = Disk::mount(&at("agents"), AGENTS_BYTES)?;
        let slow = SlowDisk::build(home.path());
        let (data, postgres) = match database {
            Database::Sqlite => (at("store").join("data"), None),
            Database::Postgres => {
                let server = Postgres::start(at("store").join("pg"), at("postgres.log"), slow.clone()).await?;
                (at("data"), Some(server))
            }
        };
        let url = postgres.as_ref().map(Postgres::url);
        let mut manager = Manager::new(data, at("manager.log"), url, slow.clone())?;
        let http = http()?;
        manager.start()?;
        manager.is_ready(&http).await?;
        let api = Api { http, base: format!("http://{}", manager.address), key: manager.key()? };
        api.post("/v1/actions", &Plan::action()).await?;
        api.post("/v1/protected", &Plan::protected(Network::SHIELDED)).await?;
        for policy in plan.policies() {
            api.post("/v1/policies", &policy).await?;
        }
        let mut peers = Vec::new();
        for number in 2..=managers {
            let server = postgres.as_ref().context("several managers need PostgreSQL")?;
            peers.push(Peer::start(home.path(), number, &manager, server, &api.http).await?);
        }
        let all: Vec<_> = peers.iter().map(|peer| peer.manager.address).chain([manager.address]).collect();
        let network = Proxy::start(all.clone(), plan.seed).await?;
        let pipeline = Proxy::start(all, plan.seed ^ 1).await?;
        let agents = enroll(&api, &network, plan, home.path(), slow.as_ref()).await?;
        let not_injected = match &slow {
            Some(_) => vec![],
            None => vec!["slow and failing flushes: cc is not installed".to_owned()],
        };
        let lock = None;
        let world = Self {
            manager,
            peers,
            postgres,
            agents,
            forwarder: None,
            network,
            pipeline,
            api,
            store,
            agents_disk,
            slow,
            lock,
            not_injected,
            started_again: 0,
            home,
        };
        Ok(world)
    }

    /// Starts the forwarder, which sends over the pipeline's network.
    ///
    /// # Errors
    /// If it does not begin.
    pub(crate) async fn forward(&mut self, plan: &Plan) -> anyhow::Result<&Forwarder> {
        let base = format!("http://{}", self.pipeline.address);
        let forwarder = Forwarder::begin_in(self.home.path(), plan, &self.api, &base).await?;
        Ok(self.forwarder.insert(forwarder))
    }

    /// Begins a fault.
    ///
    /// # Errors
    /// If it cannot be injected.
    pub(crate) async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            FaultKind::ManagerKilled => self.manager.process.kill9(),
            FaultKind::ManagerStopped => self.manager.process.signal(Signal::SIGTERM),
            FaultKind::ManagerPaused => self.manager.process.signal(Signal::SIGSTOP),
            FaultKind::AgentsKilled => self.chosen(fault).for_each(|agent| agent.process.kill9()),
            FaultKind::AgentsStopped => self.chosen(fault).for_each(|agent| agent.process.signal(Signal::SIGTERM)),
            FaultKind::AgentsPaused => self.chosen(fault).for_each(|agent| agent.process.signal(Signal::SIGSTOP)),
            FaultKind::NetworkReset => self.network.cut(Cut::Reset, fault.percent),
            FaultKind::NetworkClosed => self.network.cut(Cut::Close, fault.percent),
            FaultKind::NetworkHalfClosed => self.network.cut(fault.cut, fault.percent),
            FaultKind::NetworkStalled => self.network.change(|weather| weather.stalled = true),
            FaultKind::NetworkThrottled => {
                let bytes_per_second = usize::try_from(fault.amount).unwrap_or(usize::MAX);
                self.network.change(|weather| weather.bytes_per_second = bytes_per_second);
            }
            FaultKind::NetworkRefusing => {
                self.network.change(|weather| weather.closed = true);
                self.network.cut(Cut::Reset, 100);
            }
            FaultKind::PipelineReset => self.pipeline.cut(Cut::Reset, 100),
            FaultKind::PipelineStalled => self.pipeline.change(|weather| weather.stalled = true),
            FaultKind::StoreFull => self.store.fill()?,
            FaultKind::StoreSlow => self.flushes("store", i64::try_from(fault.amount)?)?,
            FaultKind::StoreFlushFails => self.flushes("store", -1)?,
            FaultKind::StoreReadOnly => self.protect(true).await?,
            FaultKind::StoreLocked => self.lock = Some(self.take_lock().await?),
            FaultKind::PostgresCrashed => self.postgres()?.crash(),
            FaultKind::PostgresRestarted => self.postgres()?.process.signal(Signal::SIGINT),
            FaultKind::PostgresDisconnects => {
                const EVERYBODY: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
                self.postgres()?.execute(&[EVERYBODY]).await?;
            }
            FaultKind::AgentsDiskFull => self.agents_disk.fill()?,
            FaultKind::AgentsDiskSlow => self.flushes("agents", i64::try_from(fault.amount)?)?,
            FaultKind::AgentsFlushFails => self.flushes("agents", -1)?,
            FaultKind::ForwarderKilled
            | FaultKind::ForwarderKilledAtRotation
            | FaultKind::ForwarderPaused
            | FaultKind::ForwarderDiskFull => self.forwarder()?.begin(fault)?,
            FaultKind::NodeKilled => self.peer(fault).manager.process.kill9(),
            FaultKind::NodePaused => self.peer(fault).manager.process.signal(Signal::SIGSTOP),
            FaultKind::NodeCutOff => self.peer(fault).link.change(|weather| weather.stalled = true),
            FaultKind::SigningKeyRotated => drop(self.api.post("/v1/signing-key/rotation", &json!({})).await?),
            FaultKind::AgentsKeysRotated => {
                for number in &fault.agents {
                    let path = format!("/v1/agents/{}/rotate-key", self.agents[*number].id);
                    self.api.post(&path, &json!({})).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends a fault: repairs what it broke.
    ///
    /// # Errors
    /// If the repair fails.
    pub(crate) async fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            FaultKind::ManagerKilled => self.manager.start()?,
            FaultKind::ManagerStopped => {
                // Whether it ends in time depends on its load; it has a deadline of its own.
                self.manager.process.end(Signal::SIGTERM, Duration::from_secs(2)).await;
                self.manager.start()?;
            }
            FaultKind::ManagerPaused => self.manager.process.signal(Signal::SIGCONT),
            FaultKind::ForwarderKilled
            | FaultKind::ForwarderKilledAtRotation
            | FaultKind::ForwarderPaused
            | FaultKind::ForwarderDiskFull => self.forwarder()?.end(fault)?,
            FaultKind::NodeKilled => self.peer(fault).manager.start()?,
            FaultKind::NodePaused => self.peer(fault).manager.process.signal(Signal::SIGCONT),
            FaultKind::NodeCutOff => self.peer(fault).link.change(|weather| weather.stalled = false),
            FaultKind::AgentsKilled | FaultKind::AgentsStopped => {
                for agent in self.chosen(fault) {
                    agent.start()?;
                }
            }
            FaultKind::AgentsPaused => self.chosen(fault).for_each(|agent| agent.process.signal(Signal::SIGCONT)),
            FaultKind::NetworkReset
            | FaultKind::NetworkClosed
            | FaultKind::NetworkHalfClosed
            | FaultKind::PipelineReset
            | FaultKind::PostgresDisconnects
            | FaultKind::SigningKeyRotated
            | FaultKind::AgentsKeysRotated => {}
            FaultKind::NetworkStalled => self.network.change(|weather| weather.stalled = false),
            FaultKind::NetworkThrottled => self.network.change(|weather| weather.bytes_per_second = 0),
            FaultKind::NetworkRefusing => self.network.change(|weather| weather.closed = false),
            FaultKind::PipelineStalled => self.pipeline.change(|weather| weather.stalled = false),
            FaultKind::StoreFull => {
                self.store.free()?;
                self.revive_store().await?;
            }
            FaultKind::StoreSlow => self.flushes("store", 0)?,
            FaultKind::StoreFlushFails => {
                self.flushes("store", 0)?;
                self.revive_store().await?;
            }
            FaultKind::StoreReadOnly => self.protect(false).await?,
            FaultKind::StoreLocked => self.let_go().await,
            FaultKind::PostgresCrashed | FaultKind::PostgresRestarted => self.revive_store().await?,
            FaultKind::AgentsDiskFull => self.agents_disk.free()?,
            FaultKind::AgentsDiskSlow | FaultKind::AgentsFlushFails => self.flushes("agents", 0)?,
        }
        Ok(())
    }

    /// Starts managers again that ended because their database was away, as their unit would.
    ///
    /// # Errors
    /// If one cannot be started.
    pub(crate) fn supervise(&mut self) -> anyhow::Result<()> {
        for manager in std::iter::once(&mut self.manager).chain(self.peers.iter_mut().map(|peer| &mut peer.manager)) {
            if manager.process.has_no_database() {
                manager.start()?;
                self.started_again += 1;
            }
        }
        Ok(())
    }

    /// Starts each program that has ended unexpectedly; returns their names.
    ///
    /// # Errors
    /// If one cannot be started.
    pub(crate) async fn revive(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ended = Vec::new();
        self.revive_store().await?;
        if !self.manager.process.is_running() {
            ended.push("manager".to_owned());
            self.manager.start()?;
        }
        self.manager.is_ready(&self.api.http).await?;
        for (nth, peer) in self.peers.iter_mut().enumerate() {
            if !peer.manager.process.is_running() {
                ended.push(format!("manager {}", nth + 2));
                peer.manager.start()?;
            }
            peer.manager.is_ready(&self.api.http).await?;
        }
        if let Some(forwarder) = &mut self.forwarder
            && !forwarder.process.is_running()
        {
            ended.push("forwarder".to_owned());
            forwarder.start()?;
        }
        for agent in &mut self.agents {
            if !agent.process.is_running() {
                ended.push(agent.name.clone());
                agent.start()?;
            }
        }
        Ok(ended)
    }

    fn chosen<'a>(&'a mut self, fault: &'a Fault) -> impl Iterator<Item = &'a mut Agent> {
        let numbered = self.agents.iter_mut().enumerate();
        numbered.filter(|(number, _)| fault.agents.contains(number)).map(|(_, agent)| agent)
    }

    /// The other manager that a fault is about.
    fn peer(&mut self, fault: &Fault) -> &mut Peer {
        let chosen = usize::try_from(fault.amount).unwrap_or(0) % self.peers.len();
        &mut self.peers[chosen]
    }

    fn forwarder(&mut self) -> anyhow::Result<&mut Forwarder> {
        self.forwarder.as_mut().context("a fault of the forwarder without one")
    }

    fn postgres(&mut self) -> anyhow::Result<&mut Postgres> {
        self.postgres.as_mut().context("a fault of PostgreSQL without a PostgreSQL")
    }

    fn flushes(&self, name: &str, millis: i64) -> anyhow::Result<()> {
        self.slow.as_ref().map_or(Ok(()), |slow| slow.set(name, millis))
    }

    /// Restarts a server that a full or failing disk has ended, as its own unit would.
    pub(crate) async fn revive_store(&mut self) -> anyhow::Result<()> {
        match &mut self.postgres {
            Some(server) => server.answers().await,
            None => Ok(()),
        }
    }

    /// A file system cannot be made read-only with an open file, so the manager is killed and
    /// restarted on it.
    async fn protect(&mut self, read_only: bool) -> anyhow::Result<()> {
        if let Some(server) = &self.postgres {
            const ON: &str = "ALTER SYSTEM SET default_transaction_read_only = on";
            const OFF: &str = "ALTER SYSTEM RESET default_transaction_read_only";
            return server.execute(&[if read_only { ON } else { OFF }, "SELECT pg_reload_conf()"]).await;
        }
        self.manager.process.kill9();
        self.store.protect(read_only)?;
        self.manager.start()
    }

    async fn take_lock(&self) -> anyhow::Result<Lock> {
        if let Some(server) = &self.postgres {
            let mut connection = PgConnection::connect(&server.url()).await?;
            sqlx::raw_sql("BEGIN; LOCK TABLE audit_head IN EXCLUSIVE MODE").execute(&mut connection).await?;
            return Ok(Lock::Postgres(connection));
        }
        let url = format!("sqlite:{}", self.manager.data.join("riposte.db").display());
        let mut connection = SqliteConnection::connect(&url).await?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await?;
        Ok(Lock::Sqlite(connection))
    }

    async fn let_go(&mut self) {
        // The lock ends with its connection, even after an error.
        match self.lock.take() {
            Some(Lock::Sqlite(connection)) => drop(connection.close().await),
            Some(Lock::Postgres(connection)) => drop(connection.close().await),
            None => {}
        }
    }
}

async fn enroll(
    api: &Api,
    network: &Proxy,
    plan: &Plan,
    home: &Path,
    slow: Option<&SlowDisk>,
) -> anyhow::Result<Vec<Agent>> {
    let count = usize::try_from(plan.agents)?;
    let token = home.join("token");
    std::fs::write(&token, api.token(count).await?)?;
    let url = format!("http://{}", network.address);
    let mut agents = Vec::with_capacity(count);
    for number in 0..plan.agents {
        let name = name_of(number);
        let folders = (home.join("agents").join(&name), home.join("programs").join(&name));
        let log = home.join(format!("{name}.log"));
        let mut agent = Agent::enroll(&url, &token, &name, folders, log, slow.cloned())?;
        agent.start()?;
        agents.push(agent);
    }
    for agent in &agents {
        let deadline = tokio::time::Instant::now() + crate::programs::PATIENCE;
        while api.get(&format!("/v1/agents/{}", agent.id)).await?["streaming"] != json!(true) {
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "{} does not stream", agent.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(agents)
}
