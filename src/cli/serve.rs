//! `riposte serve`: assembles the layers and runs them until a signal. Listener, clock and tasks
//! are arguments of [`serve`], so tests start the real program on port 0 with their own clock.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use clap::Args;
use riposte_protocol::time::Timestamp;
use tokio::net::TcpListener;

use super::output::say;
use super::passphrase::Passphrase;
use super::{keyfiles, mappings, otlp, sign_on, signing, upgrade_backup};
use crate::api;
use crate::api::front::address::TrustedProxies;
use crate::api::front::listen;
use crate::api::front::tls::{Tls, TlsFiles};
use crate::api::state::AppState;
use crate::clock::Clock;
use crate::config::{Config, ConfigFlags, Responses, WebhookAddress};
use crate::console;
use crate::domain::by_hand::ByHand;
use crate::domain::duration::Span;
use crate::domain::egress::allow_list::AllowList;
use crate::domain::pipeline::Recurring;
use crate::domain::webhook::WebhookSecret;
use crate::engine::ManagerKeys;
use crate::engine::checkpoint_webhook::CheckpointWebhook;
use crate::engine::egress::rules::Egress;
use crate::engine::intake::Rules;
use crate::engine::retention_ages::Retention;
use crate::engine::{Engine, EngineSettings, agent_keys};
use crate::host;
use crate::shutdown::{self, GRACE, Tasks};
use crate::store::database::import_marker;
use crate::store::database::nodes::Lease;
use crate::store::database::presence;
use crate::store::{Db, StoreError};
use crate::telemetry;

/// Flags of `riposte serve`; each overrides its environment variable, which overrides the file.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML); see config.default.toml.
    #[arg(long, env = "RIPOSTE_CONFIG")]
    config: Option<PathBuf>,
    /// Adopt the data directory's signing key although the ledger has another: agents must then
    /// enrol again.
    #[arg(long)]
    adopt_signing_key: bool,
    /// Accept what another program has changed in the ledger: keys, users, policies and other rows that
    /// grant power count as they stand. Look at them with `riposte doctor` before.
    #[arg(long)]
    accept_ledger_changes: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Runs the manager until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let exceptions = (args.adopt_signing_key, args.accept_ledger_changes);
    let file = args.config;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?.with(args.flags)?;
    telemetry::start_logging(config.server.log_format);
    if let Some(file) = file {
        warn_of_password(&file, &config);
    }
    let tls_key = &config.server.tls_key;
    if let Some(exposed) = std::fs::metadata(tls_key).ok().and_then(|file| keyfiles::exposed(tls_key, &file)) {
        tracing::warn!("{exposed}");
    }
    if !config.misplaced.is_empty() {
        let keys = config.misplaced.join(", ");
        tracing::warn!("these keys of the configuration belong into sections now, see config.default.toml: {keys}");
    }
    warn_of_proxy(&config);
    let listener = TcpListener::bind(config.server.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.server.listen))?;
    raise_file_limit();
    let tasks = Tasks::new();
    stop_on_signals(&tasks)?;
    let running = Box::pin(start(config, listener, Clock::system(), tasks, exceptions)).await?;
    if let Some(path) = &running.first_key {
        // Print the path, not the key: a service's output goes to a log that more people read.
        say(&format!("The first admin key is in {}", path.display()));
    }
    let clean = running.wait().await;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Warns if other users can read a configuration with the database password.
fn warn_of_password(path: &Path, config: &Config) {
    let has_password = config.server.database_url.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    let has_password = has_password.is_some_and(|(account, _)| account.contains(':'));
    let for_all = std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0);
    if has_password && for_all {
        let path = path.display();
        tracing::warn!("{path} contains the database's password, and every account can read it: run `chmod o= {path}`");
    }
}

/// Warns if the environment names a proxy and the configuration a host to call: it is called directly.
fn warn_of_proxy(config: &Config) {
    let has_place = |url: &str| !url.is_empty();
    let calls = !config.oidc.is_empty()
        || has_place(&config.audit.audit_checkpoint_webhook)
        || has_place(&config.telemetry.otlp_endpoint);
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    if let Some(name) = names.into_iter().find(|name| calls && std::env::var_os(name).is_some()) {
        tracing::warn!(
            "the proxy in {name} is not used: the manager calls OpenID providers, webhooks and collectors directly"
        );
    }
}

/// Every connected agent is an open file, and the default soft limit is often 1,024.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "up to {limit} files may be open"),
        Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
    }
}

/// The first signal starts a graceful shutdown, the second one ends at once.
fn stop_on_signals(tasks: &Tasks) -> anyhow::Result<()> {
    let stopping = tasks.clone();
    let mut signals = shutdown::Signals::listen().context("cannot listen to signals")?;
    tasks.watch(async move {
        signals.next().await;
        tracing::info!("stopping; a second signal stops at once");
        stopping.stop();
        signals.next().await;
        tracing::warn!("stopped at once");
        std::process::exit(130);
    });
    Ok(())
}

