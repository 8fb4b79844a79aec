//! `ipfw`: blocks by a table of FreeBSD's ipfw, which two rules of ours use. Wazuh's own table and
//! rule (1) are left alone.

use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Change, Check, Recipe};
use super::{About, Os};
use crate::platform;
use crate::runner::Program;

/// Number of the table and of the rules.
const NUMBER: &str = "113";

pub(super) static IPFW: ByRecipe = ByRecipe {
    about: About {
        name: "ipfw",
        summary: "Blocks an address or a network by a table of ipfw",
        targets: &[TargetKind::Ip],
        networks: true,
        platforms: &[Os::FreeBsd],
        lock_domain: "firewall",
        applied: "`ipfw table 113 add`, and two rules 113 that deny what is from and to the table",
        verified: "the entry is in the table and rule 113 uses it",
        undone: "the entry is deleted; the rules stay and use an empty table",
        rights: "root",
        ..About::DEFAULT
    },
    programs: |_| &["ipfw"],
    needs: |_| platform::must_be_root(),
    recipe,
};

pub(super) fn recipe(_os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let network = target.network()?.to_string();
    let table = format!("table({NUMBER})");
    let rule = |from: &str, to: &str| Program::new("ipfw", ["-q", "add", NUMBER, "deny", "ip", "from", from, "to", to]);
    let (from, to) = (format!("from {table} to any"), format!("from any to {table}"));
    let rules = Program::new("ipfw", ["list"]);
    let (asks_from, asks_to) = (Check::prints(rules.clone(), [&from]), Check::prints(rules, [&to]));
    Some(Recipe {
        apply: vec![
            Change::new(Program::new("ipfw", ["-q", "table", NUMBER, "add", &network])),
            Change::new(rule(&table, "any")).unless(asks_from.clone()),
            Change::new(rule("any", &table)).unless(asks_to.clone()),
        ],
        revert: vec![Change::new(Program::new("ipfw", ["-q", "table", NUMBER, "delete", &network]))],
        shows: vec![Check::prints(Program::new("ipfw", ["table", NUMBER, "list"]), [&network]), asks_from, asks_to],
        is_marked: true,
        ..Recipe::default()
    })
}
