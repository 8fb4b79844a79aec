//! The programs that each action would run on every system, compared with the table in
//! `golden.txt`. Each recipe is also applied and reverted against simulated programs. Programs of
//! other systems are never run.
//!
//! `UPDATE=1` rewrites the table.

use std::any::Any;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use riposte_protocol::command::Op;
use riposte_protocol::target::{Target, TargetKind};

use super::recipe::{ByRecipe, Recipe};
use super::{ALL, Attempt, Host, Os, Transcript, find};
use super::{disable_account, firewall_drop, kaspersky, restart_sh, restart_wazuh, route_null};
use crate::runner::{Exit, Program, Runner};

type Make = fn(Os, &Target, &[String]) -> Option<Recipe>;

const IPS: &[&str] = &["203.0.113.7", "2001:db8::7", "203.0.113.0/24", "2001:db8:7::/48"];
const USERS: &[&str] = &["al.ice"];
const NOTHING: &[&str] = &[""];

fn target(kind: TargetKind, text: &str) -> Target {
    Target::parse(kind, text).or_else(|_| Target::parse_network(text)).unwrap()
}

/// A name, the function that makes its recipe, and the systems and targets it is for.
type Maker = (&'static str, Make, &'static [Os], TargetKind, &'static [&'static str]);

/// The recipes of every [`ByRecipe`] that needs no arguments; it is in the table by being in
/// [`ALL`].
fn by_recipe() -> impl Iterator<Item = Maker> {
    let recipes = ALL.iter().filter_map(|action| (*action as &dyn Any).downcast_ref::<ByRecipe>());
    recipes.filter(|it| !it.about.parameters.iter().any(|parameter| parameter.required)).map(|it| {
        let kind = it.about.targets.first().copied().unwrap_or(TargetKind::None);
        let targets = match kind {
            TargetKind::Ip => IPS,
            TargetKind::User => USERS,
            TargetKind::File => &["/tmp/x"],
            TargetKind::Process => &["4711"],
            TargetKind::Host | TargetKind::None => NOTHING,
        };
        (it.about.name, it.recipe, it.about.platforms, kind, targets)
    })
}

fn makers() -> Vec<Maker> {
    let special: Vec<Maker> = vec![
        ("firewall-drop", firewall_drop::recipe, Os::ALL, TargetKind::Ip, IPS),
        ("route-null", route_null::recipe, Os::ALL, TargetKind::Ip, IPS),
        ("disable-account", disable_account::recipe, Os::ALL, TargetKind::User, USERS),
        (
            "restart-wazuh",
            |os, _, _| Some(restart_wazuh::recipe(os, Path::new("/var/ossec"), None)),
            Os::ALL,
            TargetKind::None,
            NOTHING,
        ),
        (
            "restart-wazuh, systemd",
            |os, _, _| Some(restart_wazuh::recipe(os, Path::new("/var/ossec"), Some("wazuh-agent"))),
            &[Os::Linux],
            TargetKind::None,
            NOTHING,
        ),
        (
            "restart.sh manager, systemd",
            |os, _, _| Some(restart_sh::recipe(os, Path::new("/var/ossec"), os == Os::Linux, &["manager".into()])),
            &[Os::Linux, Os::FreeBsd, Os::Windows],
            TargetKind::None,
            NOTHING,
        ),
        (
            "restart.sh agent, no systemd",
            |os, _, _| Some(restart_sh::recipe(os, Path::new("/var/ossec"), false, &["agent".into()])),
            &[Os::Linux],
            TargetKind::None,
            NOTHING,
        ),
        (
            "kaspersky --start-task '2; id'",
            |os, target, _| kaspersky::recipe(os, target, &["--start-task".into(), "2; id".into()]),
            &[Os::Linux],
            TargetKind::None,
            NOTHING,
        ),
    ];
    by_recipe().chain(special).collect()
}