/// Serves on `listener` until `tasks` are asked to stop; returns whether everything ended in time.
///
/// # Errors
/// If the store, a key file or the listener cannot be used.
pub async fn serve(config: Config, listener: TcpListener, clock: Clock, tasks: Tasks) -> anyhow::Result<bool> {
    Ok(Box::pin(start(config, listener, clock, tasks, (false, false))).await?.wait().await)
}

/// A manager that is ready to serve.
struct Running {
    router: Router,
    listener: TcpListener,
    door: listen::Door,
    tls: Option<Arc<Tls>>,
    tasks: Tasks,
    db: Db,
    /// Path of the first admin key, if this start created it.
    first_key: Option<PathBuf>,
    /// Locks, held as long as the manager runs.
    locks: (File, Option<File>),
    /// The lease on a PostgreSQL ledger.
    lease: Arc<Lease>,
}

/// `exceptions`: whether to adopt another signing key, and to accept changes of the ledger.
async fn start(
    config: Config,
    listener: TcpListener,
    clock: Clock,
    tasks: Tasks,
    exceptions: (bool, bool),
) -> anyhow::Result<Running> {
    // Refuse an invalid configuration before anything is created.
    let rules = rules(&config)?;
    let egress = AllowList::parse(&config.egress.allow).context("the configuration's [egress] allow")?;
    let egress = Egress::new(egress);
    let providers = sign_on::providers(&config, &egress, listener.local_addr()?)?;
    let checkpoints = config.checkpoint_places()?;
    let exporter = otlp::exporter(&config, &egress)?;
    let checkpoint_webhook = checkpoints.webhook.as_ref().map(|place| webhook(place, &egress)).transpose()?;
    let passphrase = Passphrase::of(&config.server.key_passphrase_file)?;
    let tls = TlsFiles::of(&config.server).map(|files| Tls::load(files, clock.clone())).transpose()?.map(Arc::new);
    keyfiles::make_data_dir(&config.server.data_dir)?;
    keyfiles::check_private(&config.server.data_dir)?;
    let lock = keyfiles::lock(&config.server.data_dir)?;
    keyfiles::keep_private(&config.database())?;
    let locks = (lock, keyfiles::lock_ledger(&config.database())?);
    let db = open(&config, clock.now()).await?;
    let lease =
        Lease::take(&db, &node_name(listener.local_addr()?)).await.context("cannot take a lease on the ledger")?;
    // Once more: an import may have begun between the two.
    if let Err(error) = import_marker::refuse(&db).await {
        lease.release().await;
        return Err(anyhow::Error::from(error).context("cannot open the database"));
    }
    let lease = Arc::new(lease);
    // Keep the lease from here on: the next steps can take longer than it lasts.
    let kept = Arc::clone(&lease);
    tasks.watch(async move { kept.keep().await });
    let days = |days: u32| (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400));
    let retention = Retention {
        alerts: days(config.alerts.alert_retention_days),
        responses: days(config.retention.response_retention_days),
        events: days(config.retention.event_retention_days),
        audit: days(config.retention.audit_retention_days),
    };
    let agent_key_max_age = agent_keys::max_age(&config.server.agent_key_max_age)
        .map_err(|error| anyhow::anyhow!("the configuration's agent_key_max_age {error}, or none"))?;
    let peer_hints = config.server.peer_hints;
    let public_url = config.server.public_url.clone();
    let settings = EngineSettings {
        rules,
        retention,
        providers,
        checkpoints,
        checkpoint_webhook,
        egress,
        agent_key_max_age,
        peer_hints,
        public_url,
    };
    let keys = signing::agree(&db, &config.server.data_dir, passphrase.as_ref(), exceptions, clock.now());
    let started = async {
        let keys = keys.await?;
        start_on(db.clone(), Arc::clone(&lease), &config, settings, (keys, clock), tasks.clone()).await
    };
    let started = Box::pin(started).await;
    let (engine, first_key) = match started {
        Ok(started) => started,
        Err(error) => {
            lease.release().await;
            return Err(error);
        }
    };
    let address = listener.local_addr()?;
    let (data_dir, scheme) = (config.server.data_dir.display(), if tls.is_some() { "https" } else { "http" });
    tracing::info!(%data_dir, scheme, "Riposte listens on {address}");
    let proxies = TrustedProxies::new(config.proxies()?);
    if let Some(tls) = tls.clone() {
        tasks.watch(async move { tls.watch().await });
    }
    let is_tls = tls.is_some() || config.server.public_url.starts_with("https://");
    let state = AppState::new(Arc::clone(&engine), &config, proxies.clone(), tls.clone());
    otlp::start(exporter, &state);
    let router = console::router(api::router(state), engine, is_tls).context("the console's forms have no key")?;
    let door = listen::Door::new(config.limits.max_connections, config.limits.max_unknown_connections, proxies);
    Ok(Running { router, listener, door, tls, tasks, db, first_key, locks, lease })
}

