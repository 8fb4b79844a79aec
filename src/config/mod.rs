//! The configuration: defaults, then the file, then `RIPOSTE_…` variables, then flags. An unknown
//! key is an error. `config.default.toml` lists every key with its reason, and a test compares it
//! with this file.

mod checkpoints;
mod file;
mod oidc;
mod pipelines;
mod sections;
mod telemetry;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use reqwest::Url;
use serde::Deserialize;

pub use checkpoints::{CheckpointPlaces, SyslogAddress, WebhookAddress};
pub use file::{ConfigFile, ConfigFileFault};
pub use oidc::{OidcFault, OidcProvider, is_safe};
pub use pipelines::MappingSpec;
pub use sections::{
    Alerts, Audit, ClientLimits, ConfigFlags, EgressHosts, Responses, RetentionAges, Server, Telemetry,
};
pub use telemetry::SampleRatio;

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the manager listens and keeps its data.
    pub server: Server,
    /// What becomes of alerts.
    pub alerts: Alerts,
    /// What people may do by hand.
    pub responses: Responses,
    /// What proves the audit log.
    pub audit: Audit,
    /// Which hosts the manager may call.
    pub egress: EgressHosts,
    /// How long what happened is kept.
    pub retention: RetentionAges,
    /// Where traces and metrics go.
    pub telemetry: Telemetry,
    /// How much clients may ask for.
    pub limits: ClientLimits,
    /// Mappings of the alerts of pipelines, by name.
    pub pipelines: BTreeMap<String, MappingSpec>,
    /// Site-specific fields for observables, tried before the known ones:
    /// `"source.ip" = ["data.client"]`.
    pub observables: BTreeMap<String, Vec<String>>,
    /// OpenID providers at which people log in.
    pub oidc: Vec<OidcProvider>,
    /// Keys that the file has outside their section, where they were before there were sections.
    #[serde(skip)]
    pub misplaced: Vec<&'static str>,
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
        "refusing to serve plain HTTP on {0}: keys would travel unencrypted. Set tls_cert and tls_key (`riposte tls \
         self-signed` makes some), listen on a loopback address, or set allow_plain_http behind a proxy that ends TLS"
    )]
    PlainHttp(SocketAddr),
    /// One of the keys for TLS without the other.
    #[error("{missing} is missing: TLS needs tls_cert and tls_key together")]
    HalfTls {
        /// The missing key.
        missing: &'static str,
    },
    /// A trusted proxy is not an address.
    #[error("trusted_proxies: {0} is neither an address nor a network such as 10.0.0.0/8")]
    Proxy(String),
    /// The address of a syslog receiver is none.
    #[error("audit_checkpoint_syslog: {0} is not tls://HOST:PORT, tcp://HOST:PORT, udp://HOST:PORT or unix:/PATH")]
    Syslog(String),
    /// The webhook of checkpoints cannot be used as it is set.
    #[error("{0}")]
    Webhook(&'static str),
    /// The OTLP collector cannot be used as it is set.
    #[error("{0}")]
    Otlp(&'static str),
    /// An OpenID provider cannot be used as it is set.
    #[error(transparent)]
    Oidc(#[from] OidcFault),
    /// A limit of 0, which refuses every client.
    #[error("{0} is 0, which would refuse every client; set at least 1")]
    ZeroLimit(&'static str),
    /// The largest request would never fit into the memory limit.
    #[error(
        "max_pending_bytes ({pending}) is less than max_body_bytes ({body}): the largest request would always be refused"
    )]
    Pending {
        /// [`ClientLimits::max_pending_bytes`].
        pending: usize,
        /// [`ClientLimits::max_body_bytes`].
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
        Self::parse(&text).map_err(|error| ConfigError::Parse { path: path.into(), message: error.to_string() })
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let mut table: toml::Table = toml::from_str(text)?;
        let misplaced: Vec<_> = sections::KEYS.iter().filter(|(key, _)| table.contains_key(*key)).copied().collect();
        if misplaced.is_empty() {
            // From the text, since an error then has its line.
            return toml::from_str(text);
        }
        for (key, section) in &misplaced {
            let Some(value) = table.remove(*key) else { continue };
            let section = table.entry(*section).or_insert_with(|| toml::Table::new().into());
            if let Some(section) = section.as_table_mut() {
                section.entry(*key).or_insert(value);
            }
        }
        let config: Self = table.try_into()?;
        Ok(Self { misplaced: misplaced.into_iter().map(|(key, _)| key).collect(), ..config })
    }

    /// Sets what the flags and variables say, and checks the whole.
    ///
    /// # Errors
    /// As [`Config::check`].
    pub fn with(self, flags: ConfigFlags) -> Result<Self, ConfigError> {
        let config = self.with_flags(flags);
        config.check()?;
        Ok(config)
    }

    /// Sets what the flags and variables say, and checks nothing.
    #[must_use]
    pub fn with_flags(mut self, flags: ConfigFlags) -> Self {
        let Self { server, alerts, responses, audit, egress, retention, telemetry, limits, .. } = &mut self;
        flags.apply(server, alerts, responses, audit, egress, retention, telemetry, limits);
        self
    }

    /// Checks values and their combinations.
    ///
    /// # Errors
    /// The first of [`Config::faults`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.faults().into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Every fault of values and their combinations, each with its key: `server.tls_key`,
    /// `oidc.0.issuer`.
    pub fn faults(&self) -> Vec<(String, ConfigError)> {
        let mut faults = self.listener_faults();
        let mut fault = |key: &str, error: ConfigError| faults.push((key.to_owned(), error));
        if self.limits.max_pending_bytes < self.limits.max_body_bytes {
            let (pending, body) = (self.limits.max_pending_bytes, self.limits.max_body_bytes);
            fault("limits.max_pending_bytes", ConfigError::Pending { pending, body });
        }
        for (name, is_none) in [
            ("max_unknown_connections", self.limits.max_unknown_connections == 0),
            ("requests_per_minute", self.limits.requests_per_minute == 0),
            ("agent_requests_per_minute", self.limits.agent_requests_per_minute == 0),
            ("enrolments_per_minute", self.limits.enrolments_per_minute == 0),
        ] {
            if is_none {
                fault(&format!("limits.{name}"), ConfigError::ZeroLimit(name));
            }
        }
        for error in self.server.trusted_proxies.iter().filter_map(|text| proxy(text).err()) {
            fault("server.trusted_proxies", error);
        }
        if let Err(error) = self.checkpoint_syslog() {
            fault("audit.audit_checkpoint_syslog", error);
        }
        if let Err(error) = self.checkpoint_webhook() {
            let has_url = !self.audit.audit_checkpoint_webhook.trim().is_empty();
            let key = if has_url { "audit_checkpoint_webhook" } else { "audit_checkpoint_webhook_secret_file" };
            fault(&format!("audit.{key}"), error);
        }
        if let Err(error) = self.otlp_endpoint() {
            let has_url = !self.telemetry.otlp_endpoint.trim().is_empty();
            fault(if has_url { "telemetry.otlp_endpoint" } else { "telemetry.otlp_headers_file" }, error);
        }
        for (index, error) in oidc::faults(&self.oidc) {
            fault(&format!("oidc.{index}.{}", error.key), error.into());
        }
        faults
    }

    fn listener_faults(&self) -> Vec<(String, ConfigError)> {
        let Server { tls_cert, tls_key, tls_client_ca, .. } = &self.server;
        let is_given = |path: &Path| !path.as_os_str().is_empty();
        let mut faults = Vec::new();
        if is_given(tls_cert) != is_given(tls_key) {
            let (given, missing) = if is_given(tls_cert) { ("tls_cert", "tls_key") } else { ("tls_key", "tls_cert") };
            faults.push((format!("server.{given}"), ConfigError::HalfTls { missing }));
        } else if is_given(tls_client_ca) && !is_given(tls_cert) {
            faults.push(("server.tls_client_ca".to_owned(), ConfigError::HalfTls { missing: "tls_cert" }));
        }
        if !self.server.listen.ip().is_loopback() && !is_given(tls_cert) && !self.server.allow_plain_http {
            faults.push(("server.listen".to_owned(), ConfigError::PlainHttp(self.server.listen)));
        }
        faults
    }

    /// The keys that differ from their defaults: `server.listen`. Tables and providers count as one.
    pub fn changed(&self) -> Vec<&'static str> {
        let Self { server, alerts, responses, audit, egress, retention, telemetry, limits, .. } = self;
        let tables = [
            ("pipelines", self.pipelines.is_empty()),
            ("observables", self.observables.is_empty()),
            ("oidc", self.oidc.is_empty()),
        ];
        let tables = tables.into_iter().filter(|(_, is_empty)| !is_empty).map(|(name, _)| name);
        let sections = [
            server.changed(),
            alerts.changed(),
            responses.changed(),
            audit.changed(),
            egress.changed(),
            retention.changed(),
            telemetry.changed(),
            limits.changed(),
        ];
        sections.into_iter().flatten().chain(tables).collect()
    }

    /// The trusted proxies.
    ///
    /// # Errors
    /// [`ConfigError::Proxy`].
    pub fn proxies(&self) -> Result<Vec<IpNet>, ConfigError> {
        self.server.trusted_proxies.iter().map(|text| proxy(text)).collect()
    }

    /// Where checkpoints of the audit log are sent.
    ///
    /// # Errors
    /// [`ConfigError::Syslog`] or [`ConfigError::Webhook`].
    pub fn checkpoint_places(&self) -> Result<CheckpointPlaces, ConfigError> {
        let file = &self.audit.audit_checkpoint_file;
        let file = (!file.as_os_str().is_empty()).then(|| file.clone());
        Ok(CheckpointPlaces { file, syslog: self.checkpoint_syslog()?, webhook: self.checkpoint_webhook()? })
    }

    fn checkpoint_syslog(&self) -> Result<Option<SyslogAddress>, ConfigError> {
        let parse = |text: &str| SyslogAddress::parse(text).ok_or_else(|| ConfigError::Syslog(text.to_owned()));
        let text = self.audit.audit_checkpoint_syslog.trim();
        Some(text).filter(|text| !text.is_empty()).map(parse).transpose()
    }

    fn checkpoint_webhook(&self) -> Result<Option<WebhookAddress>, ConfigError> {
        let url = self.audit.audit_checkpoint_webhook.trim();
        let secret_file = self.audit.audit_checkpoint_webhook_secret_file.clone();
        match (url.is_empty(), secret_file.as_os_str().is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Err(ConfigError::Webhook(
                "audit_checkpoint_webhook_secret_file is set without audit_checkpoint_webhook, the URL to post to",
            )),
            (false, true) => Err(ConfigError::Webhook(
                "audit_checkpoint_webhook_secret_file is missing: it names the file of the secret (whsec_…) by which the \
                 receiver of audit_checkpoint_webhook knows this manager",
            )),
            (false, false) => {
                let is_right = |url: &Url| is_safe(url) && url.host().is_some() && url.username().is_empty();
                let url = Url::parse(url).ok().filter(is_right).ok_or(ConfigError::Webhook(
                    "audit_checkpoint_webhook must be an https:// URL without an account; http:// is for a loopback address \
                     such as 127.0.0.1",
                ))?;
                Ok(Some(WebhookAddress { url, secret_file }))
            }
        }
    }

    /// The base URL of the OTLP collector, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Otlp`].
    pub fn otlp_endpoint(&self) -> Result<Option<Url>, ConfigError> {
        let text = self.telemetry.otlp_endpoint.trim();
        let has_headers = !self.telemetry.otlp_headers_file.as_os_str().is_empty();
        if text.is_empty() {
            let fault = "otlp_headers_file is set without otlp_endpoint, the collector that gets these headers";
            return if has_headers { Err(ConfigError::Otlp(fault)) } else { Ok(None) };
        }
        let is_right = |url: &Url| {
            let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
            ["http", "https"].contains(&url.scheme()) && url.host().is_some() && is_bare && url.fragment().is_none()
        };
        let url = Url::parse(text).ok().filter(is_right).ok_or(ConfigError::Otlp(
            "otlp_endpoint must be an https:// or http:// URL without account and query, to which /v1/traces and \
             /v1/metrics are added",
        ))?;
        if has_headers && !is_safe(&url) {
            return Err(ConfigError::Otlp(
                "otlp_endpoint must be an https:// URL if there is an otlp_headers_file: its keys would travel \
                 unencrypted. http:// is for a loopback address then",
            ));
        }
        Ok(Some(url))
    }

    /// The database URL.
    pub fn database(&self) -> String {
        if self.server.database_url.is_empty() {
            format!("sqlite:{}", self.server.data_dir.join("riposte.db").display())
        } else {
            self.server.database_url.clone()
        }
    }
}

