//! `riposte secret`: values that policies refer to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;

use super::client::{NO_BODY, Remote, segment};
use super::listing::Listing;
use super::session::secret;
use super::shown::ListForm;
use super::terminal::plain;
use crate::views::secrets::{SecretView, SetSecret};

/// Secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// List secrets, without their values.
    List(Listing),
    /// Set a secret; an argument of a policy refers to it as secret:NAME.
    Set {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Name.
        name: String,
        /// File with the value; without it, the value is asked for.
        #[arg(long, value_name = "FILE")]
        value_file: Option<PathBuf>,
        /// An action that may receive it; may be repeated.
        #[arg(long = "action", value_name = "ACTION", required = true)]
        actions: Vec<String>,
    },
    /// Delete a secret that no policy refers to.
    Delete {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Name.
        name: String,
    },
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: SecretCommand) -> anyhow::Result<ExitCode> {
    match command {
        SecretCommand::List(listing) => listing.print("/v1/secrets", &FORM).await?,
        SecretCommand::Set { remote, name, value_file, actions } => {
            let value = secret(value_file.as_deref(), "value", "--value-file")?;
            let path = format!("/v1/secrets/{}", segment(&name));
            remote.send(Method::PUT, &path, None, Some(&SetSecret { value, actions })).await?.accepted()?;
        }
        SecretCommand::Delete { remote, name } => {
            let path = format!("/v1/secrets/{}", segment(&name));
            remote.send(Method::DELETE, &path, None, NO_BODY).await?.accepted()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How secrets are listed.
const FORM: ListForm<'_, SecretView> = ListForm {
    noun: ("secret", "secrets"),
    head: &["name", "for", "used by", "changed", "by"],
    more: &[],
    row: &row,
    name: &|view: &SecretView| view.secret.name.clone(),
};

fn row(view: &SecretView) -> Vec<String> {
    let secret = &view.secret;
    let actions: Vec<String> = secret.actions.read().unwrap_or_default();
    let columns = [
        secret.name.clone(),
        actions.join(", "),
        view.used_by.join(", "),
        secret.changed_at.to_string(),
        secret.changed_by.clone(),
    ];
    columns.map(|text| plain(&text)).into()
}
