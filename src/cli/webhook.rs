//! `riposte webhook`: who is sent the events of the feed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;

use super::client::{NO_BODY, Remote, segment};
use super::event_selection::EventSelection;
use super::listing::Listing;
use super::output::{complain, say};
use super::reply::Said;
use super::session::secret;
use super::shown::{ListForm, ShownArgs};
use super::terminal::plain;
use crate::domain::duration::Span;
use crate::views::webhooks::{
    AgreeToWebhook, CreateWebhook, ReplayWebhook, UpdateWebhook, WebhookMessage, WebhookReplay, WebhookSecretView,
    WebhookSettings, WebhookTrial, WebhookView,
};

/// Webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// List webhooks, with how each is doing.
    List(Listing),
    /// Add a webhook, and print its secret once.
    Add(Box<AddWebhook>),
    /// Change a webhook: what is not named stays as it is.
    Change(Box<ChangeWebhook>),
    /// Show one webhook.
    Show {
        /// Which manager, and how to print.
        #[command(flatten)]
        shown: ShownArgs,
        /// Name.
        name: String,
    },
    /// Send a test message, and say whether it was taken.
    Test(OneWebhook),
    /// List the messages that it has not taken.
    Messages {
        /// Which manager, and how to print.
        #[command(flatten)]
        listing: Listing,
        /// Name.
        name: String,
    },
    /// Send messages again that were given up.
    Replay {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Name.
        name: String,
        /// Number of an event; may be repeated. Without it all are sent again.
        #[arg(long = "event", value_name = "NUMBER")]
        events: Vec<i64>,
    },
    /// Replace the secret, and print the new one; the one before signs too for a day.
    ReplaceSecret(OneWebhook),
    /// Agree to approve and reject by links in the messages of a webhook that are for you. Needs a login.
    Agree {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Name.
        name: String,
        /// The code in its messages.
        code: String,
    },
    /// Delete a webhook with the messages that it has not taken.
    Delete(OneWebhook),
}

/// A webhook by its name.
#[derive(Debug, Args)]
pub struct OneWebhook {
    #[command(flatten)]
    remote: Remote,
    /// Name.
    name: String,
}

/// Arguments of `riposte webhook add`.
#[derive(Debug, Args)]
pub struct AddWebhook {
    #[command(flatten)]
    remote: Remote,
    /// Name.
    name: String,
    /// Where messages are sent. A path in it that lets a caller in is better given in a file.
    #[arg(long, value_name = "URL", required_unless_present = "url_file")]
    url: Option<String>,
    /// File with the URL.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    url_file: Option<PathBuf>,
    /// File with the secret of the receiver; without it the manager makes one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    wanted: WantedSettings,
}

/// Arguments of `riposte webhook change`.
#[derive(Debug, Args)]
pub struct ChangeWebhook {
    #[command(flatten)]
    remote: Remote,
    /// Name.
    name: String,
    /// Where messages are sent. A path in it that lets a caller in is better given in a file.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the URL.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    url_file: Option<PathBuf>,
    /// Send nothing from now on. What happens meanwhile is not sent later.
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Send again.
    #[arg(long)]
    enable: bool,
    #[command(flatten)]
    wanted: WantedSettings,
}

