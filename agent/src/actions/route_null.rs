//! `route-null`: a blackhole route to an address, so that this host answers it nothing. It is marked with a routing
//! protocol number of our own: an administrator's blackhole for the same address is left alone.

use riposte_protocol::command::Op;
use riposte_protocol::target::TargetKind;
use serde_json::{Value, json};

use super::attempt::failure;
use super::{About, Action, ActionError, Attempt, Host, Step};
use crate::platform;
use crate::runner::{Program, Runner};

/// Who made the route, as the kernel keeps it with it. Free in iproute2's `rt_protos`.
const PROTOCOL: &str = "113";

/// The action.
#[derive(Debug)]
pub(super) struct RouteNull;

impl Action for RouteNull {
    fn about(&self) -> &'static About {
        const ABOUT: About =
            About { name: "route-null", targets: &[TargetKind::Ip], lock_domain: "route", ..About::DEFAULT };
        &ABOUT
    }

    fn availability(&self, _host: &Host) -> Result<(), String> {
        Runner::find("ip").ok_or("ip (iproute2) is not installed")?;
        platform::may_configure_network()
    }

    fn plan(&self, op: Op, attempt: &Attempt<'_>) -> String {
        route(attempt, if op == Op::Apply { "add" } else { "del" }).text()
    }

    fn prepare<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, Value> {
        // Only for people who read the journal: what is ours is known by its mark.
        Box::pin(async { Ok(json!({ "blackholed_before": is_blackholed(attempt, false).await? })) })
    }

    fn apply<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if is_blackholed(attempt, false).await? {
                return Ok(());
            }
            attempt.run(&route(attempt, "add")).await.map(drop)
        })
    }

    fn is_in_force<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(is_blackholed(attempt, false))
    }

    fn revert<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, ()> {
        Box::pin(async {
            if is_blackholed(attempt, true).await? {
                attempt.run(&route(attempt, "del")).await?;
            }
            Ok(())
        })
    }

    fn is_lifted<'a>(&'a self, attempt: &'a Attempt<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(!is_blackholed(attempt, true).await?) })
    }
}

/// Whether there is a blackhole route to exactly the target: any, or only one of ours.
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
        .map_err(|_| ActionError::Failed("ip printed something else than routes".into()))?;
    Ok(!routes.is_empty())
}

fn route(attempt: &Attempt<'_>, verb: &str) -> Program {
    Program::new("ip", [family(attempt), "route", verb, "blackhole", &destination(attempt), "proto", PROTOCOL])
}

fn family(attempt: &Attempt<'_>) -> &'static str {
    if attempt.target.ip().is_some_and(|ip| ip.is_ipv6()) { "-6" } else { "-4" }
}

fn destination(attempt: &Attempt<'_>) -> String {
    let length = if attempt.target.ip().is_some_and(|ip| ip.is_ipv6()) { 128 } else { 32 };
    format!("{}/{length}", attempt.target.value())
}
