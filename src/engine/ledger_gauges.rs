//! The gauges of `/metrics` whose values are in the ledger: effects, pending commands, active
//! responses, agents and open breakers. They are read when the metrics are scraped, and at most once
//! a second, because a scrape needs no key. Scrapes that come meanwhile share the reading.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Engine;
use super::last_look::LastLook;
use super::pull_feeds::gauges::{ConsumerGauge, FeedGauges};
use crate::domain::outcome::ResponseOutcome;
use crate::domain::presence::Presence;
use crate::store::StoreError;
use crate::store::configured::agents::{self, Troubles};
use crate::store::configured::breakers::{self, OpenBreakers};
use crate::store::ledger::commands::{self, CommandCount};
use crate::store::ledger::effects::{self, EffectCount};
use crate::store::ledger::events;
use crate::store::ledger::forwarders;
use crate::store::ledger::outcomes;
use crate::store::ledger::webhook_messages::{self, WebhookState};

/// Time without contact after which an agent is silent: ten heartbeats of 30 seconds.
const SILENT: Duration = Duration::from_mins(5);
/// Policies with their own row in the metrics; the others share one.
const POLICIES: usize = 100;

/// The gauges, as they were last read.
#[derive(Debug, Default)]
pub struct LedgerGauges {
    last_look: LastLook<Result<(), Arc<StoreError>>>,
    reading: ArcSwapOption<Reading>,
}

impl LedgerGauges {
    /// Registers the gauges with the prefix `riposte`.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.sub_registry_with_prefix("riposte").register_collector(Box::new(Arc::clone(self)));
    }

    /// Reads the ledger, unless it was read within the last second.
    ///
    /// # Errors
    /// If the store cannot be read. Scrapes within a second share the error too; the log has it once.
    pub async fn refresh(&self, engine: &Engine) -> Result<(), StoreError> {
        let read = async |_| {
            let reading = Reading::read(engine).await.inspect_err(|error| {
                let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(cause, "the metrics could not be read from the ledger: {error}");
            })?;
            self.reading.store(Some(Arc::new(reading)));
            Ok(())
        };
        self.last_look.fresh(read).await.as_ref().clone().map_err(StoreError::Shared)
    }
}

impl Collector for LedgerGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        match &*self.reading.load() {
            Some(reading) => reading.encode(&mut encoder),
            None => Ok(()),
        }
    }
}

/// What was read at one time.
#[derive(Debug)]
struct Reading {
    effects: Vec<EffectCount>,
    commands: Vec<CommandCount>,
    troubles: Troubles,
    /// Active responses by policy and outcome.
    standing: BTreeMap<(String, ResponseOutcome), i64>,
    presence: BTreeMap<Presence, i64>,
    breakers: OpenBreakers,
    webhooks: Vec<WebhookState>,
    silent_forwarders: i64,
    feeds: FeedGauges,
    /// Number of the last event.
    last_event: i64,
}

impl Reading {
    async fn read(engine: &Engine) -> Result<Self, StoreError> {
        let (db, now) = (&engine.db, engine.clock.now());
        let mut presence: BTreeMap<Presence, i64> = Presence::ALL.into_iter().map(|presence| (presence, 0)).collect();
        let elsewhere = engine.elsewhere().await?;
        for agent in engine.fleet.load().iter() {
            *presence.entry(engine.presence(agent.id, &elsewhere, now)).or_insert(0) += 1;
        }
        Ok(Self {
            effects: effects::counts(db).await?,
            commands: commands::counts(db).await?,
            troubles: agents::troubles(db, now.minus(SILENT), now).await?,
            standing: outcomes::standing(db).await?,
            presence,
            breakers: breakers::open(db).await?,
            webhooks: webhook_messages::states(db).await?,
            silent_forwarders: forwarders::silent(db).await?,
            feeds: engine.feed_gauges().await?,
            last_event: events::bounds(db).await?.last,
        })
    }

