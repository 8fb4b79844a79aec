//! `firewall-drop`: drops everything that an address sends to this host or through it. On Linux, by an nftables set
//! of our own; where there is no `nft`, by iptables and ip6tables rules.

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use serde_json::{Value, json};

use super::{About, Action, ActionError, Attempt, Host, Step, iptables, nftables};
use crate::platform;
use crate::runner::Runner;

/// The action.
#[derive(Debug)]
pub(super) struct FirewallDrop;

/// Which program does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Nftables,
    Iptables,
}

impl Backend {
    fn present() -> Option<Self> {
        if Runner::find("nft").is_some() {
            Some(Self::Nftables)
        } else if Runner::find("iptables").is_some() && Runner::find("ip6tables").is_some() {
            Some(Self::Iptables)
        } else {
            None
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }

    /// The one that brought the effect into force, whatever has been installed since; else the one present.
    fn of(attempt: &Attempt<'_>) -> Result<Self, ActionError> {
        match attempt.undo.and_then(|undo| undo.get("backend")).and_then(Value::as_str) {
            Some("iptables") => Ok(Self::Iptables),
            Some("nftables") => Ok(Self::Nftables),
            _ => Self::present().ok_or_else(|| ActionError::Failed(MISSING.into())),
        }
    }
}

const MISSING: &str = "neither nft nor iptables and ip6tables are installed";

impl Action for FirewallDrop {
    fn about(&self) -> &'static About {
        const ABOUT: About =
            About { name: "firewall-drop", targets: &[TargetKind::Ip], lock_domain: "firewall", ..About::DEFAULT };
        &ABOUT
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        Backend::present().ok_or(MISSING)?;
        platform::may_configure_network()
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        match (Backend::present().unwrap_or(Backend::Nftables), op) {
            (Backend::Nftables, op) => nftables::plan(op, attempt),
            (Backend::Iptables, op) => iptables::plan(op, attempt),
        }
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async { Ok(json!({ "backend": Backend::of(attempt)?.as_str() })) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => nftables::block(attempt).await,
                Backend::Iptables => iptables::block(attempt).await,
            }
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => nftables::is_blocked(attempt).await,
                Backend::Iptables => iptables::is_blocked(attempt).await,
            }
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => nftables::unblock(attempt).await,
                Backend::Iptables => iptables::unblock(attempt).await,
            }
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match Backend::of(attempt)? {
                Backend::Nftables => nftables::is_unblocked(attempt).await,
                Backend::Iptables => iptables::is_unblocked(attempt).await,
            }
        })
    }
}
