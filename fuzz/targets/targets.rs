//! Targets of actions: what is accepted is canonical, harmless as an argument, and the same in every
//! notation and for every reader.

use std::net::IpAddr;

use riposte::domain::canonical;
use riposte_protocol::target::{Target, TargetKind};

use crate::input::text;

const KINDS: [TargetKind; 6] =
    [TargetKind::Ip, TargetKind::User, TargetKind::File, TargetKind::Process, TargetKind::Host, TargetKind::None];

/// The first byte selects the kind, the rest is the text.
pub(crate) fn check(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    let text = text(rest);
    let parsed = Target::parse(kind, &text);
    let named = Target::named(kind, &text);
    if let Ok(target) = &parsed {
        assert_eq!(named.as_ref(), Ok(target), "an alert's target is one for people too");
        assert!(!target.value().contains(char::is_whitespace) || kind == TargetKind::File, "{target}");
    }
    let Ok(target) = named else { return };
    accepted(&target);
    assert_eq!(target.kind(), kind);
    if let Some(ip) = target.ip() {
        notations(&target, ip);
    }
    if let Some(network) = target.network() {
        assert_eq!(network, network.trunc(), "bits behind the prefix");
        // A network is protected if an address in it is.
        let inside = [network.network(), network.broadcast()].map(|ip| Target::parse(TargetKind::Ip, &ip.to_string()));
        for address in inside.into_iter().flatten() {
            assert!(target.always_protected().is_some() || address.always_protected().is_none(), "{target} {address}");
        }
        for prefix in [0, 8, 16, 24, 48, 64, 128, u8::try_from(rest.len() % 256).unwrap()] {
            let wider = target.widened(prefix);
            accepted(&wider);
            assert!(wider.network().unwrap().contains(&network), "{wider} around {target}");
            assert!(target.always_protected().is_none() || wider.always_protected().is_some(), "{wider} {target}");
        }
    }
}

/// What holds for every target.
fn accepted(target: &Target) {
    let (kind, value) = (target.kind(), target.value());
    assert_eq!(Target::named(kind, value).as_ref(), Ok(target), "canonical");
    assert!(value.len() <= 4096 && !value.starts_with('-') && !value.contains(char::is_control), "{target}");
    let json = serde_json::to_string(target).unwrap();
    assert_eq!(serde_json::from_str::<Target>(&json).unwrap(), *target);
    if kind == TargetKind::Ip {
        assert_eq!(canonical::target(value), value);
    }
}

/// Other notations of one address are the same target.
fn notations(target: &Target, ip: IpAddr) {
    let same = |text: String| assert_eq!(Target::parse(TargetKind::Ip, &text).as_ref(), Ok(target), "{text}");
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            same(format!("::ffff:{v4}"));
            same(format!("::FFFF:{:x}:{:x}", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
            same(format!("0:0:0:0:0:ffff:{v4}"));
        }
        IpAddr::V6(v6) => {
            let groups = v6.segments().map(|group| format!("{group:04X}")).join(":");
            same(groups);
            same(v6.to_string().to_uppercase());
        }
    }
    same(canonical::target(&format!(" {ip}/{} ", if ip.is_ipv4() { 32 } else { 128 })));
}
