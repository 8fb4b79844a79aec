//! `riposte user`: the people who may log in, and one's own password and one-time codes.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::Value;

use super::client::{NO_BODY, Remote, segment};
use super::contexts::Contexts;
use super::key::{role, scope};
use super::listing::Listing;
use super::output::{complain, say};
use super::session::{ProofArgs, change_password, secret};
use super::shown::ListForm;
use super::terminal::{ask, can_ask, cell, plain};
use crate::domain::principal::Role;
use crate::views::auth::{NewTotp, TotpCode};
use crate::views::oidc::LinkIdentity;
use crate::views::users::{ChangeUser, CreateUser, CreatedUser, ForgottenUser, NewPassword, ResetPassword, UserRow};

/// People.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List the people.
    List(Listing),
    /// Add a person, and print a temporary password unless one is given.
    Add {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name, which the person keeps for ever.
        name: String,
        /// What the person may do: viewer, analyst, engineer or admin.
        #[arg(long, value_parser = role)]
        role: Role,
        /// What the person may do at most, as JSON or as @FILE.
        #[arg(long, value_name = "JSON", value_parser = scope)]
        scope: Option<Value>,
        /// File with a password; without it, a temporary one is printed.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Change a person's role, or whether the person can log in.
    Set {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name.
        name: String,
        /// New role.
        #[arg(long, value_parser = role)]
        role: Option<Role>,
        /// What the person may do at most, as JSON or as @FILE; {} takes all limits away.
        #[arg(long, value_name = "JSON", value_parser = scope)]
        scope: Option<Value>,
        /// End the person's sessions and stop the person's keys.
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Let the person log in again.
        #[arg(long)]
        enable: bool,
    },
    /// Give a person a new temporary password and print it; ends the person's sessions.
    ResetPassword {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name.
        name: String,
        /// Remove the one-time codes too, for a person who lost the device.
        #[arg(long)]
        remove_totp: bool,
    },
    /// Disable a person for ever. The name is never given to another person.
    Revoke {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name.
        name: String,
    },
    /// Replace the name of a revoked person by a pseudonym, and remove what names the person from the audit log. It
    /// cannot be undone.
    Forget {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name.
        name: String,
    },
    /// Link a person to a subject at an OpenID provider, so that the person can log in there.
    Link {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name.
        name: String,
        /// Name of the provider in the manager's configuration.
        #[arg(long)]
        provider: String,
        /// Id of the person there (`sub`); the message of a refused login names it.
        #[arg(long)]
        subject: String,
        /// Set the role by the groups at each login there.
        #[arg(long)]
        role_from_groups: bool,
    },
    /// End that a person can log in at an OpenID provider; ends the person's sessions.
    Unlink {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name.
        name: String,
        /// Name of the provider in the manager's configuration.
        #[arg(long)]
        provider: String,
    },
    /// Change one's own password.
    Password {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Login name; by default that of the session.
        #[arg(long)]
        username: Option<String>,
        /// With what.
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// Set up or remove one's own one-time codes.
    Totp {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// A present code: removes the one-time codes.
        #[arg(long, value_name = "CODE")]
        remove: Option<String>,
    },
}

/// Runs one of them.
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn run(command: UserCommand) -> anyhow::Result<ExitCode> {
    match command {
        UserCommand::List(listing) => listing.print("/v1/users", &FORM).await?,
        UserCommand::Add { remote, name, role, scope, password_file } => {
            let password = password_file.map(|path| secret(Some(&path), "password", "--password-file")).transpose()?;
            let made: CreatedUser = remote.post("/v1/users", &CreateUser { name, role, password, scope }).await?;
            print_temporary(&made.user.name, made.temporary_password);
        }
        UserCommand::Set { remote, name, role, scope, disable, enable } => {
            let path = format!("/v1/users/{}", segment(&name));
            let user: UserRow = remote.get(&path).await?;
            let is_disabled = (disable || enable).then_some(disable);
            let change = ChangeUser { role, is_disabled, scope };
            let reply = remote.send(Method::PATCH, &path, Some(user.version), Some(&change)).await?;
            say(&plain(&row(&reply.done()?).join("  ")));
        }
        UserCommand::ResetPassword { remote, name, remove_totp } => {
            let path = format!("/v1/users/{}/reset-password", segment(&name));
            let new: NewPassword = remote.post(&path, &ResetPassword { remove_totp }).await?;
            print_temporary(&name, Some(new.temporary_password));
        }
        UserCommand::Revoke { remote, name } => {
            let path = format!("/v1/users/{}", segment(&name));
            remote.send(Method::DELETE, &path, None, NO_BODY).await?.accepted()?;
        }
        UserCommand::Forget { remote, name } => {
            let path = format!("/v1/users/{}/forget", segment(&name));
            let reply = remote.send(Method::POST, &path, None, NO_BODY).await?;
            let ForgottenUser { pseudonym } = reply.done()?;
            say(&plain(&format!("{name} is {pseudonym} now")));
        }
        UserCommand::Link { remote, name, provider, subject, role_from_groups } => {
            let path = format!("/v1/users/{}/identities/{}", segment(&name), segment(&provider));
            let link = LinkIdentity { subject, role_from_groups };
            remote.send(Method::PUT, &path, None, Some(&link)).await?.accepted()?;
        }
        UserCommand::Unlink { remote, name, provider } => {
            let path = format!("/v1/users/{}/identities/{}", segment(&name), segment(&provider));
            remote.send(Method::DELETE, &path, None, NO_BODY).await?.accepted()?;
        }
        UserCommand::Password { remote, username, proof } => {
            let username = username.or_else(|| of_session(&remote)).context("name the person with --username")?;
            let asked = proof.asked(username)?;
            let new = proof.new_password()?;
            change_password(&remote, &asked, &new).await?;
            complain("riposte: the password is changed, and all sessions have ended: `riposte login`");
        }
        UserCommand::Totp { remote, remove: Some(code) } => {
            let body = TotpCode { code };
            remote.send(Method::DELETE, "/v1/auth/totp", None, Some(&body)).await?.accepted()?;
        }
        UserCommand::Totp { remote, remove: None } => set_up_totp(&remote).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn set_up_totp(remote: &Remote) -> anyhow::Result<()> {
    if !can_ask() {
        bail!("the input is not a terminal: one-time codes are set up by a person at one");
    }
    let reply = remote.send(Method::POST, "/v1/auth/totp", None, NO_BODY).await?;
    let NewTotp { secret, otpauth_uri } = reply.done()?;
    say(&plain(&format!("secret for the authenticator: {secret}")));
    say(&plain(&otpauth_uri));
    let body = TotpCode { code: ask("the code that it shows now")? };
    remote.send(Method::POST, "/v1/auth/totp/confirm", None, Some(&body)).await?.accepted()?;
    say("logins need a one-time code from now on");
    Ok(())
}

/// The person of the session of this context.
fn of_session(remote: &Remote) -> Option<String> {
    let name = remote.target().ok()?.context.clone()?;
    Some(Contexts::read().ok()?.named(&name).ok()?.session.clone()?.username)
}

/// Prints a temporary password alone, so that a script can take it.
fn print_temporary(name: &str, password: Option<String>) {
    if let Some(password) = password {
        say(&plain(&password));
        complain(&plain(&format!("riposte: this is {name}'s temporary password; the first login asks for another")));
    }
}

/// How people are listed.
const FORM: ListForm<'_, UserRow> = ListForm {
    noun: ("person", "people"),
    head: &["name", "role", "state", "one-time codes", "last login"],
    more: &[],
    row: &row,
    name: &|user: &UserRow| user.name.clone(),
};

fn row(user: &UserRow) -> Vec<String> {
    let state = match (user.deleted_at, user.disabled_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("disabled {at}"),
        (None, None) if user.must_change_password => "temporary password".to_owned(),
        (None, None) => "enabled".to_owned(),
    };
    let login = match user.last_login_at {
        Some(at) => format!("{at} from {}", cell(user.last_login_from.as_deref())),
        None => "never".to_owned(),
    };
    let codes = if user.has_totp { "yes" } else { "no" };
    [user.name.clone(), user.role.as_str().to_owned(), state, codes.to_owned(), login].map(|text| plain(&text)).into()
}
