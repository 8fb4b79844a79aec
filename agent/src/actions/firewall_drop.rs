//! `firewall-drop`: drops everything that an address or a network sends to this host or through it;
//! optionally also what is sent to it. On Linux it uses nftables sets of our own, or iptables and
//! ip6tables rules where `nft` is missing. Other systems use their packet filters.

use std::slice;

use ipnet::IpNet;
use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Value, json};

use super::recipe::{Change, Check, Recipe, unsuited};
use super::{
    About, Action, ActionError, Attempt, Bulk, Form, Host, Looks, Os, Parameter, Step, iptables, netsh, nftables, pf,
    probe,
};
use crate::platform;
use crate::runner::Program;

/// The action.
#[derive(Debug)]
pub(super) struct FirewallDrop;

const ABOUT: About = About {
    name: "firewall-drop",
    summary: "Drops everything from an address or a network",
    targets: &[TargetKind::Ip],
    networks: true,
    platforms: Os::ALL,
    lock_domain: "firewall",
    parameters: &[Parameter {
        form: Form::Word("output"),
        summary: "also drop what is sent to it (nftables, iptables; the other filters always do)",
        ..Parameter::DEFAULT
    }],
    applied: "Linux: an element in a set of the nftables table `inet riposte`, with a time-out where the block has an end of at \
              most 200,000 days; a later end is kept by the agent's timer alone. Without `nft`, rules of iptables or ip6tables \
              in INPUT and FORWARD. FreeBSD, NetBSD, SunOS: ipf rules. OpenBSD, macOS: as `pf`. \
              Windows: as `netsh`, with names of its own",
    verified: "nftables: the element is in the set, the table is not dormant, and each chain at its hook has one rule, which \
               drops what is in the set without any other condition. iptables: our rule is in each chain, and no rule before it lets the \
               address through. Elsewhere the rules are listed. Not seen by these hooks: bridged frames, flows that \
               are offloaded to hardware, XDP",
    undone: "the element or the rules are removed, every copy of them",
    rights: "root or CAP_NET_ADMIN; Administrator",
    ..About::DEFAULT
};

/// The firewall program to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Nftables,
    Iptables,
    /// The only firewall of a system other than Linux.
    Other,
}

impl Backend {
    /// The firewall that works here; on Linux the first of two.
    fn present(host: &Host) -> Result<Self, String> {
        match host.os {
            Os::Linux => {
                let installed = |name| host.runner.is_installed(name);
                let has_iptables = installed("iptables") && installed("ip6tables");
                if !installed("nft") && !has_iptables {
                    return Err("neither nft nor iptables and ip6tables are installed".into());
                }
                let why_not_nft = match probe::nft(host) {
                    Ok(()) => return Ok(Self::Nftables),
                    Err(reason) => reason,
                };
                host.has_programs(&["iptables", "ip6tables"]).map_err(|_| why_not_nft)?;
                iptables::may_talk_to_the_kernel()?;
                probe::iptables(host).map(|()| Self::Iptables)
            }
            Os::OpenBsd | Os::MacOs => host.has_programs(&["pfctl"]).map(|()| Self::Other),
            Os::Windows => host.has_programs(netsh::PROGRAMS).map(|()| Self::Other),
            _ => host.has_programs(&["ipf", "ipfstat"]).map(|()| Self::Other),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Other => "other",
        }
    }

    /// The firewall that brought the effect into force, even if another is preferred by now;
    /// otherwise the one present.
    fn of(attempt: &Attempt<'_>) -> Result<Self, ActionError> {
        match attempt.undo.and_then(|undo| undo.get("backend")).and_then(Value::as_str) {
            Some("iptables") => Ok(Self::Iptables),
            Some("nftables") => Ok(Self::Nftables),
            Some("other") => Ok(Self::Other),
            _ => Self::present(attempt.host).map_err(ActionError::Failed),
        }
    }
}

/// The recipe of systems other than Linux.
pub(super) fn recipe(os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    match os {
        Os::FreeBsd | Os::NetBsd | Os::SunOs => Some(ipf(target.network()?)),
        Os::OpenBsd | Os::MacOs => pf::recipe(os, target, &[]),
        Os::Windows => netsh::block("Riposte firewall-drop", target),
        Os::Linux => None,
    }
}

fn ipf(network: IpNet) -> Recipe {
    let rules = format!("block out quick from any to {network}\nblock in quick from {network} to any\n");
    let is_v6 = network.addr().is_ipv6();
    let program = |flags: &str| {
        let v6: &[&str] = if is_v6 { &["-6"] } else { &[] };
        Program::new("ipf", []).arguments(v6).arguments(&[flags, "-"]).stdin(rules.as_str())
    };
    let list = Program::new("ipfstat", if is_v6 { ["-6", "-io"] } else { ["-4", "-io"] });
    let (to, from) = (format!("from any to {network}"), format!("from {network} to any"));
    Recipe {
        apply: vec![Change::new(program("-f"))],
        revert: vec![Change::new(program("-rf"))],
        shows: vec![Check::prints(list, [&to, &from])],
        ..Recipe::default()
    }
}

