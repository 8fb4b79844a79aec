//! `riposte signing-key`: the key that signs commands: its rotation on a running manager, and its
//! encryption at rest.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use reqwest::Method;
use riposte_protocol::key::SigningKey;
use riposte_protocol::key_statement::KeyStatement;

use super::client::{NO_BODY, Remote};
use super::keyfiles;
use super::output::say;
use super::passphrase::{CREDENTIAL, Passphrase};
use super::reply::Said;
use super::signing_file::SigningKeyFile;
use super::terminal::plain;
use crate::config::Config;
use crate::views::signing_key::{
    FinishRotation, FinishedRotation, PreparedRevocation, SetRecoveryKey, SignedRevocation, SigningKeyView,
    WaitingAgent,
};

/// Path of the rotation.
const ROTATION: &str = "/v1/signing-key/rotation";
/// Path of a revocation.
const REVOCATION: &str = "/v1/signing-key/revocation";

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
    /// Make a recovery key, which can revoke a stolen signing key, and tell all agents.
    RecoveryKey {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// New file of the private half: move it away from this host, and keep it offline.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Revoke a stolen signing key by the recovery key: agents drop it at once and obey a new one.
    Revoke {
        /// Which manager.
        #[command(flatten)]
        remote: Remote,
        /// File of the recovery key.
        #[arg(long, value_name = "FILE")]
        recovery_key_file: PathBuf,
    },
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
        SigningKeyCommand::RecoveryKey { remote, out } => recovery_key(&remote, &out).await?,
        SigningKeyCommand::Revoke { remote, recovery_key_file } => revoke(&remote, &recovery_key_file).await?,
        SigningKeyCommand::Encrypt { at, new_passphrase_file } => encrypt(at, new_passphrase_file.as_deref())?,
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

/// Makes the recovery key here, and sends its public half.
async fn recovery_key(remote: &Remote, out: &Path) -> anyhow::Result<()> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system's random source failed")?;
    let key = SigningKey::from_seed(&seed)?;
    let shown = out.display();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let written = file.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
    written
        .and_then(|file| {
            writeln!(file, "{}", URL_SAFE_NO_PAD.encode(seed))?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write {shown}"))?;
    let asked = SetRecoveryKey { public_key: key.verifying_key().text() };
    let set: anyhow::Result<SigningKeyView> = remote.post("/v1/signing-key/recovery-key", &asked).await;
    set.with_context(|| format!("{shown} is not the recovery key: delete it"))?;
    say(&format!(
        "The recovery key is in {shown}. Move it to a place that no host of yours reads, such as paper or a safe."
    ));
    say("Agents that are away learn it when they connect.");
    Ok(())
}

/// Signs the revocation here: the recovery key does not leave this process.
async fn revoke(remote: &Remote, file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let seed = URL_SAFE_NO_PAD.decode(text.trim()).ok().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let key = SigningKey::from_seed(&seed.with_context(|| format!("{shown} is not a recovery key"))?)?;
    let prepared = remote.send(Method::POST, REVOCATION, None, NO_BODY).await?.done::<PreparedRevocation>()?;
    let claims: KeyStatement = serde_json::from_value(prepared.claims).context("the manager's statement")?;
    ensure!(
        claims.recovery.as_deref() == Some(&key.verifying_key().text()),
        "{shown} is not the recovery key of this manager"
    );
    let statement = claims.sign(&key, &key.verifying_key().kid())?;
    let reply = remote.send(Method::PUT, REVOCATION, None, Some(&SignedRevocation { statement })).await?;
    let view: SigningKeyView = reply.done()?;
    say(&plain(&format!("The keys of before are revoked; {} signs now.", view.kid)));
    say("Agents that are away drop the stolen key when they connect. Make a backup and new enrolment tokens.");
    Ok(())
}

fn encrypt(at: KeyFileArgs, new_passphrase_file: Option<&Path>) -> anyhow::Result<()> {
    let (dir, passphrase) = at.read()?;
    let after = new_passphrase_file.map(Passphrase::read).transpose()?;
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

fn stopped(dir: &Path) -> anyhow::Result<std::fs::File> {
    ensure!(dir.is_dir(), "there is no data directory {}", dir.display());
    keyfiles::lock(dir).context("stop the manager first")
}
