//! `riposte login`, `logout` and `whoami`: a person's session at a manager, kept in a context.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use reqwest::{Method, StatusCode};

use super::client::{NO_BODY, Remote};
use super::contexts::{CliSession, Contexts, ManagerContext};
use super::output::say;
use super::reply::Said;
use super::shown::ShownArgs;
use super::sso;
use super::terminal::{ask, ask_secret, can_ask, cell, plain};
use crate::views::auth::{AskToken, ChangePassword, CredentialKind, EndedSession, IssuedToken, PrincipalKind, WhoAmI};

/// The problem of a login that needs a one-time code.
const TOTP_REQUIRED: &str = "totp-required";
/// The problem of a login with a temporary password.
const PASSWORD_CHANGE_REQUIRED: &str = "password-change-required";

/// Where to log in, and as whom.
#[derive(Debug, Args)]
pub struct LoginArgs {
    #[command(flatten)]
    remote: Remote,
    /// Name of the person; asked for if absent.
    #[arg(long, env = "RIPOSTE_USERNAME")]
    username: Option<String>,
    #[command(flatten)]
    proof: ProofArgs,
    /// Log in with a browser at this OpenID provider; without a name, at the only one of the manager.
    #[arg(long, value_name = "PROVIDER", num_args = 0..=1, default_missing_value = "",
        conflicts_with_all = ["username", "password_file", "new_password_file", "totp"])]
    sso: Option<String>,
    /// Name of the context; by default that of the manager, or the manager's host.
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

/// What a person proves the identity with. What is absent is asked for.
#[derive(Debug, Args)]
pub struct ProofArgs {
    /// File with the password; asked for if absent.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with the new password, where one is needed; asked for if absent.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// One-time code, where one is needed.
    #[arg(long, value_name = "CODE")]
    totp: Option<String>,
}

impl ProofArgs {
    /// The login of that person.
    ///
    /// # Errors
    /// As [`secret`].
    pub(super) fn asked(&self, username: String) -> anyhow::Result<AskToken> {
        let password = secret(self.password_file.as_deref(), "password", "--password-file")?;
        let totp = self.totp.clone();
        Ok(AskToken { username: Some(username), password: Some(password), totp, ..AskToken::default() })
    }

    /// Reads the new password from its file, or asks for it twice.
    ///
    /// # Errors
    /// As [`secret`], or if the two differ.
    pub(super) fn new_password(&self) -> anyhow::Result<String> {
        let file = self.new_password_file.as_deref();
        let new = secret(file, "new password", "--new-password-file")?;
        ensure!(file.is_some() || ask_secret("new password again")? == new, "the two passwords differ");
        Ok(new)
    }
}

/// `riposte login`
///
/// # Errors
/// If the manager cannot be reached or refuses, or the session cannot be stored.
pub async fn login(args: LoginArgs) -> anyhow::Result<ExitCode> {
    let LoginArgs { remote, username, proof, sso, name } = args;
    let target = remote.target()?.clone();
    let (username, issued) = match sso {
        Some(provider) => {
            let issued = sso::log_in(&remote, &provider).await?;
            (issued.username.clone(), issued)
        }
        None => by_password(&remote, username, &proof).await?,
    };
    let name = name.or(target.context).unwrap_or_else(|| default_name(&target.manager));
    let session = CliSession::new(username.clone(), issued);
    Contexts::change(async |contexts| {
        let context = contexts.contexts.entry(name.clone()).or_insert_with(|| ManagerContext {
            manager: target.manager.clone(),
            ca: None,
            key_file: None,
            session: None,
        });
        ensure!(
            context.manager == target.manager,
            "the context {name} is of {}: choose another name with --as",
            context.manager
        );
        context.ca = target.ca.as_deref().map(std::path::absolute).transpose()?;
        context.session = Some(session);
        contexts.current = Some(name.clone());
        Ok(())
    })
    .await?;
    say(&plain(&format!("logged in at {} as {username}; the context {name} is the current one", target.manager)));
    Ok(ExitCode::SUCCESS)
}

