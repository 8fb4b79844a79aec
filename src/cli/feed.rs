//! `riposte feed`: lists of addresses in force that firewalls and bouncers fetch.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::{NO_BODY, Remote, segment};
use super::listing::Listing;
use super::output::say;
use super::reply::Said;
use super::shown::ListForm;
use super::terminal::{cell, plain, table};
use crate::domain::duration::Span;
use crate::domain::feed::FeedForm;
use crate::views::feeds::{FeedConsumer, FeedDocument, FeedView};

/// Feeds.
#[derive(Debug, Subcommand)]
pub enum FeedCommand {
    /// List feeds.
    List(Listing),
    /// Add a feed. A consumer fetches it with a key: `riposte key add NAME --role viewer --scope
    /// '{"rights": ["pull_feeds"], "feeds": ["FEED"]}'`.
    Add(Box<AddFeed>),
    /// Change a feed: what is not named stays as it is. Its consumers stay.
    Change(Box<ChangeFeed>),
    /// Show one feed with its consumers.
    Show(OneFeed),
    /// Show who fetches a feed, what each has, and what it must still be told.
    Consumers(OneFeed),
    /// Delete a feed. Its consumers get 404 from then on, and most keep the list that they have.
    Delete {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Name.
        name: String,
    },
}

/// One feed.
#[derive(Debug, Args)]
pub struct OneFeed {
    /// Which manager.
    #[command(flatten)]
    remote: Remote,
    /// Name.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A feed to add.
#[derive(Debug, Args)]
pub struct AddFeed {
    /// Which manager.
    #[command(flatten)]
    remote: Remote,
    /// Name, which is in the URL.
    name: String,
    /// Form in which it is served.
    #[arg(long, default_value = "plain", value_parser = form, help = FORM_HELP)]
    form: FeedForm,
    #[command(flatten)]
    wanted: WantedFeed,
}

/// What of a feed to change.
#[derive(Debug, Args)]
pub struct ChangeFeed {
    /// Which manager.
    #[command(flatten)]
    remote: Remote,
    /// Name.
    name: String,
    #[command(flatten)]
    wanted: WantedFeed,
}

/// What a feed lists, and for whom.
#[derive(Debug, Args)]
pub struct WantedFeed {
    /// A policy whose blocks are listed, `*` for any characters; may be repeated. All by default.
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// A label that the agent of a block must have, KEY=VALUE; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// An action that counts as a block; may be repeated. The built-in ones by default.
    #[arg(long = "action", value_name = "NAME")]
    actions: Vec<String>,
    /// Leave out what ends sooner.
    #[arg(long, value_name = "DURATION")]
    min_left: Option<Span>,
    /// Whether networks are listed, and not only single addresses.
    #[arg(long, value_name = "true|false")]
    networks: Option<bool>,
    /// Most entries that the consumers take.
    #[arg(long, value_name = "NUMBER")]
    max_entries: Option<u32>,
    /// Longest time between two fetches of a consumer that works.
    #[arg(long, value_name = "DURATION")]
    expected_interval: Option<Span>,
    /// Why it exists.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl WantedFeed {
    /// Replaces what is named.
    fn put_into(self, feed: FeedDocument) -> FeedDocument {
        let or = |wanted: Vec<String>, known: Vec<String>| if wanted.is_empty() { known } else { wanted };
        FeedDocument {
            name: feed.name,
            form: feed.form,
            policies: or(self.policies, feed.policies),
            labels: if self.labels.is_empty() { feed.labels } else { self.labels.into_iter().collect() },
            actions: or(self.actions, feed.actions),
            min_left: self.min_left.or(feed.min_left),
            networks: self.networks.or(feed.networks),
            max_entries: self.max_entries.or(feed.max_entries),
            expected_interval: self.expected_interval.or(feed.expected_interval),
            note: self.note.unwrap_or(feed.note),
        }
    }
}

/// What the help says of forms.
const FORM_HELP: &str =
    "plain, panos, fortigate, opnsense, mikrotik, nginx, nginx_geo, haproxy, haproxy_map, crowdsec or taxii";

fn form(word: &str) -> Result<FeedForm, String> {
    let known = FeedForm::ALL.map(FeedForm::as_str).join(", ");
    FeedForm::parse(word).ok_or_else(|| format!("there is no such form; there are: {known}"))
}

fn label(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    parts.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "must be KEY=VALUE".to_owned())
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: FeedCommand) -> anyhow::Result<ExitCode> {
    match command {
        FeedCommand::List(listing) => listing.print("/v1/feeds", &FORM).await?,
        FeedCommand::Add(asked) => add(*asked).await?,
        FeedCommand::Change(asked) => change(*asked).await?,
        FeedCommand::Show(one) => show(one).await?,
        FeedCommand::Consumers(one) => {
            let said = one.read().await?;
            if one.json {
                for consumer in &said.view.consumers {
                    say(&serde_json::to_string(consumer)?);
                }
            } else {
                consumers(&said.view);
            }
        }
        FeedCommand::Delete { remote, name } => {
            let path = format!("/v1/feeds/{}", segment(&name));
            let feed: FeedView = remote.get(&path).await?;
            remote.send(Method::DELETE, &path, Some(feed.version), NO_BODY).await?.accepted()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl OneFeed {
    async fn read(&self) -> anyhow::Result<Said<FeedView>> {
        self.remote.get(&format!("/v1/feeds/{}", segment(&self.name))).await
    }
}

/// A feed of which nothing else is said.
const fn document(name: String, form: FeedForm) -> FeedDocument {
    FeedDocument {
        name,
        form,
        policies: Vec::new(),
        labels: BTreeMap::new(),
        actions: Vec::new(),
        min_left: None,
        networks: None,
        max_entries: None,
        expected_interval: None,
        note: String::new(),
    }
}

async fn add(asked: AddFeed) -> anyhow::Result<()> {
    let AddFeed { remote, name, form, wanted } = asked;
    let document = wanted.put_into(document(name, form));
    let made: FeedView = remote.post("/v1/feeds", &document).await?;
    let entries = if made.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", made.entries) };
    say(&plain(&format!("feed {}: {entries} now, served at {}", made.name, place(&made))));
    Ok(())
}

async fn change(asked: ChangeFeed) -> anyhow::Result<()> {
    let ChangeFeed { remote, name, wanted } = asked;
    let path = format!("/v1/feeds/{}", segment(&name));
    let known: FeedView = remote.get(&path).await?;
    let document = wanted.put_into(FeedDocument {
        policies: known.policies,
        labels: known.labels,
        actions: known.actions,
        min_left: known.min_left,
        networks: Some(known.networks),
        max_entries: Some(known.max_entries),
        expected_interval: Some(known.expected_interval),
        note: known.note,
        ..document(known.name, known.form)
    });
    let made: FeedView = remote.send(Method::PUT, &path, Some(known.version), Some(&document)).await?.done()?;
    let entries = if made.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", made.entries) };
    say(&plain(&format!("feed {}: {entries} now, at most {}", made.name, made.max_entries)));
    Ok(())
}

async fn show(one: OneFeed) -> anyhow::Result<()> {
    let said = one.read().await?;
    if one.json {
        say(&said.json.to_string());
        return Ok(());
    }
    let feed = &said.view;
    let any = |words: &[String], none: &str| if words.is_empty() { none.to_owned() } else { words.join(", ") };
    let labels: Vec<String> = feed.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let left = feed.min_left.map_or_else(|| "any".to_owned(), |span| span.to_string());
    for (what, text) in [
        ("feed", feed.name.clone()),
        ("served at", place(feed)),
        ("policies", any(&feed.policies, "all, and responses by hand")),
        ("agents", any(&labels, "all")),
        ("actions", feed.actions.join(", ")),
        ("time left", left),
        ("networks", if feed.networks { "listed" } else { "left out" }.to_owned()),
        ("entries", format!("{} of at most {}", feed.entries, feed.max_entries)),
        ("up to event", feed.sequence.to_string()),
        ("fetched within", feed.expected_interval.to_string()),
        ("note", feed.note.clone()),
    ] {
        say(&plain(&format!("{what:<15}{text}")));
    }
    if let Some(since) = feed.too_long_since {
        say(&plain(&format!("TOO LONG since {since}: no consumer gets it")));
    }
    consumers(feed);
    Ok(())
}

fn place(feed: &FeedView) -> String {
    match feed.form {
        FeedForm::Crowdsec => "/crowdsec/".to_owned(),
        FeedForm::Taxii => "/taxii2/".to_owned(),
        _ => format!("/feeds/{}", feed.name),
    }
}

fn consumers(feed: &FeedView) {
    let row = |consumer: &FeedConsumer| {
        let FeedConsumer { owed_new, owed_removed, silent_since, .. } = consumer;
        let fetched = consumer.last_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let owed = match (owed_new, owed_removed) {
            (0, 0) => "nothing".to_owned(),
            (new, removed) => format!("{new} new, {removed} removed"),
        };
        let state = silent_since.map_or_else(|| "ok".to_owned(), |at| format!("SILENT since {at}"));
        let state = if consumer.last_at.is_none() { "never fetched".to_owned() } else { state };
        let sequence = consumer.sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
        [consumer.name.clone(), fetched, cell(consumer.address.as_deref()), sequence, owed, state]
            .map(|text| plain(&text))
            .to_vec()
    };
    let rows: Vec<Vec<String>> = feed.consumers.iter().map(row).collect();
    table(&["consumer", "last fetch", "from", "up to event", "owed", "state"], &rows);
}

/// How feeds are listed.
const FORM: ListForm<'_, FeedView> = ListForm {
    noun: ("feed", "feeds"),
    head: &["name", "form", "entries", "at most", "consumers", "state"],
    more: &[],
    row: &row,
    name: &|feed: &FeedView| feed.name.clone(),
};

fn row(feed: &FeedView) -> Vec<String> {
    let silent = feed.consumers.iter().filter(|consumer| consumer.silent_since.is_some()).count();
    let never = feed.consumers.iter().filter(|consumer| consumer.last_at.is_none()).count();
    let state = match (feed.too_long_since, silent, never) {
        (Some(since), ..) => format!("TOO LONG since {since}"),
        (None, 0, 0) if feed.consumers.is_empty() => "no consumer".to_owned(),
        (None, 0, 0) => "ok".to_owned(),
        (None, 0, never) => format!("{never} never fetched"),
        (None, silent, _) => format!("{silent} SILENT"),
    };
    let columns = [
        feed.name.clone(),
        feed.form.as_str().to_owned(),
        feed.entries.to_string(),
        feed.max_entries.to_string(),
        feed.consumers.len().to_string(),
        state,
    ];
    columns.map(|text| plain(&text)).into()
}