#[test]
fn the_programs_of_every_system_match_the_table() {
    let mut table = String::from("# Written by golden_tests.rs with UPDATE=1; argv-tested, not run.\n");
    for (name, make, systems, kind, targets) in makers() {
        for os in systems {
            for text in targets {
                let Some(recipe) = make(*os, &target(kind, text), &[]) else { continue };
                writeln!(table, "\n{name} on {} {text}\n{}", os.as_str(), recipe.text()).unwrap();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/actions/golden.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(table, expected, "the table is out of date: run this test with UPDATE=1 and read the difference");
}

fn exit(code: i32, stdout: &str) -> Exit {
    Exit { code, stdout: stdout.into(), stderr: String::new() }
}

/// A host of another system whose programs are simulated by `answer`.
fn played(os: Os, answer: impl Fn(&str) -> Exit + Send + Sync + 'static) -> (Host, Arc<Mutex<Vec<String>>>) {
    let ran: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&ran);
    let runner = Runner::faked(move |program: &Program| {
        log.lock().unwrap().push(program.text());
        answer(&program.text())
    });
    let mut host = Host::new(runner, Path::new("/nonexistent"));
    host.os = os;
    (host, ran)
}

/// Applies and reverts `action` on a simulated system; `answer` learns whether the effect is in
/// force.
async fn goes_there_and_back(
    name: &str,
    os: Os,
    at: Target,
    applied_by: &'static str,
    reverted_by: &'static str,
    answer: impl Fn(&str, bool) -> Exit + Send + Sync + 'static,
) -> Vec<String> {
    let state = Arc::new(Mutex::new(false));
    let (host, ran) = played(os, move |text| {
        let mut state = state.lock().unwrap();
        *state = (*state || text.contains(applied_by)) && !text.contains(reverted_by);
        answer(text, *state)
    });
    let action = find(ALL, name).unwrap();
    let transcript = Mutex::<Transcript>::default();
    let mut attempt = Attempt::new(&host, &transcript, &at);
    let undo = action.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&undo);
    assert!(action.is_lifted(&attempt).await.unwrap(), "{name} at first");
    for _ in 0..2 {
        action.apply(&attempt).await.unwrap();
        assert!(action.is_in_force(&attempt).await.unwrap(), "{name}");
        assert!(!action.is_lifted(&attempt).await.unwrap(), "{name}");
    }
    for _ in 0..2 {
        action.revert(&attempt).await.unwrap();
        assert!(action.is_lifted(&attempt).await.unwrap(), "{name}");
    }
    // A rule that was there before belongs to another program, and stays.
    action.apply(&attempt).await.unwrap();
    let theirs = action.prepare(&attempt).await.unwrap();
    attempt.undo = Some(&theirs);
    action.revert(&attempt).await.unwrap();
    assert!(action.is_lifted(&attempt).await.unwrap(), "{name}");
    ran.lock().unwrap().clone()
}

fn address() -> Target {
    target(TargetKind::Ip, "203.0.113.7")
}

#[tokio::test]
async fn netsh_makes_two_rules_once_and_wants_the_firewall_on() {
    let ran =
        goes_there_and_back("netsh", Os::Windows, address(), "add rule", "delete rule", |text, in_force| match text {
            _ if text.contains("reg.exe") => exit(0, "    EnableFirewall    REG_DWORD    0x1\r\n"),
            _ if text.contains("show rule") => exit(i32::from(!in_force), ""),
            _ => exit(0, "Ok.\r\n"),
        })
        .await;
    // Once a rule is there, the simulated firewall finds it under any name: two blocks are two
    // additions.
    assert_eq!(ran.iter().filter(|text| text.contains("add rule")).count(), 2, "{ran:#?}");
    assert!(ran.iter().any(|text| text.contains("'name=Riposte 203.0.113.7 in'") && text.contains("203.0.113.7/32")));

    // By the value that is off: of the firewall itself, or of a Group Policy, which is missing on most hosts.
    for (off, expected) in [
        (r"FirewallPolicy\DomainProfile' /v EnableFirewall", false),
        (r"WindowsFirewall\PublicProfile' /v EnableFirewall", false),
        (r"WindowsFirewall\StandardProfile' /v AllowLocalPolicyMerge", false),
        ("nothing", true),
    ] {
        let (host, ran) = played(Os::Windows, move |text| match text {
            _ if text.contains(off) => exit(0, "0x0"),
            _ if text.contains(r"Policies\Microsoft") => exit(1, ""),
            _ => exit(0, "0x1"),
        });
        let (at, transcript) = (address(), Mutex::<Transcript>::default());
        let attempt = Attempt::new(&host, &transcript, &at);
        let is_in_force = find(ALL, "netsh").unwrap().is_in_force(&attempt).await.unwrap();
        assert_eq!(is_in_force, expected, "{off}: {ran:#?}");
    }
}

#[tokio::test]
async fn accounts_elsewhere_are_disabled_and_enabled_and_those_that_were_disabled_stay_so() {
    let user = || target(TargetKind::User, "alice");
    for (os, applied_by, reverted_by, yes, no) in [
        (Os::FreeBsd, "pw lock", "pw unlock", "alice:*LOCKED*$6$x:1001:", "alice:$6$x:1001:"),
        (
            Os::MacOs,
            "-disableuser",
            "-enableuser",
            "AuthenticationAuthority: ;ShadowHash; ;DisabledUser;",
            ";ShadowHash;",
        ),
        (Os::Windows, "/active:no", "/active:yes", "2\r\n", "0\r\n"),
        (Os::SunOs, "passwd -l", "passwd -u", "alice LK ", "alice PS "),
    ] {
        let ran = goes_there_and_back("disable-account", os, user(), applied_by, reverted_by, move |_, in_force| {
            exit(0, if in_force { yes } else { no })
        })
        .await;
        let reverts = ran.iter().filter(|text| text.contains(reverted_by)).count();
        assert_eq!(reverts, 1, "{}: {ran:#?}", os.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_ended_when_nothing_runs_as_the_account_any_more() {
    // Exit codes of pkill and pgrep; of pgrep the first one, and the later ones.
    for (killed, left, left_then, is_good) in [
        (0, 1, 1, true),
        (1, 1, 1, true),
        // A process forked while pkill walked the list.
        (0, 0, 1, true),
        (0, 0, 0, false),
        // No process could be signalled.
        (1, 0, 0, false),
        (2, 1, 1, false),
        (0, 2, 2, false),
    ] {
        let is_first = std::sync::atomic::AtomicBool::new(true);
        let (host, ran) = played(Os::FreeBsd, move |text| match text.split(' ').next() {
            Some("pkill") => exit(killed, ""),
            Some("pgrep") if is_first.swap(false, std::sync::atomic::Ordering::Relaxed) => exit(left, "4711\n"),
            Some("pgrep") => exit(left_then, "4711\n"),
            _ => exit(0, "alice:*LOCKED*$6$x:1001:"),
        });
        let (at, transcript) = (target(TargetKind::User, "alice"), Mutex::<Transcript>::default());
        let mut attempt = Attempt::new(&host, &transcript, &at);
        let arguments = ["end-sessions".to_owned()];
        attempt.arguments = &arguments;
        let done = find(ALL, "disable-account").unwrap().apply(&attempt).await;
        assert_eq!(done.is_ok(), is_good, "{killed} {left} {left_then}: {done:?}");
        let rounds = ran.lock().unwrap().iter().filter(|text| text.starts_with("pkill")).count();
        assert!((1..=20).contains(&rounds), "{rounds}");
    }
}

#[tokio::test]
async fn packet_filters_elsewhere_block_and_unblock() {
    goes_there_and_back("firewall-drop", Os::FreeBsd, address(), "ipf -f", "ipf -rf", |text, in_force| {
        let rules = "block out quick from any to 203.0.113.7/32\nblock in quick from 203.0.113.7/32 to any\n";
        exit(0, if text.contains("ipfstat") && in_force { rules } else { "" })
    })
    .await;
    goes_there_and_back("route-null", Os::FreeBsd, address(), "-q add", "-q delete", |text, in_force| {
        let found =
            "   route to: 203.0.113.7\ndestination: 203.0.113.7\n      flags: <UP,HOST,DONE,STATIC,BLACKHOLE>\n";
        exit(0, if text.contains("get") && in_force { found } else { "destination: default\n flags: <UP,GATEWAY>\n" })
    })
    .await;
    goes_there_and_back("route-null", Os::Windows, address(), "add route", "delete route", |_, in_force| {
        exit(0, if in_force { "No  Manual  256  203.0.113.7/32  1  Loopback\r\n" } else { "203.0.113.70/32\r\n" })
    })
    .await;
    let ran =
        goes_there_and_back("ipfw", Os::FreeBsd, address(), "113 add", "113 delete", |text, in_force| match text {
            "ipfw table 113 list" => exit(0, if in_force { "203.0.113.7/32 0\n" } else { "203.0.113.70/32 0\n" }),
            "ipfw list" => exit(0, "00113 deny ip from table(113) to any\n00113 deny ip from any to table(113)\n"),
            _ => exit(0, ""),
        })
        .await;
    assert!(!ran.iter().any(|text| text.contains("deny")), "the rules are there already: {ran:#?}");
    goes_there_and_back(
        "npf",
        Os::NetBsd,
        address(),
        "wazuh_blacklist add",
        "wazuh_blacklist rem",
        |text, in_force| {
            let show = "# filtering:\tactive\n# config:\tloaded\ntable <wazuh_blacklist> type ipset\n";
            if text.contains("test") { exit(i32::from(!in_force), "") } else { exit(0, show) }
        },
    )
    .await;
    for os in [Os::OpenBsd, Os::FreeBsd, Os::MacOs] {
        let ran = goes_there_and_back("pf", os, address(), "-T add", "-T delete", |text, in_force| match text {
            _ if text.contains("-T test") => exit(i32::from(!in_force), ""),
            _ if text.contains("-s rules") && text.contains("-a ") => {
                exit(0, "block drop quick from <riposte> to any\n")
            }
            _ if text.contains("-s rules") => exit(0, "anchor \"riposte\" all\nanchor \"com.apple/*\" all\n"),
            _ if text.contains("-s info") => exit(0, "Status: Enabled for 0 days 00:01:02\n"),
            _ => exit(0, ""),
        })
        .await;
        assert!(!ran.iter().any(|text| text.contains("pf.conf")), "the system's file is never written");
    }
}

#[tokio::test]
async fn a_missing_preparation_is_reported_in_a_sentence() {
    let at = address();
    for (name, os, said) in [("pf", Os::OpenBsd, "anchor \"riposte\""), ("npf", Os::NetBsd, "wazuh_blacklist")] {
        let (host, ran) = played(os, |_| exit(0, ""));
        let transcript = Mutex::<Transcript>::default();
        let attempt = Attempt::new(&host, &transcript, &at);
        let error = find(ALL, name).unwrap().apply(&attempt).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(ran.lock().unwrap().len(), 1, "nothing but the look is run");
    }
}

#[tokio::test]
async fn a_look_that_fails_is_neither_yes_nor_no() {
    let (at, transcript) = (address(), Mutex::<Transcript>::default());
    for (name, os) in [("ipfw", Os::FreeBsd), ("route-null", Os::Windows), ("firewalld-drop", Os::Linux)] {
        let (host, _) = played(os, |_| Exit { code: 77, stdout: String::new(), stderr: "not permitted".into() });
        let attempt = Attempt::new(&host, &transcript, &at);
        let action = find(ALL, name).unwrap();
        for answer in [action.is_in_force(&attempt).await, action.prepare(&attempt).await.map(|_| true)] {
            assert!(answer.unwrap_err().to_string().contains("ended with 77: not permitted"), "{name}");
        }
    }
}

#[test]
fn every_action_has_a_plan_on_every_system_that_it_supports() {
    for action in ALL {
        for os in action.about().platforms {
            let (host, _) = played(*os, |_| exit(0, ""));
            let kind = action.about().targets.first().copied().unwrap_or(TargetKind::Ip);
            let text = match kind {
                TargetKind::Ip => "203.0.113.7",
                TargetKind::User => "alice",
                TargetKind::File => "/tmp/x",
                TargetKind::Process => "4711",
                TargetKind::Host | TargetKind::None => "",
            };
            let (at, transcript) = (target(kind, text), Mutex::<Transcript>::default());
            let mut attempt = Attempt::new(&host, &transcript, &at);
            let arguments = ["https://hooks.example/x".to_owned()];
            attempt.arguments = &arguments;
            for op in [Op::Apply, Op::Revert] {
                let plan = action.plan(op, &attempt);
                let says = !plan.is_empty() || (op == Op::Revert && !action.about().undoable);
                assert!(says && !plan.contains("cannot be aimed"), "{} on {}: {plan}", action.name(), os.as_str());
            }
        }
    }
}

#[test]
fn hostile_arguments_are_refused_by_every_action_that_does_not_take_any_text() {
    let hostile =
        ["--flush", "; rm -rf /", "$(id)", "`id`", "output\0", "a\nb", "-o", "", "OUTPUT", "name=", "allow=*"];
    for action in ALL {
        let about = action.about();
        let takes_text = about.parameters.iter().any(|parameter| matches!(parameter.form, super::Form::Text(_)));
        for argument in hostile {
            let checked = about.check_arguments(&[argument.to_owned()]);
            assert!(checked.is_err() || takes_text, "{}: {argument:?}", about.name);
            let has_control = argument.chars().any(char::is_control);
            assert!(!(checked.is_ok() && has_control), "{}: {argument:?}", about.name);
        }
    }
}
