//! `riposte key`: API keys, of programs and of oneself.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::client::{NO_BODY, Remote, segment};
use super::listing::Listing;
use super::output::{complain, say};
use super::shown::ListForm;
use super::terminal::{cell, plain};
use crate::domain::duration::Span;
use crate::domain::principal::Role;
use crate::views::keys::{CreateKey, CreatedKey, KeyKind, KeyView};

/// API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List API keys: all of them, or one's own without the right to administer.
    List(Listing),
    /// Make an API key and print it; it is not shown again.
    Add {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Purpose of the key.
        name: String,
        /// What the key may do: viewer, analyst, engineer, admin or ingest.
        #[arg(long, value_parser = role)]
        role: Role,
        /// Make a key of one's own: its requests are the person's. Without it, the key is of a program.
        #[arg(long)]
        personal: bool,
        /// Pipeline whose alerts the key sends.
        #[arg(long)]
        pipeline: Option<String>,
        /// Make the key of a sender that signs its requests (Standard Webhooks), and print its secret.
        #[arg(long)]
        webhook: bool,
        /// The client certificate of a consumer of feeds, in PEM: it is the key's only credential, so nothing is printed.
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// What the key may do at most, as JSON or as @FILE.
        #[arg(long, value_name = "JSON", value_parser = scope)]
        scope: Option<Value>,
        /// Validity; by default until revoked, or 90d with --personal.
        #[arg(long)]
        expires_in: Option<Span>,
    },
    /// Revoke an API key, at once.
    Revoke {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Id of the key.
        id: String,
    },
}

/// Parses the name of a role.
pub(super) fn role(word: &str) -> Result<Role, String> {
    let known = Role::ALL.map(Role::as_str).join(", ");
    Role::parse(word).ok_or_else(|| format!("there is no such role; there are: {known}"))
}

/// Parses a scope: JSON, or `@FILE` with it.
pub(super) fn scope(text: &str) -> Result<Value, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let text = text.strip_prefix('@').map_or_else(|| Ok(text.to_owned()), read)?;
    serde_json::from_str(&text).map_err(|error| format!("is no JSON: {error}"))
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::List(listing) => listing.print("/v1/api-keys", &FORM).await?,
        KeyCommand::Add { remote, name, role, personal, pipeline, webhook, certificate, scope, expires_in } => {
            let kind = if personal { KeyKind::Personal } else { KeyKind::Service };
            let read = |file: &PathBuf| {
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
            };
            let (has_certificate, certificate) = (certificate.is_some(), certificate.as_ref().map(read).transpose()?);
            let asked = CreateKey { name, kind, role, pipeline, expires_in, webhook, certificate, scope };
            let made: CreatedKey = remote.post("/v1/api-keys", &asked).await?;
            if has_certificate {
                complain(&plain(&format!("riposte: the certificate stands for the key {}", made.id)));
            } else {
                let secret = made.key.or(made.webhook_secret).context("the manager returned no key")?;
                say(&plain(&secret));
            }
            if webhook {
                complain(&plain(&format!("riposte: the sender posts to /v1/ingest/{}", made.id)));
            }
            if let Some(at) = made.expires_at {
                complain(&plain(&format!("riposte: the key {} is valid until {at}", made.id)));
            }
        }
        KeyCommand::Revoke { remote, id } => {
            let path = format!("/v1/api-keys/{}", segment(&id));
            remote.send(Method::DELETE, &path, None, NO_BODY).await?.accepted()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How API keys are listed.
const FORM: ListForm<'_, KeyView> = ListForm {
    noun: ("API key", "API keys"),
    head: &["id", "name", "role", "of", "valid until", "last used"],
    more: &[],
    row: &row,
    name: &|view: &KeyView| view.key.id.clone(),
};

fn row(view: &KeyView) -> Vec<String> {
    let key = &view.key;
    let owner = match (&key.user, &key.pipeline) {
        (Some(user), _) => format!("user {user}"),
        (None, Some(pipeline)) => format!("pipeline {pipeline}"),
        (None, None) if key.certificate.is_some() => "a certificate".to_owned(),
        (None, None) => "a service".to_owned(),
    };
    let validity = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) if view.expires_soon => format!("{at}  EXPIRES SOON"),
        (None, Some(at)) => at.to_string(),
        (None, None) => "until revoked".to_owned(),
    };
    let used = match key.last_used_at {
        Some(at) => format!("{at} from {}", cell(key.last_used_from.as_deref())),
        None => "never".to_owned(),
    };
    [key.id.clone(), key.name.clone(), key.role.as_str().to_owned(), owner, validity, used]
        .map(|text| plain(&text))
        .into()
}
