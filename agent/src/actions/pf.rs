//! `pf`: blocks by a table in an anchor of pf's own rules, on OpenBSD, FreeBSD and macOS. The
//! system's `pf.conf` is never written.
//!
//! On macOS the anchor is below `com.apple/`, which the system's rules use anyway. On the BSDs the
//! administrator adds one line, `anchor "riposte"`; an error asks for it if it is missing.

use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Change, Check, Recipe};
use super::{About, Os};
use crate::platform;
use crate::runner::Program;

const TABLE: &str = "riposte";

pub(super) static PF: ByRecipe = ByRecipe {
    about: About {
        name: "pf",
        summary: "Blocks an address or a network by a table of pf",
        targets: &[TargetKind::Ip],
        networks: true,
        platforms: &[Os::OpenBsd, Os::FreeBsd, Os::MacOs],
        lock_domain: "firewall",
        applied: "`pfctl`: an entry of table `riposte` in the anchor `riposte` (macOS: `com.apple/riposte`), whose rules drop \
                  both ways; states of the address are killed. `pf.conf` is not written: on the BSDs it needs the line \
                  `anchor \"riposte\"`",
        verified: "the entry is in the table, the anchor's rules use the table, pf is enabled",
        undone: "the entry is deleted",
        rights: "root",
        ..About::DEFAULT
    },
    programs: |_| &["pfctl"],
    needs: |_| platform::must_be_root(),
    recipe,
};

pub(super) fn recipe(os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let address = target.network().map(|_| target.value())?;
    let (anchor, main) = match os {
        Os::MacOs => ("com.apple/riposte", "com.apple/*"),
        Os::OpenBsd | Os::FreeBsd => ("riposte", "riposte"),
        _ => return None,
    };
    let asked_by = format!("anchor \"{main}\"");
    let rules = format!("block drop quick from <{TABLE}> to any\nblock drop quick from any to <{TABLE}>\n");
    let in_anchor = |arguments: &[&str]| Program::new("pfctl", ["-a", anchor]).arguments(arguments);
    let table = |verb: &str| in_anchor(&["-t", TABLE, "-T", verb, address]);
    let from_table = format!("<{TABLE}>");
    let rules_ask = Check::prints(in_anchor(&["-s", "rules"]), [&from_table]);
    Some(Recipe {
        needs: vec![(
            Check::prints(Program::new("pfctl", ["-s", "rules"]), [&asked_by]),
            "pf's rules do not use the agent's anchor: add the line `anchor \"riposte\"` to pf.conf and load it",
        )],
        apply: vec![
            Change::new(table("add")),
            Change::new(in_anchor(&["-R", "-f", "-"]).stdin(rules)).unless(rules_ask.clone()),
            Change::new(Program::new("pfctl", ["-k", address])).may_fail(),
        ],
        revert: vec![Change::new(table("delete"))],
        shows: vec![
            Check::exit(table("test"), 1),
            rules_ask,
            Check::prints(Program::new("pfctl", ["-s", "info"]), ["Status: Enabled"]),
        ],
        is_marked: true,
        ..Recipe::default()
    })
}
