//! `riposte context`: the managers that this account works with.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::client::Remote;
use super::contexts::{Contexts, ManagerContext};
use super::output::say;
use super::terminal::{plain, table};

/// Contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts; the current one has a star.
    List {
        /// Print JSON, without the tokens.
        #[arg(long)]
        json: bool,
    },
    /// Make a context the current one.
    Use {
        /// Name of the context.
        name: String,
    },
    /// Add or replace a context of a manager, without a session; `riposte login` adds one.
    Add {
        /// Name of the context.
        name: String,
        /// URL of the manager.
        #[arg(long)]
        manager: String,
        /// File with the authority of the manager's certificate in PEM.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// File with an API key, used while there is no session.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// Remove a context. A session in it ends by itself, unless `riposte logout` was first.
    Remove {
        /// Name of the context.
        name: String,
    },
}

/// Runs one of them.
///
/// # Errors
/// If the file of contexts cannot be read or changed, or the context does not exist.
pub async fn run(command: ContextCommand) -> anyhow::Result<ExitCode> {
    match command {
        ContextCommand::List { json } => list(json)?,
        ContextCommand::Use { name } => {
            Contexts::change(async |contexts| {
                contexts.named(&name)?;
                contexts.current = Some(name.clone());
                Ok(())
            })
            .await?;
        }
        ContextCommand::Add { name, manager, ca, key_file } => add(name, &manager, ca, key_file).await?,
        ContextCommand::Remove { name } => {
            Contexts::change(async |contexts| {
                contexts.named(&name)?;
                contexts.contexts.remove(&name);
                contexts.current.take_if(|current| *current == name);
                Ok(())
            })
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(name: String, manager: &str, ca: Option<PathBuf>, key_file: Option<PathBuf>) -> anyhow::Result<()> {
    let manager = Remote::checked(manager)?;
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
    let (ca, key_file) = (absolute(ca)?, absolute(key_file)?);
    Contexts::change(async |contexts| {
        contexts.current.get_or_insert_with(|| name.clone());
        contexts.contexts.insert(name, ManagerContext { manager, ca, key_file, session: None });
        Ok(())
    })
    .await
}

fn list(json: bool) -> anyhow::Result<()> {
    let contexts = Contexts::read()?;
    let is_current = |name: &str| contexts.current.as_deref() == Some(name);
    let mut rows = Vec::new();
    for (name, ManagerContext { manager, session, key_file, .. }) in &contexts.contexts {
        let user = session.as_ref().map(|session| session.username.as_str());
        if json {
            let line = serde_json::json!({"name": name, "manager": manager, "user": user, "current": is_current(name)});
            say(&line.to_string());
            continue;
        }
        let credential = match (user, key_file) {
            (Some(user), _) => format!("session of {user}"),
            (None, Some(path)) => format!("key in {}", path.display()),
            (None, None) => "none".to_owned(),
        };
        let star = if is_current(name) { "*" } else { "" };
        rows.push(vec![star.to_owned(), plain(name), plain(manager), plain(&credential)]);
    }
    if !json {
        table(&["", "name", "manager", "credential"], &rows);
    }
    Ok(())
}
