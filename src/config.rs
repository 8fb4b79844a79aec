//! GROUND: the configuration. Defaults, then the file, then `RIPOSTE_…` variables, then flags; a key that is not
//! known is an error. `config.default.toml` lists every key with its reason, and a test compares it with this.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::telemetry::LogFormat;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where keys and, without a database URL, the ledger are kept.
    pub data_dir: PathBuf,
    /// `postgres://…` or `sqlite:PATH`; empty means SQLite at `DATA_DIR/riposte.db`.
    pub database_url: String,
    /// How agents reach this manager, if not under the address they enrolled at.
    pub public_url: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Serve plain HTTP on addresses other than loopback: only behind a proxy that ends TLS.
    pub allow_plain_http: bool,
    /// Alerts older than this many days are forgotten, unless a live response refers to them; 0 keeps all.
    pub alert_retention_days: u32,
    /// The largest request body, in bytes, before and after decompression.
    pub max_body_bytes: usize,
    /// The most alerts in one request.
    pub max_batch: usize,
    /// The most bytes of requests with alerts that are being taken in at a time; a request over it is answered 503.
    pub max_pending_bytes: usize,
    /// The most connections at a time; one more is answered 503.
    pub max_connections: usize,
    /// Fields of alerts in which observables are looked for before the known ones: `"source.ip" = ["data.client"]`.
    pub observables: BTreeMap<String, Vec<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8480),
            data_dir: PathBuf::from("data"),
            database_url: String::new(),
            public_url: String::new(),
            log_format: LogFormat::Text,
            allow_plain_http: false,
            alert_retention_days: 30,
            max_body_bytes: 16 * 1024 * 1024,
            max_batch: 10_000,
            max_pending_bytes: 256 * 1024 * 1024,
            max_connections: 20_000,
            observables: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or value that is not known.
    #[error("{path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// Plain HTTP would leave the machine.
    #[error(
        "refusing to serve plain HTTP on {0}: keys would travel readable. Listen on a loopback address, or set \
         allow_plain_http behind a proxy that ends TLS"
    )]
    PlainHttp(SocketAddr),
    /// The largest request would never find room.
    #[error(
        "max_pending_bytes ({pending}) is less than max_body_bytes ({body}): the largest request would never be taken in"
    )]
    Pending {
        /// [`Config::max_pending_bytes`].
        pending: usize,
        /// [`Config::max_body_bytes`].
        body: usize,
    },
}

impl Config {
    /// Reads a file over the defaults.
    ///
    /// # Errors
    /// If it cannot be read or holds anything that is not known.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse { path: path.into(), message: error.to_string() })
    }

    /// Checks what no single key can be blamed for.
    ///
    /// # Errors
    /// [`ConfigError::PlainHttp`], [`ConfigError::Pending`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.allow_plain_http {
            return Err(ConfigError::PlainHttp(self.listen));
        }
        if self.max_pending_bytes < self.max_body_bytes {
            return Err(ConfigError::Pending { pending: self.max_pending_bytes, body: self.max_body_bytes });
        }
        Ok(())
    }

    /// The database's address.
    pub fn database(&self) -> String {
        if self.database_url.is_empty() {
            format!("sqlite:{}", self.data_dir.join("riposte.db").display())
        } else {
            self.database_url.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_says_what_the_code_says() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.default.toml")).unwrap();
        let parsed: Config = toml::from_str(&text).unwrap();
        assert_eq!(parsed, Config::default());
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table.len(), 12, "a key is missing in config.default.toml");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(toml::from_str::<Config>("listne = '127.0.0.1:1'").is_err());
    }

    #[test]
    fn there_is_room_for_the_largest_request() {
        let narrow = Config { max_pending_bytes: 1, ..Config::default() };
        assert!(matches!(narrow.check(), Err(ConfigError::Pending { .. })));
    }

    #[test]
    fn plain_http_stays_on_loopback_unless_told_otherwise() {
        let open = Config { listen: "0.0.0.0:8480".parse().unwrap(), ..Config::default() };
        assert!(matches!(open.check(), Err(ConfigError::PlainHttp(_))));
        assert!(Config { allow_plain_http: true, ..open }.check().is_ok());
        assert!(Config::default().check().is_ok());
    }
}