    fn encode(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let effects = self
            .effects
            .iter()
            .map(|row| ([("desired", row.desired.as_str()), ("actual", row.actual.as_str())], row.count));
        gauges(
            encoder,
            "effects",
            "Effects that are wanted, in force or drifted, by wanted state (desired) and reported state (actual).",
            effects,
        )?;
        let failing = self.effects.iter().map(|row| row.failing).sum();
        gauge(encoder, "effects_failing", "Effects whose last revert failed.", failing)?;
        let commands = self.commands.iter().map(|row| ([("state", row.state.as_str())], row.count));
        gauges(encoder, "commands_owed", "Pending commands, not acknowledged yet.", commands)?;
        let Troubles { in_incident, silent, rejecting, clock_skewed } = self.troubles;
        let rejects = "Agents that rejected this manager's commands within the last hour.";
        gauge(encoder, "agents_rejecting", rejects, rejecting)?;
        gauge(encoder, "agents_silent", "Agents without contact for five minutes.", silent)?;
        gauge(encoder, "agents_incident", "Agents whose identity two hosts share.", in_incident)?;
        gauge(encoder, "agents_clock_skewed", "Agents whose clock skew exceeds one minute.", clock_skewed)?;
        let standing = by_policy(&self.standing);
        let standing = standing.into_iter().map(|((policy, outcome), count)| {
            let labels = [("policy", policy), ("outcome", outcome.as_str())];
            (labels, count)
        });
        gauges(encoder, "responses_standing", "Active responses by outcome.", standing)?;
        let presence = self.presence.iter().map(|(presence, count)| ([("presence", presence.as_str())], *count));
        gauges(encoder, "agents", "Enrolled agents by presence.", presence)?;
        let OpenBreakers { policies, agents } = self.breakers;
        let breakers = [("policy", policies), ("agent", agents)].map(|(scope, count)| ([("scope", scope)], count));
        gauges(encoder, "breakers_open", "Open breakers: global, and on one agent.", breakers)?;
        let silent = "Forwarders that have not reported for five minutes.";
        gauge(encoder, "forwarders_silent", silent, self.silent_forwarders)?;
        let of_webhooks = |value: fn(&WebhookState, i64) -> i64| {
            let last = self.last_event;
            self.webhooks.iter().map(move |state| ([("webhook", state.webhook.as_str())], value(state, last)))
        };
        let behind = of_webhooks(|state, last| (last - state.mark).max(0));
        gauges(encoder, "webhook_behind", "Events that a webhook was not asked to take yet.", behind)?;
        let waiting = of_webhooks(|state, _| state.waiting);
        gauges(encoder, "webhook_waiting", "Messages that a webhook did not take, and that are sent again.", waiting)?;
        let dead = of_webhooks(|state, _| state.dead);
        gauges(encoder, "webhook_dead", "Messages that a webhook did not take, and that are kept.", dead)?;
        let failing = of_webhooks(|state, _| i64::from(state.is_failing));
        gauges(encoder, "webhook_failing", "Whether a webhook takes no messages (1).", failing)?;
        encode_feeds(encoder, &self.feeds)
    }
}

fn encode_feeds(encoder: &mut DescriptorEncoder, feeds: &FeedGauges) -> fmt::Result {
    let of_feeds = feeds.feeds.iter().map(|(feed, is_too_long)| ([("feed", feed.as_str())], i64::from(*is_too_long)));
    let too_long = "Whether a feed is not served, because there is more to list than it may hold (1).";
    gauges(encoder, "feed_too_long", too_long, of_feeds)?;
    let labels = |row: &ConsumerGauge| [("feed", row.feed.clone()), ("consumer", row.consumer.clone())];
    let fetches = feeds.consumers.iter().filter_map(|row| {
        let at = row.fetched_at?;
        Some((labels(row), at.as_millis() / 1000))
    });
    let fetched = "Time of the last fetch of a consumer of a feed, in seconds since 1970; without a row: never.";
    gauges(encoder, "feed_fetched_timestamp_seconds", fetched, fetches)?;
    let silent = "Whether a consumer of a feed stays away while a removal is owed to it (1).";
    let silences = feeds.consumers.iter().map(|row| (labels(row), i64::from(row.is_silent)));
    gauges(encoder, "feed_consumer_silent", silent, silences)
}

/// The rows of active responses: the policies with the most have their own.
fn by_policy(standing: &BTreeMap<(String, ResponseOutcome), i64>) -> BTreeMap<(&str, ResponseOutcome), i64> {
    let mut of_policy: BTreeMap<&str, i64> = BTreeMap::new();
    for ((policy, _), count) in standing {
        *of_policy.entry(policy).or_insert(0) += count;
    }
    let mut largest: Vec<(&str, i64)> = of_policy.into_iter().collect();
    largest.sort_by_key(|(policy, count)| (Reverse(*count), *policy));
    let named: BTreeSet<&str> = largest.iter().take(POLICIES).map(|(policy, _)| *policy).collect();
    let mut rows = BTreeMap::new();
    for ((policy, outcome), count) in standing {
        // A policy's name contains no brackets, so these words cannot clash.
        let policy = match policy.as_str() {
            "" => "(by hand)",
            policy if named.contains(policy) => policy,
            _ => "(others)",
        };
        *rows.entry((policy, *outcome)).or_insert(0) += count;
    }
    rows
}

/// Encodes a family of gauges; one without rows keeps its description.
fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, count) in rows {
        ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Encodes a gauge without labels.
fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, count: i64) -> fmt::Result {
    ConstGauge::new(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
