//! The short form of `make chaos`: the real programs with faults for less than a minute, then
//! verified.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::process::Command;

fn run(arguments: &[&str]) {
    let done = Command::new(env!("CARGO_BIN_EXE_riposte-chaos")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    eprintln!("{said}");
}

/// A seed that differs between runs; a failure prints it, and `--seed` repeats the schedule.
fn seed() -> String {
    getrandom::u32().unwrap().to_string()
}

fn chaos(database: &str) {
    let few = ["--seconds", "16", "--agents", "8", "--rate", "100", "--gap-ms", "800", "--brief-secs", "6"];
    run(&[&["run", "--database", database, "--seed", &seed()], few.as_slice()].concat());
}

#[test]
fn every_promise_holds_in_chaos_on_sqlite() {
    chaos("sqlite");
}

#[test]
fn every_promise_holds_in_chaos_on_postgresql() {
    chaos("postgres");
}

#[test]
fn every_promise_holds_in_chaos_on_three_managers() {
    let few = ["--seconds", "24", "--agents", "8", "--rate", "60", "--gap-ms", "1200", "--brief-secs", "8"];
    run(&[&["run", "--database", "postgres", "--managers", "3", "--seed", &seed()], few.as_slice()].concat());
}

#[test]
fn promise_11_a_full_disk_is_told_and_passes_on_sqlite() {
    run(&["space", "--database", "sqlite", "--seconds", "3"]);
}

#[test]
fn promise_11_a_full_disk_is_told_and_passes_on_postgresql() {
    run(&["space", "--database", "postgres", "--seconds", "3"]);
}

#[test]
fn promise_11_hostile_clients_are_served_without_an_end_of_others() {
    // Ratios need a machine of their own (`make hostile`); here no client may be starved or
    // refused.
    run(&["hostile", "--rounds", "1", "--most", "20"]);
}