/// Which events go out, and what of them.
#[derive(Debug, Args)]
pub struct WantedSettings {
    #[command(flatten)]
    selection: EventSelection,
    /// A field that goes out; may be repeated, or have several, separated by commas. Without it: all.
    #[arg(long = "field", value_name = "FIELD", value_delimiter = ',')]
    fields: Vec<String>,
    /// Highest label of the Traffic Light Protocol that goes out whole.
    #[arg(long, value_name = "TLP")]
    ceiling: Option<String>,
    /// What a message is: cloudevents, ocsf, or words for people: slack, teams, ntfy, mail.
    #[arg(long, value_name = "FORM")]
    form: Option<String>,
    /// The user to whom messages go, with links to approve and reject.
    #[arg(long, value_name = "USER")]
    person: Option<String>,
    /// How long to wait, such as 10m; what was settled meanwhile is not told.
    #[arg(long, value_name = "DURATION")]
    after: Option<Span>,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl WantedSettings {
    /// Replaces what is named.
    fn put_into(self, settings: &mut WebhookSettings) {
        let Self { selection: EventSelection { types, policy, agent, target }, fields, .. } = self;
        if !types.is_empty() {
            settings.types = types;
        }
        if !fields.is_empty() {
            settings.fields = Some(fields);
        }
        let texts = [
            (policy, &mut settings.policy),
            (agent, &mut settings.agent),
            (target, &mut settings.target),
            (self.ceiling, &mut settings.ceiling),
            (self.form, &mut settings.form),
            (self.person, &mut settings.person),
        ];
        for (wanted, setting) in texts.into_iter().filter(|(wanted, _)| wanted.is_some()) {
            *setting = wanted;
        }
        settings.after = self.after.or(settings.after);
        if let Some(note) = self.note {
            settings.note = note;
        }
    }
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: WebhookCommand) -> anyhow::Result<ExitCode> {
    match command {
        WebhookCommand::List(listing) => listing.print("/v1/webhooks", &FORM).await?,
        WebhookCommand::Add(args) => add(*args).await?,
        WebhookCommand::Change(args) => change(*args).await?,
        WebhookCommand::Show { shown, name } => show(&shown, &name).await?,
        WebhookCommand::Test(OneWebhook { remote, name }) => {
            let path = format!("/v1/webhooks/{}/test", segment(&name));
            let WebhookTrial { is_taken, fault, millis } =
                remote.send(Method::POST, &path, None, NO_BODY).await?.done()?;
            if !is_taken {
                bail!("{name} did not take the message: {}", fault.unwrap_or_default());
            }
            say(&plain(&format!("{name} took the message in {millis} ms")));
        }
        WebhookCommand::Messages { listing, name } => {
            let path = format!("/v1/webhooks/{}/messages", segment(&name));
            listing.print(&path, &MESSAGES).await?;
        }
        WebhookCommand::Replay { remote, name, events } => {
            let asked = ReplayWebhook { events: (!events.is_empty()).then_some(events) };
            let path = format!("/v1/webhooks/{}/replay", segment(&name));
            let WebhookReplay { messages } = remote.post(&path, &asked).await?;
            let what = if messages == 1 { "1 message is" } else { &format!("{messages} messages are") };
            say(&plain(&format!("{what} sent again to {name}")));
        }
        WebhookCommand::ReplaceSecret(OneWebhook { remote, name }) => {
            let path = format!("/v1/webhooks/{}/secret", segment(&name));
            let WebhookSecretView { secret, previous_until, .. } =
                remote.send(Method::POST, &path, None, NO_BODY).await?.done()?;
            say(&secret);
            if let Some(until) = previous_until {
                complain(&format!("The secret before it signs too until {until}."));
            }
        }
        WebhookCommand::Agree { remote, name, code } => {
            let path = format!("/v1/webhooks/{}/agreement", segment(&name));
            remote.send(Method::POST, &path, None, Some(&AgreeToWebhook { code })).await?.accepted()?;
            say(&plain(&format!("From now on the messages of {name} have links by which you decide")));
        }
        WebhookCommand::Delete(OneWebhook { remote, name }) => {
            let path = format!("/v1/webhooks/{}", segment(&name));
            remote.send(Method::DELETE, &path, None, NO_BODY).await?.accepted()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn change(args: ChangeWebhook) -> anyhow::Result<()> {
    let ChangeWebhook { remote, name, url, url_file, disable, enable, wanted } = args;
    let path = format!("/v1/webhooks/{}", segment(&name));
    let view: WebhookView = remote.get(&path).await?;
    let mut settings: WebhookSettings = view.settings.read()?;
    wanted.put_into(&mut settings);
    settings.is_disabled = (settings.is_disabled || disable) && !enable;
    let from_file = url_file.map(|file| secret(Some(&file), "URL", "--url-file")).transpose()?;
    let asked = UpdateWebhook { url: url.or(from_file), settings };
    remote.send(Method::PUT, &path, Some(view.version), Some(&asked)).await?.accepted()?;
    say(&plain(&format!("{name} is changed. Try it: riposte webhook test {name}")));
    Ok(())
}

async fn add(args: AddWebhook) -> anyhow::Result<()> {
    let AddWebhook { remote, name, url, url_file, secret_file, wanted } = args;
    let url = match url {
        Some(url) => url,
        None => secret(url_file.as_deref(), "URL", "--url-file")?,
    };
    let given = secret_file.map(|file| secret(Some(&file), "secret", "--secret-file")).transpose()?;
    let mut settings = WebhookSettings::default();
    wanted.put_into(&mut settings);
    let person = settings.person.clone();
    // Messages to people and to a syslog receiver have no signature.
    let is_signed = settings.form.as_deref().is_none_or(|form| ["cloudevents", "ocsf"].contains(&form))
        && !url.starts_with("syslog");
    let asked = CreateWebhook { name, url, secret: given, settings };
    let WebhookSecretView { name, secret, .. } = remote.post("/v1/webhooks", &asked).await?;
    if is_signed {
        say(&secret);
        complain(&format!("The receiver verifies messages with this secret. Try it: riposte webhook test {name}"));
    } else {
        say(&plain(&format!("Try it: riposte webhook test {name}")));
        if let Some(person) = person {
            let words = format!(
                "{person} decides by links once the code in the messages was entered: riposte webhook agree {name} CODE"
            );
            say(&plain(&words));
        }
    }
    Ok(())
}

async fn show(shown: &ShownArgs, name: &str) -> anyhow::Result<()> {
    let said: Said<WebhookView> = shown.remote.get(&format!("/v1/webhooks/{}", segment(name))).await?;
    let settings: ShownSettings = said.view.settings.read()?;
    shown.print_one(&said, name, |view| text(view, settings))
}

/// What is shown of one webhook, a line each.
fn text(view: &WebhookView, settings: ShownSettings) -> Vec<String> {
    let or = |words: &[String], none: &str| if words.is_empty() { none.to_owned() } else { words.join(", ") };
    let is_for_people = settings.form.as_deref().is_some_and(|form| !["cloudevents", "ocsf"].contains(&form));
    let untold = if is_for_people { "what people must know" } else { "all but audit.*" };
    let person = match (settings.person, &view.agreed_by) {
        (Some(person), Some(agreed)) if person == *agreed => format!("{person}, who decides by links"),
        (Some(person), _) => format!("{person}, who has not agreed to decide by links"),
        (None, _) => String::new(),
    };
    let at = |at: Option<crate::views::columns::Millis>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let rows = [
        ("name", view.name.clone()),
        ("to", view.place.clone()),
        ("state", view.state.clone()),
        ("form", settings.form.unwrap_or_else(|| "cloudevents".to_owned())),
        ("person", person),
        ("waits", settings.after.unwrap_or_default()),
        ("policy", settings.policy.unwrap_or_default()),
        ("agent", settings.agent.unwrap_or_default()),
        ("target", settings.target.unwrap_or_default()),
        ("types", or(&settings.types, untold)),
        ("fields", or(&settings.fields.unwrap_or_default(), "all")),
        ("ceiling", settings.ceiling.unwrap_or_else(|| "amber".to_owned())),
        ("taken", format!("{}, last {}", view.delivered, at(view.delivered_at))),
        ("behind", view.behind.to_string()),
        ("sent again", view.waiting.to_string()),
        ("given up", view.dead.to_string()),
        ("missed", view.missed.to_string()),
        ("last failure", format!("{} {}", at(view.failed_at), view.fault.clone().unwrap_or_default())),
    ];
    let is_said = |(name, text): &&(&str, String)| !text.is_empty() || *name == "types";
    rows.iter().filter(is_said).map(|(name, text)| format!("{name:<13} {text}").trim_end().to_owned()).collect()
}

/// What is shown of settings; a newer manager may have more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShownSettings {
    types: Vec<String>,
    fields: Option<Vec<String>>,
    ceiling: Option<String>,
    form: Option<String>,
    person: Option<String>,
    after: Option<String>,
    policy: Option<String>,
    agent: Option<String>,
    target: Option<String>,
}

/// How webhooks are listed.
const FORM: ListForm<'_, WebhookView> = ListForm {
    noun: ("webhook", "webhooks"),
    head: &["name", "to", "state", "behind", "sent again", "given up", "last failure"],
    more: &[],
    row: &row,
    name: &|view: &WebhookView| view.name.clone(),
};

fn row(view: &WebhookView) -> Vec<String> {
    let WebhookView { name, place, state, behind, waiting, dead, fault, .. } = view;
    let fault = if state == "failing" { fault.clone() } else { None };
    let columns = [
        name.clone(),
        place.clone(),
        state.clone(),
        behind.to_string(),
        waiting.to_string(),
        dead.to_string(),
        fault.unwrap_or_default(),
    ];
    columns.map(|text| plain(&text)).into()
}

/// How messages are listed.
const MESSAGES: ListForm<'_, WebhookMessage> = ListForm {
    noun: ("message waits", "messages wait"),
    head: &["event", "at", "type", "tries", "next", "last failure"],
    more: &[],
    row: &message_row,
    name: &|message: &WebhookMessage| message.seq.to_string(),
};

fn message_row(message: &WebhookMessage) -> Vec<String> {
    let WebhookMessage { seq, at, r#type, tries, next_at, fault } = message;
    let next = next_at.map_or_else(|| "given up".to_owned(), |at| at.to_string());
    let columns = [seq.to_string(), at.to_string(), r#type.clone(), tries.to_string(), next, fault.clone()];
    columns.map(|text| plain(&text)).into()
}
