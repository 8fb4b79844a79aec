//! The sections of the configuration. Each key is written once: its meaning, its environment
//! variable, its type and its default; the field, the flag and the check of names come from that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::telemetry::SampleRatio;
use crate::telemetry::LogFormat;

macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $heading:literal $section:ident: $Section:ident, $Flags:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[flag($($flag:tt)+)])?
                $key:ident $variable:literal: $type:ty = $default:expr;
            )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $key: $type,)+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)+ }
                }
            }

            impl $Section {
                /// The keys that differ from their defaults.
                pub(super) fn changed(&self) -> Vec<&'static str> {
                    let usual = Self::default();
                    let keys = [$((self.$key != usual.$key, concat!(stringify!($section), ".", stringify!($key))),)+];
                    keys.into_iter().filter(|(is_changed, _)| *is_changed).map(|(_, key)| key).collect()
                }
            }

            #[derive(Debug, Default, Args)]
            #[command(next_help_heading = $heading)]
            struct $Flags {
                $($(#[doc = $doc])+ #[arg(long, env = $variable $(, $($flag)+)?)] $key: Option<$type>,)+
            }
        )+

        /// The keys of all sections as flags; each overrides its environment variable, which
        /// overrides the file.
        #[derive(Debug, Default, Args)]
        pub struct ConfigFlags {
            $(#[command(flatten)] $section: $Flags,)+
        }

        impl ConfigFlags {
            /// Sets what the flags and variables say.
            #[expect(clippy::too_many_arguments, reason = "one for each section")]
            pub(super) fn apply(self, $($section: &mut $Section),+) {
                $($(if let Some(value) = self.$section.$key {
                    $section.$key = value;
                })+)+
            }
        }

        /// Every key with its section.
        pub(super) const KEYS: &[(&str, &str)] = &[$($((stringify!($key), stringify!($section)),)+)+];
    };
}

