//! `npf`: blocks by a table of NetBSD's npf. The table is Wazuh's `wazuh_blacklist`. npf cannot
//! create a table at run time, so it must be in `npf.conf`; where Wazuh's active response was set
//! up, it is.

use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Change, Check, Recipe};
use super::{About, Os};
use crate::platform;
use crate::runner::Program;

const TABLE: &str = "wazuh_blacklist";

pub(super) static NPF: ByRecipe = ByRecipe {
    about: About {
        name: "npf",
        summary: "Blocks an address or a network by a table of npf",
        targets: &[TargetKind::Ip],
        networks: true,
        platforms: &[Os::NetBsd],
        lock_domain: "firewall",
        applied: "`npfctl table wazuh_blacklist add`; `npf.conf` has to define the table and a rule that blocks it",
        verified: "`npfctl table wazuh_blacklist test`, and filtering is active",
        undone: "`npfctl table wazuh_blacklist rem`",
        rights: "root",
        ..About::DEFAULT
    },
    programs: |_| &["npfctl"],
    needs: |_| platform::must_be_root(),
    recipe,
};

pub(super) fn recipe(_os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let address = target.network().map(|_| target.value())?;
    let table = |verb: &str| Program::new("npfctl", ["table", TABLE, verb, address]);
    let configured = format!("table <{TABLE}>");
    let show = Program::new("npfctl", ["show"]);
    Some(Recipe {
        needs: vec![(
            Check::prints(show.clone(), [&configured]),
            "npf.conf has no table <wazuh_blacklist>: define it, and a rule that blocks what is in it",
        )],
        apply: vec![Change::new(table("add"))],
        revert: vec![Change::new(table("rem"))],
        shows: vec![Check::exit(table("test"), 1), Check::prints(show, ["filtering:", "active"])],
        ..Recipe::default()
    })
}
