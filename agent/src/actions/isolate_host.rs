//! `isolate-host`: cuts this host off from everything but its manager, by an nftables table of its
//! own, or by rules of Windows' firewall. It never cuts the agent off. A connection to the manager is tested before and after; if it
//! fails, the table is removed at once and the action fails.

mod listing;
mod manager;
mod table;
#[cfg(test)]
mod tests;
mod windows;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind, WIDEST};
use serde_json::Value;

use self::listing::{TABLES, ask, is_awake, objects};
use self::manager::{answers, managers};
use self::table::Exceptions;
use super::about::values;
use super::error::failure;
use super::nftables::{is_missing, transaction};
use super::{About, Action, ActionError, Attempt, Form, Host, Os, Parameter, Step, evidence, netsh, probe};
use crate::platform;
use crate::runner::Program;

/// The action.
#[derive(Debug)]
pub(super) struct IsolateHost;

const ABOUT: About = About {
    name: "isolate-host",
    summary: "Cuts the host off from everything but its manager",
    targets: &[TargetKind::Host],
    platforms: &[Os::Linux, Os::Windows],
    lock_domain: "isolation",
    parameters: &[Parameter {
        form: Form::Value("allow", "ADDRESS"),
        summary: "an address or a network that stays reachable, both ways",
        repeated: true,
        check: |value| {
            allowed(value)
                .map(drop)
                .ok_or_else(|| "is neither an address nor a network of at least /16 (IPv4) or /48 (IPv6)".into())
        },
        ..Parameter::DEFAULT
    }],
    applied: "the nftables table `inet riposte_isolate`, whose chains drop what is not loopback, the manager's addresses and ports, an \
              allowed address, DHCP and neighbour discovery, or (if the manager is a name) DNS to the configured resolvers. The \
              manager is connected to before and after; if it does not answer, all is removed again. The result records the host's connections before it. \
              Windows: rules that block every address but the manager's, the resolvers', the DHCP server's and the allowed ones, \
              in and out, which count more than the host's own rules that allow",
    verified: "the table is not dormant, its chains drop by default at their hooks, and every exception is for loopback, single \
               addresses or networks that may be allowed, DHCP or neighbour discovery. Not seen by these hooks: \
               bridged frames, containers with a network of their own, raw sockets below the filter. Windows: \
               all rules are there, the firewall is on in every profile, and no Group Policy turns it or local rules off",
    undone: "the table or the rules are deleted",
    rights: "root or CAP_NET_ADMIN; Administrator",
    ..About::DEFAULT
};

/// Parses an address, or a network that is narrow enough for an exception.
fn allowed(text: &str) -> Option<IpNet> {
    let network = Target::parse(TargetKind::Ip, text).or_else(|_| Target::parse_network(text)).ok()?.network()?;
    let widest = if network.addr().is_ipv4() { WIDEST.0 } else { WIDEST.1 };
    (network.prefix_len() >= widest).then_some(network)
}

impl Action for IsolateHost {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        if host.os == Os::Windows {
            host.has_programs(netsh::PROGRAMS)?;
            return platform::may_configure_network();
        }
        host.has_programs(&["nft"])?;
        platform::may_configure_network()?;
        probe::nft(host)
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        match op {
            Op::Apply if attempt.host.os == Os::Windows => {
                format!(
                    "rules of Windows' firewall that block every address, except {}",
                    attempt.host.managers.join(", ")
                )
            }
            Op::Revert if attempt.host.os == Os::Windows => windows::removal().map(|program| program.text()).join("; "),
            Op::Apply => format!("nft: table inet riposte_isolate, except {}", attempt.host.managers.join(", ")),
            Op::Revert => removal().text(),
        }
    }

    fn evidence<'a>(&'a self, attempt: &'a Attempt<'_>) -> BoxFuture<'a, Option<Value>> {
        Box::pin(async {
            let proc = attempt.host.path("/proc/self");
            evidence::in_thread(move || evidence::host(&proc)).await
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            let (managers, resolvers) = managers(attempt.host).await?;
            if !answers(&managers).await {
                return Err(ActionError::Refused(
                    "the manager cannot be reached from here, so isolation would cut the host off from it".into(),
                ));
            }
            let allowed = values(attempt.arguments, "allow").into_iter().filter_map(allowed).collect();
            let exceptions = Exceptions { managers, resolvers, allowed };
            if attempt.host.os == Os::Windows {
                return windows::apply(attempt, &exceptions).await;
            }
            attempt.run(&transaction(exceptions.table())).await?;
            if answers(&exceptions.managers).await {
                let proven = format!("delete chain {} {}\n", table::NAME, table::UNPROVEN);
                return attempt.run(&transaction(proven)).await.map(drop);
            }
            tracing::warn!("the manager does not answer the isolated host: the isolation is removed");
            let reason = "the manager does not answer the isolated host";
            Err(ActionError::Failed(match remove(attempt).await {
                Ok(()) => format!("{reason}; it is removed again"),
                Err(error) => format!("{reason}, and it cannot be removed: {error}"),
            }))
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            if attempt.host.os == Os::Windows {
                return windows::is_in_force(attempt).await;
            }
            let Some(listing) = listing(attempt).await? else { return Ok(false) };
            let objects = objects(&listing);
            Ok(is_awake(&objects, "riposte_isolate") && table::is_tight(&objects))
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if attempt.host.os == Os::Windows { windows::remove(attempt).await } else { remove(attempt).await }
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            if attempt.host.os == Os::Windows {
                return windows::is_lifted(attempt).await;
            }
            Ok(listing(attempt).await?.is_none())
        })
    }
}

fn removal() -> Program {
    transaction(format!("delete table {}\n", table::NAME))
}

async fn remove(attempt: &Attempt<'_>) -> Result<(), ActionError> {
    let program = removal();
    let exit = attempt.look(&program).await?;
    if exit.is_success() || is_missing(&exit) { Ok(()) } else { Err(failure(&program, &exit)) }
}

/// The table; `None` if it does not exist.
async fn listing(attempt: &Attempt<'_>) -> Result<Option<String>, ActionError> {
    let query = format!("{TABLES}list table {}\n", table::NAME);
    let program = Program::new("nft", ["-j", &query]);
    let exit = ask(attempt, &program).await?;
    if exit.is_success() {
        return Ok(Some(exit.stdout));
    }
    if is_missing(&exit) { Ok(None) } else { Err(failure(&program, &exit)) }
}
