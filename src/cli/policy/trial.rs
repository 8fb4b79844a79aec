//! `riposte policy test`: runs the policies' own tests without a manager.

use std::process::ExitCode;

use super::apply::{WRONG, documents, tell};
use super::args::{Site, Test};
use super::files::KnownNames;
use super::plan::{Stored, many};
use crate::cli::output::say;
use crate::cli::terminal::{Tone, plain, shade};
use crate::domain::formats::AlertMappings;
use crate::domain::policy::{Policy, PolicyTest};
use crate::engine::policy_tests::run_tests;

/// Runs every test and prints its result.
pub(super) async fn run(args: Test) -> anyhow::Result<ExitCode> {
    let Test { remote, paths, site } = args;
    let Some(documents) = documents(&paths) else { return Ok(ExitCode::from(WRONG)) };
    // Without a key or a context no manager is contacted: tests must run offline.
    let known = if remote.is_named() { Stored::ask(&remote).await?.known() } else { KnownNames::default() };
    let mappings = Site::mappings(&site)?;
    let held = match documents.check_only(&known) {
        Ok(held) => held,
        Err(faults) => {
            tell(&faults);
            return Ok(ExitCode::from(WRONG));
        }
    };
    let (mut tried, mut failed, mut untested) = (0, 0, 0);
    for entry in &held.policies {
        let policy = &entry.read;
        say(&format!("{} ({})", policy.name, plain(&entry.document.place)));
        if policy.tests.is_empty() {
            untested += 1;
            say("  no tests");
        }
        for (index, test) in policy.tests.iter().enumerate() {
            tried += 1;
            let (name, faults) = (title(index, test), outcome(policy, test, index, &mappings));
            if faults.is_empty() {
                shade(Tone::Good, &format!("  ok    {name}"));
            } else {
                failed += 1;
                shade(Tone::Bad, &format!("  FAIL  {name}"));
                for fault in &faults {
                    say(&format!("        {}", plain(fault)));
                }
            }
        }
    }
    let untested = if untested > 0 { format!("; {} without tests", many(untested, "policy")) } else { String::new() };
    say(&format!("{}: {} passed, {failed} failed{untested}", many(tried, "test"), tried - failed));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn title(index: usize, test: &PolicyTest) -> String {
    match test.name.as_str() {
        "" if test.fires => format!("test {}: fires", index + 1),
        "" => format!("test {}: does not fire", index + 1),
        name => plain(name),
    }
}

/// The faults of one test of a policy.
fn outcome(policy: &Policy, test: &PolicyTest, index: usize, mappings: &AlertMappings) -> Vec<String> {
    let alone = Policy { tests: vec![test.clone()], ..policy.clone() };
    let told = |fault: crate::domain::fault::Fault| {
        let pointer = fault.pointer.replacen("/tests/0", &format!("/tests/{index}"), 1);
        format!("{pointer} {}", fault.detail)
    };
    run_tests(&alone, mappings).into_iter().map(told).collect()
}
