//! Protected entries: what an entry's own text says is protected, in every notation, and by a lookup
//! that agrees with trying each entry.

use std::net::IpAddr;

use ipnet::IpNet;
use riposte::domain::effect::Until;
use riposte::domain::protected::{Covered, ProtectedEntry, ProtectedSet};
use riposte_protocol::target::{Target, TargetKind};
use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::accounts::{is_plain, notations};
use crate::input::{number, parts, text};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn entry(covered: Covered) -> ProtectedEntry {
    ProtectedEntry { id: Uuid::nil(), covered, policies: Vec::new(), until: Until::Never, reason: "kept".into() }
}

/// Entries, one a line, and a target to look for.
pub(crate) fn check(input: &[u8]) {
    let [entries, target] = parts(input);
    let (entries, target) = (text(entries), text(target));
    let covered: Vec<Covered> = entries.lines().take(32).flat_map(covered).collect();
    let set = ProtectedSet::new(covered.iter().cloned().map(entry).collect());
    let protects = |target: &Target| set.target(target, None, NOW).is_some();
    for one in &covered {
        let again = match one {
            Covered::Network(_) => Covered::network(&one.value()),
            Covered::User(_) => Covered::user(&one.value()),
            Covered::File(_) => Covered::file(&one.value()),
            _ => Covered::process(&one.value()),
        };
        assert_eq!(again.as_ref(), Ok(one), "the canonical text");
        for target in targets_of(one, number(target.as_bytes())) {
            assert!(protects(&target), "{one:?} does not protect {target}");
        }
    }
    let kinds = [TargetKind::Ip, TargetKind::User, TargetKind::File, TargetKind::Process];
    for target in kinds.into_iter().filter_map(|kind| Target::named(kind, &target).ok()) {
        let alone = |one: &Covered| ProtectedSet::new(vec![entry(one.clone())]).target(&target, None, NOW).is_some();
        assert_eq!(protects(&target), covered.iter().any(alone), "{target} among {covered:?}");
    }
}

/// The entries that a line can be.
fn covered(line: &str) -> Vec<Covered> {
    [Covered::network(line), Covered::user(line), Covered::file(line), Covered::process(line)]
        .into_iter()
        .flatten()
        .collect()
}

/// Targets that an entry must stop.
fn targets_of(covered: &Covered, choice: usize) -> Vec<Target> {
    let value = covered.value();
    match covered {
        Covered::Network(network) => {
            let inside = inside(*network, choice);
            let texts = match inside {
                IpAddr::V4(v4) => vec![v4.to_string(), format!("::ffff:{v4}")],
                IpAddr::V6(v6) => vec![v6.to_string(), v6.segments().map(|group| format!("{group:x}")).join(":")],
            };
            let networks = Target::parse_network(&network.to_string()).into_iter();
            // `::7` is no address that a response can have.
            networks.chain(texts.iter().filter_map(|text| Target::parse(TargetKind::Ip, text).ok())).collect()
        }
        Covered::User(name) => {
            let mut texts = vec![name.clone(), name.to_uppercase().to_lowercase()];
            if is_plain(name) {
                texts.extend(notations(name));
            } else {
                texts.truncate(1);
            }
            texts.iter().filter_map(|text| Target::account(text).ok()).collect()
        }
        Covered::File(_) => {
            let below = [value.clone(), format!("{value}/a"), format!("{value}/a b/..c")];
            below.iter().filter_map(|text| Target::parse(TargetKind::File, text).ok()).collect()
        }
        _ => vec![Target::parse(TargetKind::Process, &value).unwrap()],
    }
}

/// An address in `network`.
fn inside(network: IpNet, choice: usize) -> IpAddr {
    let choice = u128::try_from(choice).unwrap();
    match network {
        IpNet::V4(v4) => {
            let bits = u32::try_from(choice & u128::from(u32::MAX)).unwrap() & u32::from(v4.hostmask());
            IpAddr::V4((u32::from(v4.network()) | bits).into())
        }
        IpNet::V6(v6) => IpAddr::V6((u128::from(v6.network()) | (choice & u128::from(v6.hostmask()))).into()),
    }
}