impl FirewallDrop {
    /// The firewall of all of these.
    fn common(attempts: &[Attempt<'_>]) -> Result<Backend, ActionError> {
        let Some(first) = attempts.first() else { return Ok(Backend::Other) };
        let common = Backend::of(first)?;
        for attempt in attempts {
            if Backend::of(attempt)? != common {
                return Err(ActionError::Failed("they are in force by different firewalls".into()));
            }
        }
        Ok(common)
    }

    fn recipe(attempt: &Attempt<'_>) -> Result<Recipe, ActionError> {
        recipe(attempt.host.os, attempt.target, attempt.arguments).ok_or_else(|| unsuited(&ABOUT, attempt))
    }
}

impl Action for FirewallDrop {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        // A missing right is a better reason than the error that it causes.
        platform::may_configure_network()?;
        Backend::present(host).map(drop)
    }

    fn bulk(&self) -> Option<&dyn Bulk> {
        (Os::current() == Os::Linux).then_some(self)
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        match Backend::of(attempt) {
            Ok(Backend::Nftables) => nftables::plan(op, attempt),
            Ok(Backend::Iptables) => iptables::plan(op, attempt),
            Ok(Backend::Other) => Self::recipe(attempt).map_or_else(|e| e.to_string(), |recipe| recipe.plan(op)),
            Err(error) => error.to_string(),
        }
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async {
            let backend = Backend::of(attempt)?;
            let mut undo =
                if backend == Backend::Other { Self::recipe(attempt)?.prepare(attempt).await? } else { json!({}) };
            undo["backend"] = backend.as_str().into();
            Ok(undo)
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => nftables::change(Op::Apply, slice::from_ref(attempt)).await,
                Backend::Iptables => iptables::change(Op::Apply, slice::from_ref(attempt)).await,
                Backend::Other => Self::recipe(attempt)?.apply(attempt).await,
            }
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => one(nftables::are_blocked(slice::from_ref(attempt))),
                Backend::Iptables => one(iptables::are_blocked(slice::from_ref(attempt)).await),
                Backend::Other => Self::recipe(attempt)?.is_in_force(attempt).await,
            }
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => nftables::change(Op::Revert, slice::from_ref(attempt)).await,
                Backend::Iptables => iptables::change(Op::Revert, slice::from_ref(attempt)).await,
                Backend::Other => Self::recipe(attempt)?.revert(attempt).await,
            }
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => one(nftables::are_unblocked(slice::from_ref(attempt))),
                Backend::Iptables => one(iptables::are_unblocked(slice::from_ref(attempt)).await),
                Backend::Other => Self::recipe(attempt)?.is_lifted(attempt).await,
            }
        })
    }
}

/// On Linux. An effect is changed by the firewall that brought it into force.
impl Bulk for FirewallDrop {
    fn works_on(&self, host: &Host) -> bool {
        match Backend::present(host) {
            Ok(Backend::Nftables) => true,
            Ok(Backend::Iptables) => probe::iptables_restore(host).is_ok(),
            _ => false,
        }
    }

    fn apply_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()> {
        Box::pin(change(Op::Apply, attempts))
    }

    fn are_in_force<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a> {
        Box::pin(async move {
            match Self::common(attempts) {
                Ok(Backend::Nftables) => nftables::are_blocked(attempts),
                Ok(Backend::Iptables) => iptables::are_blocked(attempts).await,
                _ => {
                    let mut shown = Vec::with_capacity(attempts.len());
                    for attempt in attempts {
                        shown.push(self.is_in_force(attempt).await);
                    }
                    shown
                }
            }
        })
    }

    fn revert_all<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Step<'a, ()> {
        Box::pin(change(Op::Revert, attempts))
    }

    fn are_lifted<'a>(&'a self, attempts: &'a [Attempt<'a>]) -> Looks<'a> {
        Box::pin(async move {
            match Self::common(attempts) {
                Ok(Backend::Nftables) => nftables::are_unblocked(attempts),
                Ok(Backend::Iptables) => iptables::are_unblocked(attempts).await,
                _ => {
                    let mut shown = Vec::with_capacity(attempts.len());
                    for attempt in attempts {
                        shown.push(self.is_lifted(attempt).await);
                    }
                    shown
                }
            }
        })
    }
}

async fn change(op: Op, attempts: &[Attempt<'_>]) -> Result<(), ActionError> {
    match FirewallDrop::common(attempts)? {
        Backend::Nftables => nftables::change(op, attempts).await,
        Backend::Iptables => iptables::change(op, attempts).await,
        Backend::Other => Err(ActionError::Failed("this firewall does one at a time".into())),
    }
}

/// The only result of a look at one.
fn one<T>(mut results: Vec<Result<T, ActionError>>) -> Result<T, ActionError> {
    results.pop().unwrap_or_else(|| Err(ActionError::Failed("nothing was looked at".into())))
}
