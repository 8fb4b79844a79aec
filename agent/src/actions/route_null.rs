//! `route-null`: a blackhole route for an address or a network, so that this host sends it no
//! packets. On Linux it is marked with a routing protocol number of our own: an administrator's
//! blackhole for the same address is left alone.

use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};
use serde_json::{Value, json};

use super::error::failure;
use super::recipe::{Change, Check, Recipe, unsuited};
use super::{About, Action, ActionError, Attempt, Host, Os, Step, probe};
use crate::platform;
use crate::runner::Program;

/// The routing protocol number that marks our routes in the kernel. Unused in iproute2's
/// `rt_protos`.
const PROTOCOL: &str = "113";

/// The action.
#[derive(Debug)]
pub(super) struct RouteNull;

const ABOUT: About = About {
    name: "route-null",
    summary: "Adds a blackhole route for an address or a network",
    targets: &[TargetKind::Ip],
    networks: true,
    platforms: &[Os::Linux, Os::FreeBsd, Os::Windows],
    lock_domain: "route",
    applied: "Linux: `ip route add blackhole`, marked as protocol 113. FreeBSD: `route add -blackhole`. Windows: `netsh \
              interface add route` to the loopback interface, until the next start",
    verified: "Linux: the route is listed, and the kernel, asked for the route to the address (of a network: to its first and its \
               last), drops; not a narrower route inside a network, nor a rule that matches the source. Elsewhere the route is \
               listed",
    undone: "the route is deleted; on Linux only one that is marked, elsewhere unless it was there before",
    rights: "root or CAP_NET_ADMIN; Administrator",
    ..About::DEFAULT
};

/// The recipe of systems other than Linux.
pub(super) fn recipe(os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let network = target.network()?;
    let (is_v4, text) = (network.addr().is_ipv4(), network.to_string());
    match os {
        Os::FreeBsd => {
            let (family, nowhere) = if is_v4 { ("-inet", "127.0.0.1") } else { ("-inet6", "::1") };
            let route = |verb: &str| Program::new("route", ["-q", verb, family, &text, nowhere, "-blackhole"]);
            let destination = format!("destination: {}", network.network());
            let get = Program::new("route", ["-n", "get", family, &text]);
            Some(Recipe {
                apply: vec![Change::new(route("add"))],
                revert: vec![Change::new(route("delete"))],
                shows: vec![Check::prints(get, [&destination, "BLACKHOLE"]).or_exit(1)],
                ..Recipe::default()
            })
        }
        Os::Windows => {
            let family = if is_v4 { "ipv4" } else { "ipv6" };
            let prefix = format!("prefix={text}");
            // Interface 1 is the loopback on every Windows; packets end there.
            let route = |verb: &str| {
                let program = Program::new("netsh.exe", ["interface", family, verb, "route", &prefix, "interface=1"]);
                program.arguments(&["store=active"])
            };
            let list = Program::new("netsh.exe", ["interface", family, "show", "route", "store=active"]);
            Some(Recipe {
                apply: vec![Change::new(route("add"))],
                revert: vec![Change::new(route("delete"))],
                shows: vec![Check::prints(list, [&text])],
                ..Recipe::default()
            })
        }
        _ => None,
    }
}

impl RouteNull {
    /// The recipe; `None` on Linux, which needs more.
    fn recipe(attempt: &Attempt<'_>) -> Result<Option<Recipe>, ActionError> {
        if attempt.host.os == Os::Linux {
            return Ok(None);
        }
        recipe(attempt.host.os, attempt.target, &[]).map(Some).ok_or_else(|| unsuited(&ABOUT, attempt))
    }
}

