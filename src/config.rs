//! The configuration: defaults, then the file, then `RIPOSTE_…` variables, then flags. An unknown
//! key is an error. `config.default.toml` lists every key with its reason, and a test compares it
//! with this file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use crate::telemetry::LogFormat;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listening address.
    pub listen: SocketAddr,
    /// Directory of the keys and, without a database URL, the ledger.
    pub data_dir: PathBuf,
    /// `postgres://…` or `sqlite:PATH`; empty: SQLite at `DATA_DIR/riposte.db`.
    pub database_url: String,
    /// URL under which agents reach this manager, if not the one of their enrolment.
    pub public_url: String,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Serve plain HTTP on addresses other than loopback: only behind a TLS proxy.
    pub allow_plain_http: bool,
    /// Retention of alerts in days, except those that an open response refers to; 0 keeps all.
    pub alert_retention_days: u32,
    /// Maximum request body, in bytes, before and after decompression.
    pub max_body_bytes: usize,
    /// Maximum number of alerts per request.
    pub max_batch: usize,
    /// Maximum memory for uncommitted alert requests, in bytes; beyond it requests get 503.
    pub max_pending_bytes: usize,
    /// Maximum number of connections; further ones get 503.
    pub max_connections: usize,
    /// Maximum number of simultaneous connections per address that are not authenticated yet;
    /// further ones get 503.
    pub max_unknown_connections: usize,
    /// Maximum requests per minute and API key, without alert requests; beyond it requests get 429.
    pub requests_per_minute: u32,
    /// Maximum requests per minute and agent.
    pub agent_requests_per_minute: u32,
    /// Maximum enrolments per minute and address.
    pub enrolments_per_minute: u32,
    /// Addresses and networks of proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<String>,
    /// Maximum age of an alert for a response, a duration or `none`; older or future alerts are
    /// only stored.
    pub max_age: String,
    /// Settings of single pipelines, by name.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// Site-specific fields for observables, tried before the known ones:
    /// `"source.ip" = ["data.client"]`.
    pub observables: BTreeMap<String, Vec<String>>,
}

/// Settings of one pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// Whether its ids name a recurring finding; an alert with another event time is then a new
    /// one.
    pub ids_recur: Option<bool>,
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
            max_unknown_connections: 12_000,
            requests_per_minute: 30_000,
            agent_requests_per_minute: 6000,
            enrolments_per_minute: 12_000,
            trusted_proxies: Vec::new(),
            max_age: "1h".into(),
            pipelines: BTreeMap::new(),
            observables: BTreeMap::new(),
        }
    }
}

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The I/O error.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or value.
    #[error("{path}: {message}")]
    Parse {
        /// Path of the file.
        path: PathBuf,
        /// The error, with line and column.
        message: String,
    },
    /// Plain HTTP would be served beyond loopback.
    #[error(
        "refusing to serve plain HTTP on {0}: keys would travel unencrypted. Listen on a loopback address, or set \
         allow_plain_http behind a proxy that ends TLS"
    )]
    PlainHttp(SocketAddr),
    /// A trusted proxy is not an address.
    #[error("trusted_proxies: {0} is neither an address nor a network such as 10.0.0.0/8")]
    Proxy(String),
    /// A limit of 0, which refuses every client.
    #[error("{0} is 0, which would refuse every client; set at least 1")]
    ZeroLimit(&'static str),
    /// The largest request would never fit into the memory limit.
    #[error(
        "max_pending_bytes ({pending}) is less than max_body_bytes ({body}): the largest request would always be refused"
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
    /// If it cannot be read, or has an unknown key or value.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse { path: path.into(), message: error.to_string() })
    }

    /// Checks values and their combinations.
    ///
    /// # Errors
    /// [`ConfigError::PlainHttp`], [`ConfigError::Pending`], [`ConfigError::Proxy`],
    /// [`ConfigError::ZeroLimit`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.allow_plain_http {
            return Err(ConfigError::PlainHttp(self.listen));
        }
        if self.max_pending_bytes < self.max_body_bytes {
            return Err(ConfigError::Pending { pending: self.max_pending_bytes, body: self.max_body_bytes });
        }
        for (name, is_none) in [
            ("max_unknown_connections", self.max_unknown_connections == 0),
            ("requests_per_minute", self.requests_per_minute == 0),
            ("agent_requests_per_minute", self.agent_requests_per_minute == 0),
            ("enrolments_per_minute", self.enrolments_per_minute == 0),
        ] {
            if is_none {
                return Err(ConfigError::ZeroLimit(name));
            }
        }
        self.proxies()?;
        Ok(())
    }

    /// The trusted proxies.
    ///
    /// # Errors
    /// [`ConfigError::Proxy`].
    pub fn proxies(&self) -> Result<Vec<IpNet>, ConfigError> {
        let network = |text: &String| {
            let text = text.trim();
            let one = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| one()).map_err(|_| ConfigError::Proxy(text.to_owned()))
        };
        self.trusted_proxies.iter().map(network).collect()
    }

    /// The database URL.
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
    fn the_default_file_matches_the_code() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.default.toml")).unwrap();
        let parsed: Config = toml::from_str(&text).unwrap();
        assert_eq!(parsed, Config::default());
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table.len(), 19, "a key is missing in config.default.toml");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(toml::from_str::<Config>("listne = '127.0.0.1:1'").is_err());
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let config = |proxy: &str| Config { trusted_proxies: vec![proxy.into()], ..Config::default() };
        for proxy in ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32", " ::1 "] {
            assert_eq!(config(proxy).proxies().unwrap().len(), 1, "{proxy}");
        }
        for proxy in ["", "proxy.example.org", "10.0.0.0/33", "127.0.0.1:80"] {
            assert!(config(proxy).check().is_err(), "{proxy}");
        }
    }

    #[test]
    fn the_memory_limit_fits_the_largest_request() {
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
