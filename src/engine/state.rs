//! The state that stages and handlers share: handles, the caches of what is stored, and what single
//! stages keep between two rounds. Nothing in it outlives the manager: the store is the only durable
//! state.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use riposte_protocol::time::Timestamp;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::access_tokens::AccessTokens;
use super::agent_tokens::AgentTokens;
use super::announcements::Announcements;
use super::checkpoint_webhook::CheckpointWebhook;
use super::clocks::Clocks;
use super::conditions::Conditions;
use super::deliveries::Deliveries;
use super::denials::DenialLog;
use super::egress::rules::Egress;
use super::epochs::Epochs;
use super::failed_logins::FailedLoginLog;
use super::feed::Feed;
use super::health::Health;
use super::hub::Hub;
use super::key_uses::KeyUses;
use super::last_look::LastLook;
use super::lockouts::Lockouts;
use super::oidc::providers::Providers;
use super::owed_batch::OwedReader;
use super::passwords::Passwords;
use super::peers::{Elsewhere, Peers};
use super::pull_feeds::kept::PullFeeds;
use super::retention_ages::Retention;
use super::rules::Rules;
use super::secret_values::SecretValues;
use super::signer::Signer;
use super::told_presence::PresenceNews;
use super::undo_timer::UndoTimer;
use crate::clock::Clock;
use crate::config::CheckpointPlaces;
use crate::domain::action::Catalogue;
use crate::domain::approval_link::ApprovalLinks;
use crate::domain::checkpoint::LogBeginning;
use crate::domain::fleet::Fleet;
use crate::domain::formats::AlertMappings;
use crate::domain::index::PolicyIndex;
use crate::domain::ledger_key::LedgerKey;
use crate::domain::protected::ProtectedSet;
use crate::shutdown::Tasks;
use crate::store::StoreError;
use crate::store::configured::keys::StoredKey;
use crate::store::configured::sessions::LiveSession;
use crate::store::configured::users::StoredUser;
use crate::store::database::Db;
use crate::store::database::duties::Duties;
use crate::store::database::nodes::Lease;
use crate::store::writer::Writer;
use crate::telemetry::Metrics;

/// What the configuration says to the engine.
#[derive(Debug)]
pub struct EngineSettings {
    /// Configuration of the intake.
    pub rules: Rules,
    /// How long things are kept.
    pub retention: Retention,
    /// OpenID providers.
    pub providers: Providers,
    /// Where checkpoints of the audit log are sent.
    pub checkpoints: CheckpointPlaces,
    /// Webhook for these checkpoints.
    pub checkpoint_webhook: Option<CheckpointWebhook>,
    /// Rules for calls to other hosts.
    pub egress: Egress,
    /// Age at which agents are told to replace their keys; `None`: never.
    pub agent_key_max_age: Option<Duration>,
    /// Whether managers on one database wake each other.
    pub peer_hints: bool,
    /// URL under which agents reach this manager, which is the source of its events; empty: none.
    pub public_url: String,
}

/// The manager's own keys.
#[derive(Debug)]
pub struct ManagerKeys {
    /// Those that sign commands.
    pub signer: Signer,
    /// The one that seals what the ledger holds.
    pub ledger_key: LedgerKey,
    /// Why what other programs have changed in the ledger is accepted, if it is.
    pub accepts: Option<&'static str>,
}

