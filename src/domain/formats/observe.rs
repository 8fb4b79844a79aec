//! Selects the field of each observable and normalises its text. The first candidate with a valid
//! target of the wanted kind wins. Without one, the first text is kept for display.
//!
//! Addresses are read as logs write them: with a port, in brackets, between spaces. Ambiguous text
//! is not an address. Fields that Wazuh's decoders fill must contain only an address.

use std::borrow::Cow;
use std::net::IpAddr;

use riposte_protocol::target::{Target, TargetKind};

use super::ObservableMappings;
use super::document::Document;
use super::field::{Field, cut};
use crate::domain::alert::{Observable, Observables, TargetField};

/// Maximum length of a stored observable, in bytes: one more than the longest path, so that a
/// truncated one stays invalid.
const MAX_OBSERVABLE_BYTES: usize = 4097;
/// Fields that a decoder extracts from a log: a port or bracket means that it extracted the wrong
/// text.
const DECODED: [&str; 2] = ["data.srcip", "data.dstip"];
/// The observables to look for.
const ALL: [TargetField; 6] = [
    TargetField::SourceIp,
    TargetField::DestinationIp,
    TargetField::SourceUser,
    TargetField::DestinationUser,
    TargetField::FilePath,
    TargetField::ProcessId,
];

/// The observables of `document`: site-specific fields first, then those of `known`.
/// `process_names` are the fields for the process name.
pub(super) fn observables(
    document: &Document,
    mappings: &ObservableMappings,
    known: impl Fn(TargetField) -> &'static [&'static str],
    process_names: &[impl AsRef<str>],
) -> Observables {
    let mut observables = Observables::default();
    for field in ALL {
        let paths = mappings.paths(field).iter().map(String::as_str).chain(known(field).iter().copied());
        observables.set(field, first(document, field.kind(), paths));
    }
    observables.process_name = process_names.iter().map(AsRef::as_ref).find_map(|path| {
        let text = document.at(path).and_then(Field::word)?;
        let text = text.trim_matches([' ', '\t']);
        (!text.is_empty()).then(|| Observable { value: cut(text, MAX_OBSERVABLE_BYTES), field: path.into() })
    });
    observables
}

fn first<'p>(document: &Document, kind: TargetKind, paths: impl Iterator<Item = &'p str>) -> Option<Observable> {
    let mut kept = None;
    for path in paths {
        let Some(text) = document.at(path).and_then(Field::word) else { continue };
        let text = if kind == TargetKind::File { text.as_ref() } else { text.trim_matches([' ', '\t']) };
        if text.is_empty() || text == "-" {
            continue;
        }
        let observable = |text: &str| Observable { value: cut(text, MAX_OBSERVABLE_BYTES), field: path.into() };
        match target(kind, text, path) {
            Some(value) => return Some(observable(&value)),
            None => kept = kept.or_else(|| Some(observable(text))),
        }
    }
    kept
}

/// `text` in canonical form, if it is a target of `kind`.
fn target<'t>(kind: TargetKind, text: &'t str, path: &str) -> Option<Cow<'t, str>> {
    match kind {
        TargetKind::Ip if DECODED.contains(&path) => Target::parse(kind, text).ok().map(|target| canonical(&target)),
        TargetKind::Ip => address(text).map(|target| canonical(&target)),
        // The action decides which accounts are valid, so the first text wins.
        TargetKind::User => Some(Cow::Borrowed(text)),
        _ => Target::parse(kind, text).ok().map(|_| Cow::Borrowed(text)),
    }
}

fn canonical(target: &Target) -> Cow<'static, str> {
    Cow::Owned(target.value().to_owned())
}

/// The only address in `text`: alone, with a port, or in brackets.
fn address(text: &str) -> Option<Target> {
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    };
    let alone = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, behind) = rest.split_once(']')?;
            let is_whole = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
            Some(inside).filter(|_| is_whole)?
        }
        // Without brackets, only an IPv4 address is separable from its port.
        None => match text.split_once(':') {
            Some((v4, port)) if is_port(port) && !v4.is_empty() => v4,
            _ => text,
        },
    };
    let target = Target::parse(TargetKind::Ip, alone).ok()?;
    // `dead:1` is not an address with a port.
    let is_told =
        alone.len() == text.len() || text.starts_with('[') || target.ip().is_some_and(|ip| matches!(ip, IpAddr::V4(_)));
    Some(target).filter(|_| is_told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_logs_write_it() {
        let read = |text: &str| address(text).map(|target| target.value().to_owned());
        for (text, canonical) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:51234", "203.0.113.7"),
            ("203.0.113.7:0", "203.0.113.7"),
            ("[203.0.113.7]:443", "203.0.113.7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:DB8::7]:51234", "2001:db8::7"),
            ("[::ffff:203.0.113.7]:1", "203.0.113.7"),
            ("2001:db8::7:5123", "2001:db8::7:5123"),
            ("::1", "::1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(canonical), "{text}");
        }
        for text in [
            "",
            ":",
            ":80",
            "unknown",
            "localhost:80",
            "1",
            "1:80",
            "0177.1",
            "0177.1:80",
            "127.1:80",
            "203.0.113.7:",
            "203.0.113.7:65536",
            "203.0.113.7:080808",
            "203.0.113.7:+80",
            "203.0.113.7:80:81",
            "203.0.113.16, 10.0.0.1",
            "203.0.113.7/32",
            "10.0.0.0/8",
            "[2001:db8::7",
            "2001:db8::7]:22",
            "[2001:db8::7]51234",
            "[2001:db8::7]:",
            "[[::1]]",
            "[]",
            "[]:1",
            "2001:db8::7:51234",
            "::ffff:203.0.113.7:80",
            "fe80::1%eth0",
            "[fe80::1%eth0]:1",
            "203.0.113.7\n",
            "203.0.113.7 80",
            "2001:db8::7.443",
            "$(reboot):80",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        /// Every accepted text yields one address, which parses as itself.
        #[test]
        fn an_accepted_address_is_canonical(text in "[0-9a-f:.\\[\\] ]{0,24}") {
            if let Some(target) = address(&text) {
                proptest::prop_assert!(text.contains(target.value()) || target.ip().is_some());
                proptest::prop_assert_eq!(address(target.value()), Some(target));
            }
        }
    }
}
