//! Targets of actions, in canonical form. A [`Target`] is always valid. An attacker can write
//! everything in an alert, so only a text that is plainly one address, one account or one path is
//! accepted. The manager checks it when it decides, and the agent before it acts.
//!
//! The parser must never become lenient: some parsers accept `1`, `0177.1`, `fe80::1%eth0` and
//! `-R`, and such differences between parsers are the attack.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::account::Account;

/// The kinds of target that an action can accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// One IPv4 or IPv6 address, or (never out of an alert) one network.
    Ip,
    /// One account: of a host, or (for custom actions that declare it) of a directory or an
    /// identity provider.
    User,
    /// One absolute path.
    File,
    /// One process, by number.
    Process,
    /// The agent's whole host.
    Host,
    /// No target: the action needs none.
    None,
}

impl TargetKind {
    /// The word used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::User => "user",
            Self::File => "file",
            Self::Process => "process",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// Parses the word of a kind.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Ip, Self::User, Self::File, Self::Process, Self::Host, Self::None]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A target in canonical form; equal targets have equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Target {
    kind: TargetKind,
    value: String,
}

/// Why a text is not a target. The text itself is not repeated: it is hostile, and the caller has
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not exactly one IPv4 or IPv6 address in its usual notation.
    #[error("is not one IPv4 or IPv6 address in its usual notation")]
    Ip,
    /// Not exactly one network in its usual notation.
    #[error("is not one network such as 203.0.113.0/24, without bits behind its prefix")]
    Network,
    /// Not a local account name.
    #[error(
        "is not a plain account name: it starts with a letter or _, then letters, digits, '.', '_', '@' or '-', with a '$' at its \
         end or without, 256 at most"
    )]
    User,
    /// Not the name of any account.
    #[error(
        "is not an account name: printable characters, no blank or '-' at its beginning and no blank at its end, 256 bytes at most"
    )]
    Account,
    /// Not an absolute path without `.` and `..` parts.
    #[error(
        "is not an absolute path without '.' or '..' parts (/folder/file, or on Windows C:\\folder\\file), 4096 bytes at most"
    )]
    File,
    /// Not a process number above 1.
    #[error("is not a process number above 1")]
    Process,
    /// The kind has no value, but one was given.
    #[error("must be empty for this kind of target")]
    NotEmpty,
}

/// Longest account name, in bytes: the limit of Wazuh's own agent.
const USER_MAX_BYTES: usize = 256;
/// Longest path, in bytes: Linux's `PATH_MAX`.
const FILE_MAX_BYTES: usize = 4096;

impl Target {
    /// Parses `text` as a target of `kind`, strictly, and brings it into canonical form:
    /// `::ffff:203.0.113.7` becomes `203.0.113.7`, and IPv6 is written as in RFC 5952.
    ///
    /// # Errors
    /// When the text is not exactly one value of that kind.
    pub fn parse(kind: TargetKind, text: &str) -> Result<Self, TargetError> {
        let value = match kind {
            TargetKind::Ip => parse_ip(text)?.to_string(),
            TargetKind::User => parse_user(text)?.to_owned(),
            TargetKind::File => parse_file(text)?,
            TargetKind::Process => parse_process(text)?.to_string(),
            TargetKind::Host | TargetKind::None if text.is_empty() => String::new(),
            TargetKind::Host | TargetKind::None => return Err(TargetError::NotEmpty),
        };
        Ok(Self { kind, value })
    }

    /// Parses a network (`203.0.113.0/24`), strictly. Networks come only from people and policies,
    /// never from an alert, so [`Target::parse`] refuses them. A network of one address is that
    /// address.
    ///
    /// # Errors
    /// When the text is not exactly one network, or bits are set after its prefix.
    pub fn parse_network(text: &str) -> Result<Self, TargetError> {
        let (address, length) = text.split_once('/').ok_or(TargetError::Network)?;
        let address = parse_ip(address).map_err(|_| TargetError::Network)?;
        let digits = (1..=3).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
        let plain = digits && (length == "0" || !length.starts_with('0'));
        let length = length.parse().ok().filter(|_| plain).ok_or(TargetError::Network)?;
        let network = IpNet::new(address, length).map_err(|_| TargetError::Network)?;
        if network.trunc() == network { Ok(Self::of_network(network)) } else { Err(TargetError::Network) }
    }

