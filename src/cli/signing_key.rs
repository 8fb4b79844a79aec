//! `riposte signing-key`: the key that signs commands, at rest.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};

use super::keyfiles;
use super::output::say;
use super::passphrase::Passphrase;
use super::signing_file::SigningKeyFile;
use crate::config::Config;

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
/// If the manager runs, or a file cannot be read or written.
pub(super) fn run(command: SigningKeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        SigningKeyCommand::Encrypt { at, new_passphrase_file } => {
            let (dir, passphrase) = at.read()?;
            let after = new_passphrase_file.as_deref().map(Passphrase::read).transpose()?;
            let _lock = stopped(&dir)?;
            let plain = SigningKeyFile::new(&dir, None);
            let path = dir.join(keyfiles::SIGNING_KEY);
            match (plain.is_sealed()?, &after) {
                (None, _) => bail!("there is no {}", path.display()),
                (Some(false), None) => plain.rewrite(Some(&passphrase))?,
                (Some(false), Some(_)) => {
                    bail!("{} is not encrypted: leave --new-passphrase-file out", path.display())
                }
                (Some(true), Some(after)) => {
                    SigningKeyFile::new(&dir, Some(&passphrase)).rewrite(Some(after))?;
                }
                (Some(true), None) => bail!(
                    "{} is encrypted already; --new-passphrase-file names the file of another passphrase",
                    path.display()
                ),
            }
            say(&format!(
                "{} is encrypted. Without the passphrase it is lost: keep a copy elsewhere. Start the manager with \
                 key_passphrase_file or the credential {}.",
                path.display(),
                super::passphrase::CREDENTIAL
            ));
            say("Copies that were made before, such as backups, are in clear.");
        }
        SigningKeyCommand::Decrypt { at } => {
            let (dir, passphrase) = at.read()?;
            let _lock = stopped(&dir)?;
            let sealed = SigningKeyFile::new(&dir, Some(&passphrase));
            let path = dir.join(keyfiles::SIGNING_KEY);
            ensure!(sealed.is_sealed()? == Some(true), "{} is not encrypted", path.display());
            sealed.rewrite(None)?;
            say(&format!("{} is in clear.", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn stopped(dir: &std::path::Path) -> anyhow::Result<std::fs::File> {
    ensure!(dir.is_dir(), "there is no data directory {}", dir.display());
    keyfiles::lock(dir).context("stop the manager first")
}
