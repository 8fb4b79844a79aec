//! The catalogue of the library: the files of `policies/library/`, compiled in, and the frequent
//! rules without a safe response. It knows no manager and prints nothing.

use anyhow::Context as _;
use riposte_protocol::words::nearest;
use serde::Serialize;
use serde_json::Value;

use crate::domain::action::Catalogue;
use crate::domain::policy::Policy;

/// The text of each file, by the name of its policy.
macro_rules! library {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../policies/library/", $name, ".yaml")))),*]
    };
}

/// By what they answer: logins, web, networks, files.
const FILES: [(&str, &str); 20] = library![
    "ssh-bruteforce",
    "ssh-scan",
    "missed-passwords",
    "pam-failures",
    "authentication-failures",
    "failures-then-login",
    "windows-logon-failures",
    "windows-malicious-address",
    "malicious-address",
    "ftp-bruteforce",
    "mail-bruteforce",
    "web-login-bruteforce",
    "web-error-scan",
    "web-attacks",
    "web-exploit-probes",
    "shellshock",
    "suricata-severe",
    "pfsense-blocks",
    "virustotal-quarantine",
    "script-in-uploads",
];

/// Frequent rules without a policy.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct WithoutResponse {
    /// The rules' ids.
    pub(super) rules: &'static [&'static str],
    /// What they report.
    pub(super) what: &'static str,
    /// Why no response is safe.
    pub(super) why: &'static str,
}

const fn without(rules: &'static [&'static str], what: &'static str, why: &'static str) -> WithoutResponse {
    WithoutResponse { rules, what, why }
}

/// Frequent rules without a safe response.
pub(super) const WITHOUT: [WithoutResponse; 20] = [
    without(
        &["2501", "5503", "5710", "5760", "9705", "60122"],
        "one failed login",
        "most are mistyped; rules of the library count them",
    ),
    without(
        &["5501", "5502", "5715", "9701", "60106"],
        "a login that succeeded",
        "that is ordinary work; `failures-then-login` answers the suspicious ones",
    ),
    without(
        &["5758"],
        "too many attempts in one SSH connection",
        "a client that offers several keys gets there without a guess",
    ),
    without(
        &["5301", "5302", "5402", "5403", "5404"],
        "su and sudo",
        "locking the account of an administrator takes away the hands that you need",
    ),
    without(
        &["60115"],
        "an account that is locked out",
        "Windows has locked it already; a lock for longer lets a stranger keep people out",
    ),
    without(
        &["14251", "64033"],
        "failed VPN logins at an appliance",
        "no agent runs there, and most are employees with an old password",
    ),
    without(
        &["80255", "91724"],
        "logins and downloads in a cloud",
        "no host of yours stands between the source and the service",
    ),
    without(
        &["88203"],
        "guesses at Nextcloud",
        "the alert has the address in a text only, and behind a proxy the field is the proxy's",
    ),
    without(
        &["31101", "31104", "31103", "31105"],
        "one web error, one web attack",
        "broken links and odd addresses cause them; `web-error-scan` and `web-attacks` count them",
    ),
    without(
        &["31106"],
        "a web attack that returned 200",
        "200 says that the page exists, not that the attack worked; look at the host",
    ),
    without(
        &["31122", "31161", "31162", "31163"],
        "errors of the web server itself",
        "a block would punish visitors for a fault of the server",
    ),
    without(&["31533"], "many POST requests", "applications that save while one types do exactly that"),
    without(
        &["20100", "20101", "20151", "20152", "20161", "20162"],
        "alerts of an IDS",
        "of 295,032 in the AIT alert data set 98 % were outside of attacks; of 2,362 of rule 20151 56 were in one",
    ),
    without(
        &["4101", "4151", "12108", "12149"],
        "firewall drops, refused DNS queries",
        "the packets need no connection, so their source can be forged to make you block it",
    ),
    without(
        &["35007", "35052"],
        "refusals of a Squid proxy",
        "the sources are your own clients, often a program with an old password",
    ),
    without(
        &["550", "553", "554", "594", "598"],
        "changed files and registry entries",
        "updates change thousands; only scripts in upload folders have a policy, and a deleted file is gone",
    ),
    without(
        &["591", "592", "593"],
        "a log that was rotated, cut or cleared",
        "nothing is left to block; collect logs elsewhere and look at the host",
    ),
    without(
        &["510", "533", "1002"],
        "rootcheck, listening ports, unknown problems",
        "they name no target, and most are changes of your own",
    ),
    without(
        &["62123", "92213"],
        "malware on Windows",
        "Defender acts by itself, and `quarantine-file` and `kill-process` are for Linux",
    ),
    without(
        &["40113", "40501"],
        "an outbreak, an account that was added after attacks",
        "the answer is `isolate-host`, by a person: a public host is always under attack when an account is added",
    ),
];