    /// Parses the name of an account that may be of a directory: `CORP\alice`,
    /// `alice+tag@example.org`, `John Smith`. Only custom actions that declare it accept one; it
    /// reaches their programs as data.
    ///
    /// # Errors
    /// When the text is longer than 256 bytes, or has an invisible character.
    pub fn account(text: &str) -> Result<Self, TargetError> {
        let is_bounded =
            (1..=USER_MAX_BYTES).contains(&text.len()) && !text.starts_with(['-', ' ']) && !text.ends_with(' ');
        let is_account = is_bounded && text.chars().all(is_seen);
        is_account.then(|| Self { kind: TargetKind::User, value: text.to_owned() }).ok_or(TargetError::Account)
    }

    /// Whether this is a name that a local account can have, as [`Target::parse`] reads it.
    pub fn is_local_account(&self) -> bool {
        self.kind == TargetKind::User && parse_user(&self.value).is_ok()
    }

    /// Parses a target from a person, the ledger or a command: as [`Target::parse`], but an `ip`
    /// may be a network, and a `user` any account.
    ///
    /// # Errors
    /// As [`Target::parse`], [`Target::parse_network`] and [`Target::account`].
    pub fn named(kind: TargetKind, text: &str) -> Result<Self, TargetError> {
        match kind {
            TargetKind::Ip if text.contains('/') => Self::parse_network(text),
            TargetKind::User => Self::account(text),
            _ => Self::parse(kind, text),
        }
    }

    /// The network of `prefix` bits around an `ip` target; the target itself if the network would
    /// not be wider.
    #[must_use]
    pub fn widened(&self, prefix: u8) -> Self {
        let network = self.network().filter(|network| network.prefix_len() > prefix);
        let wider = network.and_then(|network| IpNet::new(network.addr(), prefix).ok());
        wider.map_or_else(|| self.clone(), |network| Self::of_network(network.trunc()))
    }

    fn of_network(network: IpNet) -> Self {
        let is_one = network.prefix_len() == network.max_prefix_len();
        let value = if is_one { network.addr().to_string() } else { network.to_string() };
        Self { kind: TargetKind::Ip, value }
    }

    /// The target that names the agent's own host.
    pub fn host() -> Self {
        Self { kind: TargetKind::Host, value: String::new() }
    }

    /// The target of an action without a target.
    pub fn none() -> Self {
        Self { kind: TargetKind::None, value: String::new() }
    }

    /// The kind.
    pub fn kind(&self) -> TargetKind {
        self.kind
    }

    /// The canonical text; empty for `host` and `none`.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The addresses of an `ip` target; one address is a network of one.
    pub fn network(&self) -> Option<IpNet> {
        if self.kind != TargetKind::Ip {
            return None;
        }
        self.value.parse().ok().or_else(|| self.value.parse::<IpAddr>().ok().map(IpNet::from))
    }

    /// The address of an `ip` target that is not a wider network.
    pub fn ip(&self) -> Option<IpAddr> {
        self.network().filter(|network| network.prefix_len() == network.max_prefix_len()).map(|network| network.addr())
    }

    /// Why no response may ever touch this target; `None` if one may. This is the part of the
    /// always-on protected list that needs no knowledge of a host. The manager asks when it decides
    /// and again when it delivers; the agent asks again for every signed order.
    pub fn always_protected(&self) -> Option<&'static str> {
        match self.kind {
            TargetKind::Ip => self.network().and_then(protected_network),
            TargetKind::User => {
                ["root", "system"].contains(&Account::of(&self.value).name()).then_some("the superuser")
            }
            TargetKind::File | TargetKind::Process | TargetKind::Host | TargetKind::None => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{} {}", self.kind, self.value) }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            kind: TargetKind,
            #[serde(default)]
            value: String,
        }
        let raw = Raw::deserialize(deserializer)?;
        Self::named(raw.kind, &raw.value)
            .map_err(|error| serde::de::Error::custom(format!("a target of kind {} {error}", raw.kind)))
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, TargetError> {
    // 45 bytes is the longest IPv6 notation (INET6_ADDRSTRLEN less its terminator).
    if text.len() > 45 {
        return Err(TargetError::Ip);
    }
    // std refuses leading zeros, fewer than four parts, other bases, scopes, brackets, ports and
    // blanks.
    match text.parse::<IpAddr>().map_err(|_| TargetError::Ip)? {
        IpAddr::V4(v4) => Ok(IpAddr::V4(v4)),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Ok(IpAddr::V4(v4)),
            // The long-deprecated `::203.0.113.7` matches no real packet: blocking it would be a
            // false success.
            None if v6.segments()[..6] == [0; 6] && !v6.is_loopback() && !v6.is_unspecified() => Err(TargetError::Ip),
            None => Ok(IpAddr::V6(v6)),
        },
    }
}