/// The state that stages and handlers share.
#[derive(Debug)]
pub struct Engine {
    /// URL under which people and agents reach this manager; empty: none.
    pub public_url: String,
    /// Links by which people decide.
    pub approval_links: ApprovalLinks,
    /// The database.
    pub db: Db,
    /// The group commit.
    pub writer: Writer,
    /// Batched queries for pending commands.
    pub owed_reader: OwedReader,
    /// The clock.
    pub clock: Clock,
    /// When this manager started.
    pub started_at: Timestamp,
    /// Who is connected.
    pub hub: Arc<Hub>,
    /// Rate limit for announced capabilities.
    pub announcements: Announcements,
    /// Clock skew of agents.
    pub clocks: Clocks,
    /// Metrics.
    pub metrics: Metrics,
    /// Cache: actions.
    pub actions: ArcSwap<Catalogue>,
    /// Cache: compiled policies.
    pub policies: ArcSwap<PolicyIndex>,
    /// Cache: agents.
    pub fleet: ArcSwap<Fleet>,
    /// Cache: protected entries.
    pub protected: ArcSwap<ProtectedSet>,
    /// Cache: the freeze.
    pub frozen: AtomicBool,
    /// Cache: values of secrets.
    pub secrets: ArcSwap<SecretValues>,
    /// Feeds that firewalls fetch: cache, lists, and who has fetched them.
    pub pull_feeds: PullFeeds,
    /// The key of what is sealed in the ledger.
    pub ledger_key: LedgerKey,
    /// Cache: API keys by id.
    pub keys: ArcSwap<HashMap<String, StoredKey>>,
    /// Cache: people by name.
    pub users: ArcSwap<HashMap<String, StoredUser>>,
    /// Cache: sessions that have not ended.
    pub sessions: RwLock<HashMap<Uuid, LiveSession>>,
    /// Keys of access tokens, and the tokens that were verified.
    pub access_tokens: AccessTokens,
    /// Agent tokens that were used.
    pub agent_tokens: AgentTokens,
    /// Hashing of passwords.
    pub passwords: Passwords,
    /// OpenID providers, and the logins that are under way at them.
    pub providers: Providers,
    /// Rules for calls to other hosts.
    pub egress: Egress,
    /// Counters of failed logins.
    pub lockouts: Lockouts,
    /// Failed logins that are not in the audit log yet.
    pub failed_logins: FailedLoginLog,
    /// Denied requests that are not in the audit log yet.
    pub denials: DenialLog,
    /// Last uses of API keys.
    pub key_uses: KeyUses,
    /// The manager's signing keys.
    pub signer: Signer,
    /// Where the audit log begins, as a checkpoint of this manager says; none: with its first entry.
    pub log_beginning: ArcSwapOption<LogBeginning>,
    /// Wake-ups of the undo stage.
    pub undo: UndoTimer,
    /// Site-specific fields that hold observables.
    pub mappings: AlertMappings,
    /// Configuration of the intake.
    pub rules: Rules,
    /// Creation time of each pipeline's first key.
    pub pipelines: ArcSwap<HashMap<String, Timestamp>>,
    /// Failed conditions.
    pub conditions: Conditions,
    /// How long things are kept.
    pub retention: Retention,
    /// Age at which agents are told to replace their keys; `None`: never.
    pub agent_key_max_age: Option<Duration>,
    /// The feed of events.
    pub feed: Feed,
    /// Which agents the feed says are connected.
    pub presence_news: PresenceNews,
    /// Tracker of all tasks.
    pub tasks: Tasks,
    /// Health of the stages.
    pub health: Health,
    /// This manager's lease on the ledger.
    pub lease: Arc<Lease>,
    /// Changes of configuration that are in force here.
    pub(super) epochs: Epochs,
    /// The other managers on the same database.
    pub peers: Arc<Peers>,
    /// Deliveries under way.
    pub deliveries: Deliveries,
    /// The duties that this manager and others have.
    pub(super) duties: ArcSwap<Duties>,
    /// Cached presence of agents at other managers.
    pub(super) elsewhere: LastLook<Result<Elsewhere, Arc<StoreError>>>,
    /// Cached result of the readiness check.
    pub readiness: LastLook<Vec<String>>,
    /// Permits for backtests.
    pub backtests: Arc<Semaphore>,
    /// Permits for comparing agents' reports. After a restart all agents report at once, and
    /// deadlines need the same few read connections.
    pub comparing: Semaphore,
    /// Held while a cache is refreshed, so that an older read never replaces a newer one.
    pub(super) reloading: tokio::sync::Mutex<()>,
    /// Whether a change may have been committed that the caches do not show; then the sweep refreshes them, until it can.
    pub(super) stale: AtomicBool,
}