/// An address or a network.
fn proxy(text: &str) -> Result<IpNet, ConfigError> {
    let text = text.trim();
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| one()).map_err(|_| ConfigError::Proxy(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_matches_the_code() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.default.toml")).unwrap();
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
        let table: toml::Table = toml::from_str(&text).unwrap();
        for (key, section) in sections::KEYS {
            assert!(table[*section].get(*key).is_some(), "{key} is missing in [{section}] of config.default.toml");
        }
        let sections = [
            "server",
            "alerts",
            "responses",
            "audit",
            "egress",
            "retention",
            "telemetry",
            "limits",
            "pipelines",
            "observables",
        ];
        assert_eq!(
            table.keys().map(String::as_str).collect::<Vec<_>>(),
            sections.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        for text in ["listne = '127.0.0.1:1'", "[server]\nlistne = '127.0.0.1:1'", "[limit]\nmax_batch = 1"] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains("unknown field") && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn a_key_outside_its_section_is_read_and_named() {
        let config = Config::parse("max_batch = 3\n[limits]\nmax_body_bytes = 9").unwrap();
        assert_eq!((config.limits.max_batch, config.limits.max_body_bytes), (3, 9));
        assert_eq!(config.misplaced, ["max_batch"]);
        let twice = Config::parse("max_batch = 3\n[limits]\nmax_batch = 4").unwrap();
        assert_eq!(twice.limits.max_batch, 4, "the section counts");
        assert!(Config::parse("max_batch = 3\nlistne = 'x'").is_err());
    }

    fn server(change: impl FnOnce(&mut Server)) -> Config {
        let mut config = Config::default();
        change(&mut config.server);
        config
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let config = |proxy: &str| server(|server| server.trusted_proxies = vec![proxy.into()]);
        for proxy in ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32", " ::1 "] {
            assert_eq!(config(proxy).proxies().unwrap().len(), 1, "{proxy}");
        }
        for proxy in ["", "proxy.example.org", "10.0.0.0/33", "127.0.0.1:80"] {
            assert!(config(proxy).check().is_err(), "{proxy}");
        }
    }

    #[test]
    fn a_collector_is_a_plain_url_and_its_keys_are_never_sent_in_clear() {
        let check = |endpoint: &str, headers: &str| {
            let mut config = Config::default();
            config.telemetry.otlp_endpoint = endpoint.into();
            config.telemetry.otlp_headers_file = headers.into();
            config.check().map_err(|error| error.to_string())
        };
        for right in ["http://otel:4318", "https://otel.example.org/otlp", "http://10.0.0.5:4318/"] {
            assert_eq!(check(right, ""), Ok(()), "{right}");
        }
        assert_eq!(check("https://otel.example.org", "headers"), Ok(()));
        assert_eq!(check("http://127.0.0.1:4318", "headers"), Ok(()));
        for wrong in ["otel:4318", "grpc://otel:4317", "https://a:b@otel", "https://otel?key=1", "https://"] {
            assert!(check(wrong, "").unwrap_err().contains("otlp_endpoint must be"), "{wrong}");
        }
        assert!(check("http://otel:4318", "headers").unwrap_err().contains("unencrypted"));
        assert!(check("", "headers").unwrap_err().contains("without otlp_endpoint"));
    }

    #[test]
    fn the_memory_limit_fits_the_largest_request() {
        let mut narrow = Config::default();
        narrow.limits.max_pending_bytes = 1;
        assert!(matches!(narrow.check(), Err(ConfigError::Pending { .. })));
    }

    #[test]
    fn plain_http_stays_on_loopback_unless_told_otherwise() {
        let mut open = server(|server| server.listen = "0.0.0.0:8480".parse().unwrap());
        assert!(matches!(open.check(), Err(ConfigError::PlainHttp(_))));
        open.server.allow_plain_http = true;
        assert!(open.check().is_ok());
        assert!(Config::default().check().is_ok());
    }
}
