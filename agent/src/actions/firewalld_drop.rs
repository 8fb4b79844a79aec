//! `firewalld-drop`: drops an address by a rich rule of firewalld, in the default zone, until firewalld is reloaded:
//! for hosts whose administrators look at firewalld and nowhere else.

use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Change, Look, Recipe};
use super::{About, Os};
use crate::platform;
use crate::runner::Program;

pub(super) static FIREWALLD_DROP: ByRecipe = ByRecipe {
    about: About {
        name: "firewalld-drop",
        summary: "Drops everything from an address or a network by firewalld",
        targets: &[TargetKind::Ip],
        networks: true,
        platforms: &[Os::Linux],
        lock_domain: "firewalld",
        applied: "`firewall-cmd --add-rich-rule`, in the running configuration",
        verified: "`firewall-cmd --query-rich-rule`",
        undone: "`firewall-cmd --remove-rich-rule`, unless the rule was there before",
        rights: "root",
        ..About::DEFAULT
    },
    programs: |_| &["firewall-cmd"],
    rights: platform::must_be_root,
    recipe,
};

pub(super) fn recipe(_os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    let family = if target.network()?.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let rule = format!("rule family={family} source address={} drop", target.value());
    let with = |verb: &str| Program::new("firewall-cmd", []).arguments(&[&format!("--{verb}-rich-rule={rule}")]);
    Some(Recipe {
        apply: vec![Change::new(with("add"))],
        revert: vec![Change::new(with("remove"))],
        shows: vec![Look::exit(with("query"), 1)],
        ..Recipe::default()
    })
}
