//! GROUND: the configuration. Defaults, then the file, then `RIPOSTE_…` variables, then flags; a key that is not
//! known is an error. `config.default.toml` lists every key with its reason, and a test compares it with this.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
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
    /// Maximum number of simultaneous connections per address that are not authenticated yet;
    /// further ones get 503.
    pub max_unknown_connections: usize,
    /// The most requests in a minute with one API key, alerts handed in left aside; one more is answered 429.
    pub requests_per_minute: u32,
    /// The most requests in a minute of one agent.
    pub agent_requests_per_minute: u32,
    /// The most enrolments in a minute that one address asks for.
    pub enrolments_per_minute: u32,
    /// Addresses and networks of proxies whose word on where a request comes from is believed.
    pub trusted_proxies: Vec<String>,
    /// Alerts that are older than this, or dated ahead, are stored and not responded to: a duration, or `none`.
    pub max_age: String,
    /// What is known of single pipelines, by name.
    pub pipelines: BTreeMap<String, Pipeline>,
    /// Fields of alerts in which observables are looked for before the known ones: `"source.ip" = ["data.client"]`.
    pub observables: BTreeMap<String, Vec<String>>,
}

/// What is known of one pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// Whether its ids name a finding that may occur again; then an alert of another time is another one.
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
    /// What is named as a proxy is no address.
    #[error("trusted_proxies: {0} is no address and no network such as 10.0.0.0/8")]
    Proxy(String),
    /// A limit of 0, which refuses every client.
    #[error("{0} is 0, which would refuse every client; set at least 1")]
    ZeroLimit(&'static str),
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
    /// [`ConfigError::PlainHttp`], [`ConfigError::Pending`], [`ConfigError::Proxy`], [`ConfigError::ZeroLimit`].
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

    /// The proxies whose word is believed.
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