/// The name shown to people and to other managers on the same ledger.
fn node_name(address: SocketAddr) -> String {
    let host = host::name().unwrap_or_else(|| "unknown".to_owned());
    format!("host {host}, process {}, listening on {address}", std::process::id())
}

/// Starts the engine on the locked ledger. Returns the path of the first admin key, if this start
/// created it.
async fn start_on(
    db: Db,
    lease: Arc<Lease>,
    config: &Config,
    settings: EngineSettings,
    (keys, clock): (ManagerKeys, Clock),
    tasks: Tasks,
) -> anyhow::Result<(Arc<Engine>, Option<PathBuf>)> {
    // On the heap: it is the largest part of the start.
    let engine = Box::pin(Engine::start(db, clock, keys, settings, lease, tasks)).await?;
    let write_down = |key: &str| keyfiles::write_secret(&config.server.data_dir, keyfiles::ADMIN_KEY, key);
    let first_key = engine.first_key(write_down).await.context("the first admin key cannot be made")?;
    Ok((engine, first_key.map(|_| config.server.data_dir.join(keyfiles::ADMIN_KEY))))
}

/// The receiver of checkpoints, with its secret.
pub(super) fn webhook(place: &WebhookAddress, egress: &Egress) -> anyhow::Result<CheckpointWebhook> {
    let WebhookAddress { url, secret_file } = place;
    let secret = keyfiles::read_secret(secret_file).context("audit_checkpoint_webhook_secret_file")?;
    let secret = WebhookSecret::parse(&secret).with_context(|| {
        let file = secret_file.display();
        format!("audit_checkpoint_webhook_secret_file: {file} holds no secret of Standard Webhooks (whsec_…)")
    })?;
    CheckpointWebhook::new(egress, url.clone(), secret).context("audit_checkpoint_webhook")
}

fn rules(config: &Config) -> anyhow::Result<Rules> {
    let mappings = mappings::of(config)?;
    let max_age = config.alerts.max_age.parse();
    let max_age = max_age.map_err(|error| anyhow::anyhow!("the configuration's max_age {error}, or none"))?;
    let said = config.pipelines.iter().filter_map(|(name, pipeline)| Some((name.clone(), pipeline.ids_recur?)));
    let Responses {
        max_agents_by_hand: max_agents, second_person_actions: second_person, second_person_within, ..
    } = config.responses.clone();
    let within = second_person_within.parse::<Span>();
    let within = within.map_err(|error| anyhow::anyhow!("the configuration's second_person_within {error}"))?;
    let by_hand = ByHand { max_agents, second_person, decide_within: within.duration() };
    Ok(Rules { mappings, max_age, recurring: Recurring::new(said.collect()), by_hand })
}

/// Maximum size in bytes of a ledger file that is checked at every start: that takes tenths of a
/// second, or seconds on a slow disk.
const LOOKED_THROUGH_BYTES: u64 = 512 * 1024 * 1024;

async fn open(config: &Config, now: Timestamp) -> anyhow::Result<Db> {
    let url = &config.database();
    let opened = match look_through(url).await {
        Ok(()) => {
            upgrade_backup::make(config, now).await?;
            Db::open(url).await
        }
        Err(error) => Err(error),
    };
    let why = match opened {
        Ok(db) => return Ok(db),
        Err(StoreError::Damaged(why)) => why,
        Err(error) if error.is_damage() => format!("{:#}", anyhow::Error::from(error)),
        Err(error) => return Err(anyhow::Error::from(error).context("cannot open the database")),
    };
    anyhow::bail!(
        "the ledger is damaged: {why}. Nothing was changed; `riposte restore` creates a data directory from a backup"
    )
}

/// Checks the ledger's file before the first write.
async fn look_through(url: &str) -> Result<(), StoreError> {
    let size = url.strip_prefix("sqlite:").and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
    if size == 0 {
        return Ok(());
    }
    if size > LOOKED_THROUGH_BYTES {
        tracing::info!("the ledger has {size} bytes and is not checked at the start; `riposte doctor` does that");
        return Ok(());
    }
    let db = Db::open_to_look(url).await?;
    let damage = db.damage().await;
    db.close().await;
    damage?.map_or(Ok(()), |why| Err(StoreError::Damaged(why)))
}

impl Running {
    async fn wait(self) -> bool {
        let Self { router, listener, door, tls, tasks, db, locks, lease, .. } = self;
        listen::run(listener, router, &tasks, door, tls).await;
        tasks.stop();
        let clean = tasks.ended(GRACE).await;
        // The others need not wait until it runs out.
        if let Some(pool) = lease.peers() {
            let given_back = presence::all_left(pool, lease.node()).await.and(lease.resign().await);
            given_back.unwrap_or_else(|error| tracing::debug!("what this manager had runs out: {error}"));
        }
        lease.release().await;
        db.close().await;
        drop(locks);
        tracing::info!("Riposte has stopped");
        clean && !tasks.has_failed()
    }
}
