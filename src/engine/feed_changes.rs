//! Changes of feeds by people: create, replace, delete. What a feed lists is in `pull_feeds/`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::idempotency::IdempotentRequest;
use super::refusal::{Refusal, UseCase};
use crate::domain::duration::Span;
use crate::domain::fault::Fault;
use crate::domain::feed::{BLOCKING_ACTIONS, DEFAULT_INTERVAL, FeedSpec};
use crate::domain::principal::Principal;
use crate::store::StoreError;
use crate::store::configured::caches::Cache;
use crate::store::configured::feeds::{self, FeedRow};
use crate::store::ledger::audit::LedgerTx;
use crate::store::ledger::idempotency::Once;
use crate::views::feeds::FeedDocument;

/// Most feeds: each is worked out from everything that is in force.
const MAX_FEEDS: i64 = 100;
/// Longest note, in characters.
const MAX_NOTE: usize = 2000;

/// The feed that a document describes, with its defaults.
pub fn spec_of(document: &FeedDocument, version: i64) -> FeedSpec {
    let FeedDocument { name, form, policies, labels, actions, min_left, networks, max_entries, .. } = document.clone();
    let built_in = || BLOCKING_ACTIONS.map(str::to_owned).to_vec();
    let interval = document.expected_interval;
    FeedSpec {
        name,
        version,
        form,
        policies,
        labels,
        actions: if actions.is_empty() { built_in() } else { actions },
        min_left: min_left.map_or(Duration::ZERO, Span::duration),
        networks: networks.unwrap_or(form.takes_networks()),
        max_entries: max_entries.unwrap_or(form.default_max_entries()),
        expected_interval: interval.map_or(DEFAULT_INTERVAL, Span::duration),
    }
}

impl Engine {
    /// Creates a feed, once for each idempotency key. Returns its name.
    ///
    /// # Errors
    /// Faults of the document, a feed of that name, or too many feeds.
    pub async fn create_feed(
        self: &Arc<Self>,
        document: FeedDocument,
        once: Option<Once>,
        by: &Principal,
    ) -> UseCase<String> {
        self.check_feed(&document)?;
        let request = IdempotentRequest::find(&self.db, once).await?;
        if request.answered().is_some() {
            self.refresh(Cache::Feeds).await?;
            return Ok(document.name);
        }
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        if feeds::count(&mut ledger).await? >= MAX_FEEDS {
            return Err(Refusal::Conflict(format!("there are {MAX_FEEDS} feeds, which is the most: delete one")));
        }
        let created = feeds::create(&mut ledger, &document, &by.at(), now).await;
        created.map_err(|error| match error {
            StoreError::Duplicate => Refusal::Conflict(format!("a feed named {} exists already", document.name)),
            other => other.into(),
        })?;
        request.keep(&mut ledger, 201, "", now).await?;
        self.commit_and_refresh(ledger).await?;
        Ok(document.name)
    }

    /// Replaces the feed `name`, which must be at `version`.
    ///
    /// # Errors
    /// Faults of the document, or another version.
    pub async fn replace_feed(
        self: &Arc<Self>,
        name: &str,
        version: i64,
        document: FeedDocument,
        by: &Principal,
    ) -> UseCase<()> {
        if document.name != name {
            return Err(Refusal::fault("/name", "must equal the name in the path"));
        }
        self.check_feed(&document)?;
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        let updated = feeds::update(&mut ledger, &document, version, &by.at(), now).await;
        updated.map_err(|error| stale(error, name))?;
        Ok(self.commit_and_refresh(ledger).await?)
    }

    /// Deletes the feed `name`, which must be at `version`. Its consumers get 404 from then on.
    ///
    /// # Errors
    /// If there is none, or at another version.
    pub async fn delete_feed(self: &Arc<Self>, name: &str, version: i64, by: &Principal) -> UseCase<()> {
        let (mut ledger, now) = (LedgerTx::begin(&self.db).await?, self.clock.now());
        feeds::delete(&mut ledger, name, version, &by.at(), now).await.map_err(|error| stale(error, name))?;
        let (engine, feed) = (Arc::clone(self), name.to_owned());
        let forget = move |_| async move {
            engine.pull_feeds.lists.forget(&feed);
            engine.pull_feeds.marks.retain(|own| own != feed);
            Ok(())
        };
        Ok(self.commit_refresh_then(ledger, forget).await?)
    }

    fn check_feed(&self, document: &FeedDocument) -> UseCase<()> {
        let mut faults = spec_of(document, 0).faults();
        let known = self.actions.load();
        let unknown = document.actions.iter().enumerate().filter(|(_, action)| known.find(action).is_none());
        faults.extend(unknown.map(|(index, _)| Fault::at(format!("/actions/{index}"), "is not a known action")));
        let is_plain = document.note.chars().all(|letter| !letter.is_control() || ['\n', '\r', '\t'].contains(&letter));
        if document.note.chars().count() > MAX_NOTE || !is_plain {
            faults.push(Fault::at(
                "/note",
                format!("must have at most {MAX_NOTE} characters, without control characters"),
            ));
        }
        faults.dedup_by(|one, other| one.pointer == other.pointer);
        if faults.is_empty() { Ok(()) } else { Err(Refusal::Invalid(faults)) }
    }

    /// Refreshes the feeds.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a feed that this program does not understand.
    pub(super) async fn refresh_feeds(&self) -> Result<(), StoreError> {
        let _alone = self.reloading.lock().await;
        let rows = feeds::all(&self.db).await?;
        let spec = |row: FeedRow| Ok((row.name, Arc::new(spec_of(&row.document.read()?, row.version))));
        let specs = rows.into_iter().map(spec).collect::<Result<BTreeMap<_, _>, StoreError>>()?;
        self.pull_feeds.specs.store(Arc::new(specs));
        Ok(())
    }
}

fn stale(error: StoreError, name: &str) -> Refusal {
    match error {
        StoreError::NotFound => Refusal::NotFound(format!("feed {name:?} does not exist")),
        StoreError::Conflict => {
            Refusal::Changed(format!("feed {name} has another version than If-Match states; read it again"))
        }
        other => other.into(),
    }
}