/// A policy of the library.
#[derive(Debug)]
pub(super) struct LibraryPolicy {
    /// Its name.
    pub(super) name: &'static str,
    /// The file as it is in the repository.
    pub(super) text: &'static str,
    /// The same as a policy.
    pub(super) policy: Policy,
}

impl LibraryPolicy {
    fn read(name: &'static str, text: &'static str) -> anyhow::Result<Self> {
        let document: Value = yaml_serde::from_str(text).with_context(|| format!("{name} of the library"))?;
        let policy = Policy::parse(&document, Catalogue::built_in())
            .map_err(|faults| anyhow::anyhow!("{name} of the library: {faults:?}"))?;
        Ok(Self { name, text, policy })
    }

    /// The rules that it answers.
    pub(super) fn rules(&self) -> Vec<String> {
        self.policy.selectors.iter().flat_map(|selector| selector.rule_ids.clone()).collect()
    }

    /// What it does, in one line: the first line of its note.
    pub(super) fn summary(&self) -> &str {
        self.policy.note.lines().next().unwrap_or_default()
    }
}

/// Every policy of the library, in its order.
///
/// # Errors
/// Never: a test reads them all.
pub(super) fn all() -> anyhow::Result<Vec<LibraryPolicy>> {
    FILES.iter().map(|(name, text)| LibraryPolicy::read(name, text)).collect()
}

/// The policy called `name`.
///
/// # Errors
/// A sentence with the name that was probably meant.
pub(super) fn find(name: &str) -> Result<LibraryPolicy, String> {
    if let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) {
        return LibraryPolicy::read(name, text).map_err(|error| format!("{error:#}"));
    }
    let meant = meant(name);
    let hint = match meant.as_slice() {
        [] => "`riposte policy library list` names them".to_owned(),
        names => format!("did you mean {}?", names.join(" or ")),
    };
    Err(format!("the library has no policy {name:?}; {hint}"))
}

/// Names near `name`: misspelt, or with one of its words.
fn meant(name: &str) -> Vec<&'static str> {
    let names = || FILES.iter().map(|(known, _)| *known);
    if let Some(known) = nearest(name, names()) {
        return vec![known];
    }
    let words: Vec<&str> = name.split('-').filter(|word| word.len() > 2).collect();
    names().filter(|known| known.split('-').any(|part| words.contains(&part))).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_file_of_the_folder_is_in_the_catalogue_under_its_own_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/library");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let mut known: Vec<String> = FILES.iter().map(|(name, _)| format!("{name}.yaml")).collect();
        known.sort();
        assert_eq!(files, known);
        for one in all().unwrap() {
            assert_eq!(one.policy.name, one.name);
        }
    }

    #[test]
    fn no_rule_has_two_answers() {
        let mut answered: BTreeMap<String, &str> = BTreeMap::new();
        for one in all().unwrap() {
            for rule in one.rules() {
                assert_eq!(answered.insert(rule.clone(), one.name), None, "rule {rule} is in two policies");
            }
        }
        let mut unanswered = Vec::new();
        for rule in WITHOUT.iter().flat_map(|entry| entry.rules) {
            assert!(!unanswered.contains(rule), "rule {rule} is listed twice");
            unanswered.push(rule);
        }
        // New and changed files are answered in upload folders, and nowhere else.
        let both: Vec<&str> = unanswered.into_iter().filter(|rule| answered.contains_key(*rule)).collect();
        assert_eq!(both, ["550", "554"]);
        assert_eq!((answered["550"], answered["554"]), ("script-in-uploads", "script-in-uploads"));
    }

    #[test]
    fn an_unknown_name_gets_near_ones() {
        assert!(find("ssh-scan").is_ok());
        let told = |name: &str| find(name).unwrap_err();
        assert_eq!(told("ssh-brutforce"), "the library has no policy \"ssh-brutforce\"; did you mean ssh-bruteforce?");
        assert!(told("web").ends_with("did you mean web-login-bruteforce or web-error-scan or web-attacks?"));
        assert!(told("x").ends_with("`riposte policy library list` names them"));
    }
}