sections! {
    /// Where the manager listens and keeps its data.
    "Server" server: Server, ServerFlags {
        /// Listening address.
        listen "RIPOSTE_LISTEN": SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8480);
        /// Directory of the keys and, without a database URL, the ledger.
        data_dir "RIPOSTE_DATA_DIR": PathBuf = PathBuf::from("data");
        /// File of the passphrase that encrypts signing.key; empty: the systemd credential
        /// riposte-key-passphrase, if there is one.
        key_passphrase_file "RIPOSTE_KEY_PASSPHRASE_FILE": PathBuf = PathBuf::new();
        /// postgres://… or sqlite:PATH; empty: SQLite in the data directory. May contain a password:
        /// prefer the variable or the file.
        #[flag(hide_env_values = true)]
        database_url "RIPOSTE_DATABASE_URL": String = String::new();
        /// Whether a SQLite ledger is backed up to backups/ in the data directory before its schema is upgraded.
        backup_before_upgrade "RIPOSTE_BACKUP_BEFORE_UPGRADE": bool = true;
        /// Whether managers on one PostgreSQL database wake each other by LISTEN and NOTIFY. Without, each
        /// looks at the ledger every one or two seconds: for poolers and relatives of PostgreSQL.
        peer_hints "RIPOSTE_PEER_HINTS": bool = true;
        /// URL under which agents reach this manager, if not the one of their enrolment.
        public_url "RIPOSTE_PUBLIC_URL": String = String::new();
        /// Format of log lines.
        log_format "RIPOSTE_LOG_FORMAT": LogFormat = LogFormat::Text;
        /// Certificate of the listener in PEM, with those that signed it; empty: plain HTTP.
        tls_cert "RIPOSTE_TLS_CERT": PathBuf = PathBuf::new();
        /// Private key of the certificate, in PEM.
        tls_key "RIPOSTE_TLS_KEY": PathBuf = PathBuf::new();
        /// Authorities in PEM of whose certificates agents and pipelines must show one.
        tls_client_ca "RIPOSTE_TLS_CLIENT_CA": PathBuf = PathBuf::new();
        /// Let agents and pipelines come without a certificate: only the consumers of feeds that have one show it.
        #[flag(num_args = 0..=1, default_missing_value = "true")]
        tls_client_optional "RIPOSTE_TLS_CLIENT_OPTIONAL": bool = false;
        /// Serve plain HTTP on addresses other than loopback: only behind a TLS proxy.
        #[flag(num_args = 0..=1, default_missing_value = "true")]
        allow_plain_http "RIPOSTE_ALLOW_PLAIN_HTTP": bool = false;
        /// Addresses and networks of proxies whose Forwarded or X-Forwarded-For header is trusted.
        #[flag(value_delimiter = ',')]
        trusted_proxies "RIPOSTE_TRUSTED_PROXIES": Vec<String> = Vec::new();
        /// Age at which agents are told to replace their own key, a duration or "none".
        agent_key_max_age "RIPOSTE_AGENT_KEY_MAX_AGE": String = "none".into();
    }

    /// What becomes of alerts.
    "Alerts" alerts: Alerts, AlertsFlags {
        /// Maximum age of an alert for a response, a duration or "none"; older or future alerts are
        /// only stored.
        max_age "RIPOSTE_MAX_AGE": String = "1h".into();
        /// Retention of alerts in days, except those that an open response refers to; 0 keeps all.
        alert_retention_days "RIPOSTE_ALERT_RETENTION_DAYS": u32 = 30;
    }

    /// What people may do by hand.
    "Responses" responses: Responses, ResponseFlags {
        /// Maximum number of agents of a response by hand that needs no second person.
        max_agents_by_hand "RIPOSTE_MAX_AGENTS_BY_HAND": usize = 10;
        /// Actions by hand that need a second person on more than one agent.
        #[flag(value_delimiter = ',')]
        second_person_actions "RIPOSTE_SECOND_PERSON_ACTIONS": Vec<String> =
            ["kill-process", "isolate-host", "disable-account"].map(str::to_owned).to_vec();
        /// How long a response by hand waits for the second person, a duration; then it lapses.
        second_person_within "RIPOSTE_SECOND_PERSON_WITHIN": String = "1h".into();
    }

    /// What proves the audit log.
    "Audit" audit: Audit, AuditFlags {
        /// File elsewhere, such as on a mounted share, to which each signed checkpoint of the audit log is
        /// appended.
        audit_checkpoint_file "RIPOSTE_AUDIT_CHECKPOINT_FILE": PathBuf = PathBuf::new();
        /// Syslog receiver to which each checkpoint is sent: `udp://HOST:PORT`, `tcp://HOST:PORT`
        /// or `unix:/PATH`.
        audit_checkpoint_syslog "RIPOSTE_AUDIT_CHECKPOINT_SYSLOG": String = String::new();
        /// URL to which each checkpoint is posted, signed by Standard Webhooks.
        audit_checkpoint_webhook "RIPOSTE_AUDIT_CHECKPOINT_WEBHOOK": String = String::new();
        /// File of the secret (whsec_…) that signs these requests.
        audit_checkpoint_webhook_secret_file "RIPOSTE_AUDIT_CHECKPOINT_WEBHOOK_SECRET_FILE": PathBuf = PathBuf::new();
    }

    /// Which hosts the manager may call.
    "Egress" egress: EgressHosts, EgressFlags {
        /// Hosts, networks and addresses that the manager may call although they are internal.
        #[flag(long = "egress-allow", value_delimiter = ',')]
        allow "RIPOSTE_EGRESS_ALLOW": Vec<String> = Vec::new();
    }

    /// How long what happened is kept.
    "Retention" retention: RetentionAges, RetentionFlags {
        /// Retention in days of responses that are over, from their end, with their commands and results; 0
        /// keeps all.
        response_retention_days "RIPOSTE_RESPONSE_RETENTION_DAYS": u32 = 0;
        /// Retention of the entries of the audit log in days; 0 keeps all.
        audit_retention_days "RIPOSTE_AUDIT_RETENTION_DAYS": u32 = 0;
        /// Retention of the events of the feed in days; 0 keeps all.
        event_retention_days "RIPOSTE_EVENT_RETENTION_DAYS": u32 = 7;
    }

    /// Where traces and metrics go.
    "Telemetry" telemetry: Telemetry, TelemetryFlags {
        /// Base URL of an OTLP/HTTP collector, such as `https://otel.example.org:4318`; empty: none.
        otlp_endpoint "RIPOSTE_OTLP_ENDPOINT": String = String::new();
        /// File of headers of these requests, one `name: value` a line, such as the collector's key.
        otlp_headers_file "RIPOSTE_OTLP_HEADERS_FILE": PathBuf = PathBuf::new();
        /// Share of the traces that is exported, from 0 to 1, unless the sender's traceparent decides.
        otlp_sample_ratio "RIPOSTE_OTLP_SAMPLE_RATIO": SampleRatio = SampleRatio::ALL;
        /// Time between two exports, a duration from 100ms to 1h.
        otlp_interval "RIPOSTE_OTLP_INTERVAL": String = "10s".into();
    }

    /// How much clients may ask for.
    "Limits" limits: ClientLimits, LimitFlags {
        /// Maximum request body, in bytes, before and after decompression.
        max_body_bytes "RIPOSTE_MAX_BODY_BYTES": usize = 16 * 1024 * 1024;
        /// Maximum number of alerts per request.
        max_batch "RIPOSTE_MAX_BATCH": usize = 10_000;
        /// Maximum memory for uncommitted alert requests, in bytes; beyond it requests get 503.
        max_pending_bytes "RIPOSTE_MAX_PENDING_BYTES": usize = 256 * 1024 * 1024;
        /// Maximum number of connections; further ones get 503.
        max_connections "RIPOSTE_MAX_CONNECTIONS": usize = 20_000;
        /// Maximum number of simultaneous connections per address that are not authenticated yet;
        /// further ones get 503.
        max_unknown_connections "RIPOSTE_MAX_UNKNOWN_CONNECTIONS": usize = 12_000;
        /// Maximum requests per minute and API key, without alert requests; beyond it requests get
        /// 429.
        requests_per_minute "RIPOSTE_REQUESTS_PER_MINUTE": u32 = 30_000;
        /// Maximum requests per minute and agent.
        agent_requests_per_minute "RIPOSTE_AGENT_REQUESTS_PER_MINUTE": u32 = 6000;
        /// Maximum enrolments per minute and address.
        enrolments_per_minute "RIPOSTE_ENROLMENTS_PER_MINUTE": u32 = 12_000;
    }
}
