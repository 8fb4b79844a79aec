//! A policy's own tests: example alerts that must or must not match. They run on every save and in
//! `riposte policy test`. Enrolled agents and protected entries do not change whether a policy
//! matches, so they are not used.

use crate::domain::alert::Alert;
use crate::domain::fault::Fault;
use crate::domain::formats::{self, AlertMappings};
use crate::domain::index::{Seen, holds};
use crate::domain::policy::{Policy, PolicyTest};
use crate::engine::decide::widen;

/// Runs the tests of `policy`; returns a fault for each that fails.
pub fn run_tests(policy: &Policy, mappings: &AlertMappings) -> Vec<Fault> {
    let tests = policy.tests.iter().enumerate();
    tests.flat_map(|(index, test)| try_one(policy, test, mappings, &format!("/tests/{index}"))).collect()
}

fn try_one(policy: &Policy, test: &PolicyTest, mappings: &AlertMappings, at: &str) -> Vec<Fault> {
    let raw = test.alert.to_string();
    let alert = match formats::parse(&raw, mappings, None) {
        Ok(alert) => alert,
        Err(faults) => {
            let placed = |fault: Fault| Fault::at(format!("{at}/alert{}", fault.pointer), fault.detail);
            return faults.into_iter().map(placed).collect();
        }
    };
    // A test has no time of receipt, so its alert counts as fresh.
    let time = alert.time;
    let alert = alert.received(time);
    let name = if test.name.is_empty() { String::new() } else { format!(" ({})", test.name) };
    let seen = Seen::new(&alert, &raw, &|| None);
    let fires = alert.rule.level > 0 && policy.selectors.iter().any(|selector| holds(selector, &seen));
    match (fires, &test.target) {
        (fires, _) if fires != test.fires => {
            let does = if fires { "fires" } else { "does not fire" };
            vec![Fault::at(
                format!("{at}/fires"),
                format!("is {}, but the policy {does} at this alert{name}", test.fires),
            )]
        }
        (true, Some(wanted)) => {
            let aimed = aimed_at(policy, &alert);
            let differs = aimed.as_ref() != Ok(wanted);
            let aimed = aimed.unwrap_or_else(|why| why);
            let detail = format!("is {wanted:?}, but the response would have the target {aimed:?}{name}");
            differs.then(|| Fault::at(format!("{at}/target"), detail)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn aimed_at(policy: &Policy, alert: &Alert) -> Result<String, String> {
    let Some(field) = policy.respond.target else { return Ok(String::new()) };
    match alert.observables.target(field) {
        None => Err("nothing".into()),
        Some(Err(error)) => Err(format!("what {error}")),
        Some(Ok(address)) => {
            let network = policy.respond.network;
            Ok(network.map_or_else(|| address.clone(), |network| widen(&address, network)).value().to_owned())
        }
    }
}