fn parse_user(text: &str) -> Result<&str, TargetError> {
    // Machine accounts end in a `$`; `useradd` accepts one only there.
    let mut bytes = text.strip_suffix('$').unwrap_or(text).bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'-'));
    if first && rest && text.len() <= USER_MAX_BYTES && !text.contains("..") {
        Ok(text)
    } else {
        Err(TargetError::User)
    }
}

/// Whether a character is visible and harmless: no control, joining, reversing or hiding character,
/// and no blank but the common one. A replacement character is visible, but stands for an unknown
/// one.
fn is_seen(c: char) -> bool {
    let is_blank = c.is_whitespace() && c != ' ';
    let is_hidden = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}' | '\u{115f}' | '\u{1160}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bcaf}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        | '\u{e000}'..='\u{f8ff}');
    !c.is_control() && !is_blank && !is_hidden
}

fn parse_file(text: &str) -> Result<String, TargetError> {
    let is_short = text.len() <= FILE_MAX_BYTES && !text.chars().any(char::is_control);
    let parsed = if text.starts_with('/') { unix_file(text) } else { windows_file(text) };
    parsed.filter(|_| is_short).ok_or(TargetError::File)
}

fn unix_file(text: &str) -> Option<String> {
    let rest = text.strip_prefix('/')?;
    let is_whole = !rest.is_empty() && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    is_whole.then(|| text.to_owned())
}

/// `C:\folder\file`, with the drive in capitals. A name must be the one that Windows stores: it drops
/// blanks and dots at an end, keeps some names for devices, and reads a colon as a stream of a file.
fn windows_file(text: &str) -> Option<String> {
    const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
    const NUMBERED: [&str; 2] = ["com", "lpt"];
    let (drive, rest) = text.split_once(":\\")?;
    let is_device = |part: &str| {
        let stem = part.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
        let is_numbered = stem.chars().count() == 4
            && stem.ends_with(char::is_numeric)
            && NUMBERED.iter().any(|device| stem.starts_with(device));
        DEVICES.contains(&stem.as_str()) || is_numbered
    };
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.ends_with(['.', ' '])
            && !part.contains(['<', '>', ':', '"', '/', '|', '?', '*'])
            && !is_device(part)
    };
    let is_drive = drive.len() == 1 && drive.bytes().all(|byte| byte.is_ascii_alphabetic());
    (is_drive && rest.split('\\').all(is_name)).then(|| format!("{}:\\{rest}", drive.to_ascii_uppercase()))
}

fn parse_process(text: &str) -> Result<u32, TargetError> {
    let number: u32 = text.parse().map_err(|_| TargetError::Process)?;
    // `+12`, `012` parse too: only the canonical text is one process. 0 is a group, 1 is init.
    if number > 1 && number.to_string() == text { Ok(number) } else { Err(TargetError::Process) }
}

/// The widest networks that may be a target, in prefix bits (IPv4, IPv6).
pub const WIDEST: (u8, u8) = (16, 48);

fn protected_network(network: IpNet) -> Option<&'static str> {
    let widest = if network.addr().is_ipv4() { WIDEST.0 } else { WIDEST.1 };
    if network.prefix_len() < widest {
        return Some("a network wider than /16 (IPv4) or /48 (IPv6)");
    }
    // No range below is narrower than the widest network, except the single addresses that are
    // checked here.
    match network {
        IpNet::V4(v4) => protected_v4(v4.network()),
        IpNet::V6(v6) if v6.contains(&Ipv6Addr::LOCALHOST) => Some("a loopback address"),
        IpNet::V6(v6) => protected_v6(v6.network()),
    }
}

fn protected_v4(ip: Ipv4Addr) -> Option<&'static str> {
    if ip.octets()[0] == 0 {
        Some("an unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_link_local() {
        Some("a link-local address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if ip.octets()[0] >= 240 {
        Some("a broadcast or reserved address")
    } else {
        None
    }
}

fn protected_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("an unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_unicast_link_local() {
        Some("a link-local address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