impl Action for RouteNull {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn availability(&self, host: &Host) -> Result<(), String> {
        match host.os {
            Os::Linux => {
                host.has_programs(&["ip"])?;
                platform::may_configure_network()?;
                probe::blackhole(host)
            }
            Os::Windows => host.has_programs(&["netsh.exe"]),
            _ => {
                host.has_programs(&["route"])?;
                platform::must_be_root()
            }
        }
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        match Self::recipe(attempt) {
            Ok(Some(recipe)) => recipe.plan(op),
            Ok(None) => route(attempt, if op == Op::Apply { "add" } else { "del" }).text(),
            Err(error) => error.to_string(),
        }
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        Box::pin(async {
            match Self::recipe(attempt)? {
                Some(recipe) => recipe.prepare(attempt).await,
                // Only for readers of the journal: our route is recognised by its mark.
                None => Ok(json!({ "blackholed_before": is_blackholed(attempt, false).await? })),
            }
        })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match Self::recipe(attempt)? {
                Some(recipe) => recipe.apply(attempt).await,
                None => {
                    if !is_blackholed(attempt, false).await? {
                        attempt.run(&route(attempt, "add")).await?;
                    }
                    match way_out(attempt).await? {
                        None => Ok(()),
                        Some(way) => Err(ActionError::Failed(format!(
                            "the route exists, but the kernel prefers another one: {way}"
                        ))),
                    }
                }
            }
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match Self::recipe(attempt)? {
                Some(recipe) => recipe.is_in_force(attempt).await,
                None => Ok(is_blackholed(attempt, false).await? && way_out(attempt).await?.is_none()),
            }
        })
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            match Self::recipe(attempt)? {
                Some(recipe) => recipe.revert(attempt).await,
                None if is_blackholed(attempt, true).await? => attempt.run(&route(attempt, "del")).await.map(drop),
                None => Ok(()),
            }
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async {
            match Self::recipe(attempt)? {
                Some(recipe) => recipe.is_lifted(attempt).await,
                None => Ok(!is_blackholed(attempt, true).await?),
            }
        })
    }
}

/// Whether there is a blackhole route to exactly the target: any, or only ours.
async fn is_blackholed(attempt: &Attempt<'_>, ours: bool) -> Result<bool, ActionError> {
    let destination = destination(attempt);
    let protocol = if ours { PROTOCOL } else { "all" };
    let show = ["-j", family(attempt), "route", "show", "type", "blackhole", "proto", protocol, "exact", &destination];
    let program = Program::new("ip", show);
    let exit = attempt.look(&program).await?;
    if !exit.is_success() {
        return Err(failure(&program, &exit));
    }
    let routes: Vec<Value> = serde_json::from_str(&exit.stdout)
        .map_err(|_| ActionError::Failed("the output of ip is not a list of routes".into()))?;
    Ok(!routes.is_empty())
}

/// Another route that the kernel would still use for the target: by a rule that reads another table
/// first, or with a better metric. Of a network its first and its last address are tested.
async fn way_out(attempt: &Attempt<'_>) -> Result<Option<String>, ActionError> {
    let Some(network) = attempt.target.network() else { return Ok(None) };
    let mut addresses = vec![network.network(), network.broadcast()];
    addresses.dedup();
    for address in addresses {
        let program = Program::new("ip", [family(attempt), "route", "get", &address.to_string()]);
        let exit = attempt.look(&program).await?;
        if exit.is_success() {
            return Ok(Some(exit.stdout.lines().next().unwrap_or_default().trim().to_owned()));
        }
        // The kernel's answer for packets that it drops silently; any other answer is another
        // route.
        if !exit.stderr.contains("Invalid argument") {
            return Ok(Some(exit.stderr.trim().to_owned()));
        }
    }
    Ok(None)
}

fn route(attempt: &Attempt<'_>, verb: &str) -> Program {
    Program::new("ip", [family(attempt), "route", verb, "blackhole", &destination(attempt), "proto", PROTOCOL])
}

fn family(attempt: &Attempt<'_>) -> &'static str {
    if attempt.target.network().is_some_and(|network| network.addr().is_ipv6()) { "-6" } else { "-4" }
}

fn destination(attempt: &Attempt<'_>) -> String {
    attempt.target.network().map_or_else(String::new, |network| network.to_string())
}
