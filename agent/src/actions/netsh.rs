//! `netsh`: blocks an address by two rules of Windows' firewall, one in each direction. They have
//! names of their own, so that deleting one block never deletes another. The effect is in force
//! only if the firewall is on in every profile.

use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Change, Check, Recipe};
use super::{About, Os};
use crate::platform;
use crate::runner::Program;

const PROFILES: &str = r"HKLM\SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy";

/// Where a Group Policy overrides them.
const POLICIES: &str = r"HKLM\SOFTWARE\Policies\Microsoft\WindowsFirewall";

pub(super) static NETSH: ByRecipe = ByRecipe {
    about: About {
        name: "netsh",
        summary: "Blocks an address or a network by Windows' firewall",
        targets: &[TargetKind::Ip],
        networks: true,
        platforms: &[Os::Windows],
        lock_domain: "firewall",
        applied: "`netsh advfirewall firewall add rule`, in and out, named `Riposte ADDRESS in` and `out`",
        verified: "both rules are there by their names, the firewall is on in the domain, private and public profile, and no Group Policy \
                   turns it or local rules off; not whether a rule was changed by hand, nor another firewall in its place",
        undone: "both rules are deleted by their names",
        rights: "Administrator",
        ..About::DEFAULT
    },
    programs: |_| PROGRAMS,
    needs: |_| platform::may_configure_network(),
    recipe,
};

/// The programs that every use of Windows' firewall needs.
pub(super) const PROGRAMS: &[&str] = &["netsh.exe", "reg.exe"];

pub(super) fn recipe(_os: Os, target: &Target, _arguments: &[String]) -> Option<Recipe> {
    block("Riposte", target)
}

/// Two rules, whose names begin with `prefix`.
pub(super) fn block(prefix: &str, target: &Target) -> Option<Recipe> {
    let network = target.network()?.to_string();
    let rule = |verb: &str, way: &str| {
        let name = format!("name={prefix} {} {way}", target.value());
        Program::new("netsh.exe", ["advfirewall", "firewall", verb, "rule"]).arguments(&[&name])
    };
    let (way_in, way_out, remote) = ("dir=in", "dir=out", format!("remoteip={network}"));
    let add = |way: &str, direction: &str| {
        Change::new(rule("add", way).arguments(&["interface=any", direction, "action=block", &remote]))
            .unless(Check::exit(rule("show", way), 1))
    };
    let delete = |way: &str| Change::new(rule("delete", way)).may_fail();
    let mut shows = vec![Check::exit(rule("show", "in"), 1), Check::exit(rule("show", "out"), 1)];
    shows.extend(is_on());
    Some(Recipe {
        apply: vec![add("in", way_in), add("out", way_out)],
        revert: vec![delete("in"), delete("out")],
        shows,
        more_parts: 1,
        is_marked: true,
        note: Some(|effect| format!("description=Riposte effect {effect}")),
        ..Recipe::default()
    })
}

/// Whether the firewall is on in every profile, and no Group Policy turns it or local rules off. The
/// output of `netsh show profile` depends on the system's language, so it is not used.
pub(super) fn is_on() -> Vec<Check> {
    let ask = |folder: &str, profile: &str, value: &str| {
        Program::new("reg.exe", ["query", &format!(r"{folder}\{profile}"), "/v", value])
    };
    let of_profile = |profile: &str| {
        // `reg` ends with 1 where a value is not there.
        let is_allowed = |value: &str| Check::lacks(ask(POLICIES, profile, value), "0x0", 1);
        let is_on = Check::prints(ask(PROFILES, profile, "EnableFirewall"), ["0x1"]);
        [is_on, is_allowed("EnableFirewall"), is_allowed("AllowLocalPolicyMerge")]
    };
    ["DomainProfile", "StandardProfile", "PublicProfile"].into_iter().flat_map(of_profile).collect()
}
