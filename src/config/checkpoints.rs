//! Where checkpoints of the audit log are sent: a file, a syslog receiver, a webhook.

use std::path::PathBuf;

use reqwest::Url;

/// The places that the configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointPlaces {
    /// A file to append to.
    pub file: Option<PathBuf>,
    /// A syslog receiver.
    pub syslog: Option<SyslogAddress>,
    /// A webhook.
    pub webhook: Option<WebhookAddress>,
}

/// The URL of a webhook, and the file of its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAddress {
    /// TLS, or plain HTTP to this host.
    pub url: Url,
    /// File of the secret that signs requests to it.
    pub secret_file: PathBuf,
}

/// The address of a syslog receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// One datagram a message, to `HOST:PORT`.
    Udp(String),
    /// Messages with their length before them (RFC 6587), to `HOST:PORT`.
    Tcp(String),
    /// The same over TLS (RFC 5425).
    Tls(String),
    /// One datagram a message, to a socket of this host.
    Unix(PathBuf),
}

impl SyslogAddress {
    /// Parses `udp://HOST:PORT`, `tcp://HOST:PORT`, `tls://HOST:PORT` or `unix:/PATH`.
    pub fn parse(text: &str) -> Option<Self> {
        let is_pair = |pair: &&str| {
            pair.rsplit_once(':').is_some_and(|(host, port)| {
                let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
                is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        };
        if let Some(pair) = text.strip_prefix("udp://") {
            return Some(pair).filter(is_pair).map(|pair| Self::Udp(pair.to_owned()));
        }
        if let Some(pair) = text.strip_prefix("tcp://") {
            return Some(pair).filter(is_pair).map(|pair| Self::Tcp(pair.to_owned()));
        }
        if let Some(pair) = text.strip_prefix("tls://") {
            return Some(pair).filter(is_pair).map(|pair| Self::Tls(pair.to_owned()));
        }
        text.strip_prefix("unix:").filter(|path| path.starts_with('/')).map(|path| Self::Unix(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_transport_and_a_port_or_path() {
        let good = [
            ("udp://10.0.0.5:514", SyslogAddress::Udp("10.0.0.5:514".into())),
            ("tcp://[::1]:601", SyslogAddress::Tcp("[::1]:601".into())),
            ("tls://siem.example.org:6514", SyslogAddress::Tls("siem.example.org:6514".into())),
            ("unix:/dev/log", SyslogAddress::Unix("/dev/log".into())),
        ];
        for (text, address) in good {
            assert_eq!(SyslogAddress::parse(text), Some(address), "{text}");
        }
        for text in ["", "10.0.0.5:514", "udp://host", "udp://:514", "tcp://host:0", "tcp://a/b:1", "unix:dev/log"] {
            assert_eq!(SyslogAddress::parse(text), None, "{text}");
        }
    }
}