/// Logs in with a password, and asks for what is missing.
async fn by_password(
    remote: &Remote,
    username: Option<String>,
    proof: &ProofArgs,
) -> anyhow::Result<(String, IssuedToken)> {
    let username = match username {
        Some(username) => username,
        None if can_ask() => ask("username")?,
        None => bail!("the input is not a terminal: name the person with --username, or log in with --sso"),
    };
    let mut asked = proof.asked(username)?;
    let issued: IssuedToken = loop {
        let reply = remote.post_unsigned("/v1/auth/token", &asked).await?;
        match reply.problem_word().as_deref() {
            Some(TOTP_REQUIRED) if asked.totp.is_none() && can_ask() => asked.totp = Some(ask("one-time code")?),
            Some(PASSWORD_CHANGE_REQUIRED) => {
                let new = proof.new_password()?;
                change_password(remote, &asked, &new).await?;
                asked.password = Some(new);
                // A one-time code is good for one request.
                asked.totp = None;
            }
            _ => break reply.done()?,
        }
    };
    Ok((asked.username.unwrap_or_default(), issued))
}

/// `riposte logout`
///
/// # Errors
/// If there is no session, or the file of contexts cannot be changed.
pub async fn logout(remote: Remote) -> anyhow::Result<ExitCode> {
    let target = remote.target()?.clone();
    let Some(name) = target.context else {
        bail!("no session at {} is known here", target.manager);
    };
    let session = Contexts::read()?.named(&name)?.session.clone();
    let Some(session) = session else { bail!("the context {name} has no session") };
    // The session is forgotten here even if the manager cannot be told: then it ends by itself.
    let told = async {
        let reply = remote.send(Method::DELETE, "/v1/auth/token", None, NO_BODY).await?;
        if reply.status == StatusCode::OK {
            reply.done::<EndedSession>().map(Some)
        } else {
            reply.accepted().map(|()| None)
        }
    };
    let told = told.await;
    Contexts::change(async |contexts| {
        if let Some(context) = contexts.contexts.get_mut(&name) {
            context.session = None;
        }
        Ok(())
    })
    .await?;
    let ended = told.map_err(|error| {
        let until = session.refresh_expires_at;
        error.context(format!(
            "the session of {} is forgotten here, but the manager could not end it: it ends by {until}",
            session.username
        ))
    })?;
    say(&plain(&format!("{} is logged out at {}", session.username, target.manager)));
    if let Some(EndedSession { end_session_url }) = ended {
        say(&plain(&format!("the session at the OpenID provider goes on; end it at {end_session_url}")));
    }
    Ok(ExitCode::SUCCESS)
}

/// `riposte whoami`
///
/// # Errors
/// If the manager cannot be asked, or refuses.
pub async fn whoami(shown: ShownArgs) -> anyhow::Result<ExitCode> {
    let said: Said<WhoAmI> = shown.remote.get("/v1/whoami").await?;
    let principal = said.view.principal.clone();
    shown.print_one(&said, &principal, who)?;
    Ok(ExitCode::SUCCESS)
}

fn who(view: &WhoAmI) -> Vec<String> {
    let WhoAmI { principal, kind, name, role, rights, via, key_id, expires_at, expires_soon, address, .. } = view;
    let via = match via {
        CredentialKind::Session => "a session".to_owned(),
        CredentialKind::Key => format!("the key {}", cell(key_id.as_ref())),
    };
    // A person's name is in the principal; a service key has one beside its id.
    let name = if *kind == PrincipalKind::Service { format!(" ({name})") } else { String::new() };
    let mut lines = vec![
        format!("{principal}{name}, role {}, by {via}, from {address}", role.as_str()),
        format!("rights: {}", rights.join(" ")),
    ];
    if let Some(at) = expires_at {
        let soon = if *expires_soon { ": make a new key before (`riposte key add`)" } else { "" };
        lines.push(format!("valid until {at}{soon}"));
    }
    lines
}

/// Changes the password of `asked` to `new`.
///
/// # Errors
/// If the manager refuses.
pub(super) async fn change_password(remote: &Remote, asked: &AskToken, new: &str) -> anyhow::Result<()> {
    let body = ChangePassword {
        username: asked.username.clone().unwrap_or_default(),
        password: asked.password.clone().unwrap_or_default(),
        totp: asked.totp.clone(),
        new_password: new.to_owned(),
    };
    remote.post_unsigned("/v1/auth/password", &body).await?.accepted()
}

/// Reads a secret from a file, or asks for it.
///
/// # Errors
/// If the file cannot be read, or there is neither a file nor a terminal.
pub(super) fn secret(file: Option<&Path>, what: &str, argument: &str) -> anyhow::Result<String> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    ensure!(can_ask(), "the input is not a terminal: name a file with the {what} ({argument})");
    ask_secret(what)
}

/// The name of a new context: the manager's host and port.
fn default_name(manager: &str) -> String {
    manager.split_once("://").map_or(manager, |(_, host)| host).to_owned()
}
