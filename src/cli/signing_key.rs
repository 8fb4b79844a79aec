//! `riposte signing-key`: the key that signs commands: its rotation on a running manager, and its
//! encryption at rest.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::{NO_BODY, Remote};
use super::keyfiles;
use super::output::say;
use super::passphrase::{CREDENTIAL, Passphrase};
use super::reply::Said;
use super::signing_file::SigningKeyFile;
use super::terminal::plain;
use crate::config::Config;
use crate::views::signing_key::{FinishRotation, FinishedRotation, SigningKeyView, WaitingAgent};

/// Path of the rotation.
const ROTATION: &str = "/v1/signing-key/rotation";

/// The signing key.
#[derive(Debug, Subcommand)]
pub(super) enum SigningKeyCommand {
    /// Encrypt signing.key with a passphrase, or with another one. The manager must be stopped.
    Encrypt {
        #[command(flatten)]
        at: KeyFileArgs,
        /// File of the new passphrase, if the key is encrypted with another one already.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Make a new signing key and announce it to all agents, which need not enrol again.
    Rotate(Remote),
    /// Show the signing key, and which agents have not confirmed a new one.
    Status {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a rotation, which ends by itself when all agents have confirmed the new key.
    Finish {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// End it although agents have not confirmed.
        #[arg(long)]
        force: bool,
    },
    /// Take a rotation back: the old key signs as before.
    Cancel(Remote),
    /// Store signing.key in clear. The manager must be stopped.
    Decrypt {
        #[command(flatten)]
        at: KeyFileArgs,
    },
}

/// The key file, and its passphrase.
#[derive(Debug, Args)]
pub(super) struct KeyFileArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "RIPOSTE_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory of the manager.
    #[arg(long, env = "RIPOSTE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// File of the passphrase; only its owner may read it.
    #[arg(long, env = "RIPOSTE_KEY_PASSPHRASE_FILE", value_name = "FILE")]
    key_passphrase_file: Option<PathBuf>,
}

impl KeyFileArgs {
    /// The data directory and the passphrase.
    fn read(self) -> anyhow::Result<(PathBuf, Passphrase)> {
        let server = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?.server;
        let passphrase = Passphrase::of(&self.key_passphrase_file.unwrap_or(server.key_passphrase_file))?;
        let passphrase = passphrase.context("name the file of the passphrase with --key-passphrase-file")?;
        Ok((self.data_dir.unwrap_or(server.data_dir), passphrase))
    }
}

/// Runs one of them.
///
/// # Errors
/// If the manager refuses, or runs where it must not; or a file cannot be read or written.
pub(super) async fn run(command: SigningKeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        SigningKeyCommand::Rotate(remote) => {
            let view: SigningKeyView = remote.send(Method::POST, ROTATION, None, NO_BODY).await?.done()?;
            show(&view);
        }
        SigningKeyCommand::Status { remote, json } => {
            let said: Said<SigningKeyView> = remote.get("/v1/signing-key").await?;
            if json {
                say(&serde_json::to_string_pretty(&said.json)?);
            } else {
                show(&said.view);
            }
        }
        SigningKeyCommand::Finish { remote, force } => {
            let finished: FinishedRotation =
                remote.post(&format!("{ROTATION}/finish"), &FinishRotation { force }).await?;
            say(&plain(&format!("{} signs now.", finished.kid)));
            list("Not confirmed by", finished.left_behind_count, &finished.left_behind);
        }
        SigningKeyCommand::Cancel(remote) => {
            remote.send(Method::DELETE, ROTATION, None, NO_BODY).await?.accepted()?;
            say("The rotation is taken back; the old key signs as before.");
        }
        SigningKeyCommand::Encrypt { at, new_passphrase_file } => encrypt(at, new_passphrase_file)?,
        SigningKeyCommand::Decrypt { at } => decrypt(at)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(view: &SigningKeyView) {
    let Some(rotation) = &view.rotation else {
        return say(&plain(&format!("{} signs. No rotation is under way.", view.kid)));
    };
    say(&plain(&format!("{} signs until all agents have confirmed {}.", view.kid, rotation.kid)));
    say(&plain(&format!(
        "Started at {} by {}; {} agents have confirmed, {} have not.",
        rotation.started_at, rotation.started_by, rotation.confirmed, rotation.waiting_count
    )));
    list("Waiting for", rotation.waiting_count, &rotation.waiting);
}

fn list(what: &str, count: usize, agents: &[WaitingAgent]) {
    for agent in agents {
        say(&plain(&format!("{what} {}: {}", agent.name, agent.reason)));
    }
    if count > agents.len() {
        say(&format!("… and {} more", count - agents.len()));
    }
}

fn encrypt(at: KeyFileArgs, new_passphrase_file: Option<PathBuf>) -> anyhow::Result<()> {
    let (dir, passphrase) = at.read()?;
    let after = new_passphrase_file.as_deref().map(Passphrase::read).transpose()?;
    let _lock = stopped(&dir)?;
    let plain = SigningKeyFile::new(&dir, None);
    let path = dir.join(keyfiles::SIGNING_KEY).display().to_string();
    match (plain.is_sealed()?, &after) {
        (None, _) => bail!("there is no {path}"),
        (Some(false), None) => plain.rewrite(Some(&passphrase))?,
        (Some(false), Some(_)) => bail!("{path} is not encrypted: leave --new-passphrase-file out"),
        (Some(true), Some(after)) => SigningKeyFile::new(&dir, Some(&passphrase)).rewrite(Some(after))?,
        (Some(true), None) => {
            bail!("{path} is encrypted already; --new-passphrase-file names the file of another passphrase")
        }
    }
    say(&format!(
        "{path} is encrypted. Without the passphrase it is lost: keep a copy elsewhere. Start the manager with \
         key_passphrase_file or the credential {CREDENTIAL}."
    ));
    say("Copies that were made before, such as backups, are in clear.");
    Ok(())
}

fn decrypt(at: KeyFileArgs) -> anyhow::Result<()> {
    let (dir, passphrase) = at.read()?;
    let _lock = stopped(&dir)?;
    let sealed = SigningKeyFile::new(&dir, Some(&passphrase));
    let path = dir.join(keyfiles::SIGNING_KEY).display().to_string();
    ensure!(sealed.is_sealed()? == Some(true), "{path} is not encrypted");
    sealed.rewrite(None)?;
    say(&format!("{path} is in clear."));
    Ok(())
}

fn stopped(dir: &std::path::Path) -> anyhow::Result<std::fs::File> {
    ensure!(dir.is_dir(), "there is no data directory {}", dir.display());
    keyfiles::lock(dir).context("stop the manager first")
}
