//! `docs/actions.md` is generated from the descriptions of the actions. This test compares the two,
//! and rewrites the page with `UPDATE=1`.

use std::fmt::Write as _;
use std::path::Path;

use super::{ALL, About, Os};

const HEAD: &str = "\
# Actions

What an agent can do and undo. This page is made from the code (`UPDATE=1 cargo test -p riposte-agent --lib docs`); `riposte-agent actions`
says which of them can be run on a host, and why not the others.

**What is tested how.** On Linux every action is run by the tests against the real kernel, real files, real accounts and real processes, in
namespaces of their own; Kaspersky's program, Wazuh's and `systemctl` are stand-ins there, at the same paths, that tell how they were started. On every other system the
actions are *argv-tested, not run*: what would be run is compared with `agent/src/actions/golden.txt`, and the answers are played.

";

const TAIL: &str = "\
## Evidence

Before an action kills a process, moves a file or isolates the host, the agent looks at what will be gone, and writes it into its journal before it acts, so a crash in between does not lose it. It is
`evidence` of the result, in `GET /v1/responses/ID` and `GET /v1/commands/ID`: at most 8 KiB, gathered within 2 seconds. Texts that others can have written are cut, and what could steer a terminal is escaped. What could not be seen says `unseen` and why; it stops nothing.

| `kind` | |
|---|---|
| `process` | `executable` and its `sha256`, `arguments`, `directory`, `parent`, `account`, `control_group`, `sockets` |
| `file` | `path`, `sha256`, `size_bytes`, `mode`, `owner`, `group`, `links`, `inode`, and when it was modified, changed and read |
| `host` | `sockets`: what was open, connected ones first |

## The end of a block

The agent's own timer ends every block. Of all actions only `firewall-drop` on nftables also hands the end to another program, as the time-out of its element: should the agent never run again, the block ends all the same.
The kernel holds 584 years; an end after more than 200,000 days goes in without a time-out.

## Custom actions

A custom action names a program, and the agent runs it from `scripts_dir` of the [local policy](agent.md), or from `active-response/bin` below
`--wazuh-home` if that is given; `/var/ossec/active-response/bin` if neither is. It must be a plain file of that very folder, executable, without set-uid and set-gid bits. No account but root and the agent's own may be able to change it, or any part of the path to it. Never a path, never a link. The agent advertises each as `script:NAME`.
The local policy's `allowed_actions` binds a custom action and its program ([the entries](agent.md#the-local-policy)); `denied_actions` holds for the action's name, and `script:NAME` in it for the program under every name.

Wazuh's own scripts run unchanged, as execd runs them: in Wazuh's home, as `active-response/bin/NAME` (from a folder of another name: in it, under their whole path), in a process group of their own, with one line of JSON on
standard input.

| style | told | |
|---|---|---|
| `wazuh` | `{\"version\":1,\"origin\":{…},\"command\":\"add\",\"parameters\":{\"extra_args\":[…],\"alert\":{…},\"program\":\"…\"}}` | Wazuh 4.2 and later; later `delete` with the same alert |
| `wazuh5` | the alert as it is, with `\"command\":\"enable\"` | Wazuh 5; later `disable` |
| `argv` | `add USER IP ALERTID RULEID LOCATION FILENAME EXTRA…`, `-` for what is missing | before Wazuh 4.2; later `delete` |

- A program that asks `check_keys` is told `continue`, or `abort` if another effect of the same program holds one of the keys. Asking twice gets the same answer.
  Effects that share a key are lifted by one `delete`, with the last of them.
- Standard input is closed when the program waits for nothing else: every process that could ask or be answered is blocked, one of them reading, and all that was said is read. So a program that reads to
  the end goes on at once, and one that thinks before it asks is answered, however long it thinks. The kernel shows it (`/proc/PID/syscall`); where it does not, the input is closed after half of the time below.
  Both outputs are drained; the first 16 KiB are in the result. The exit status is read: 0 is good.
- After 60 seconds (`script_timeout_seconds` of the local policy) the whole process group is asked to end, and killed 2 seconds later. A daemon that a program leaves behind is neither waited for nor ended.
- There is nothing to look at but the exit status, so `verified` is null, and the program is never run again by itself to repair what it did. Programs of different names run side by side, each one's runs one after the other
  (lock domain `script:NAME`).
- A program that was running when the agent was killed is not run again: what is known of it is that it was begun, so the effect fails and is lifted by `delete`.
- An apply of an effect that is held only changes its end; the program is not run again for it.
- A revert of what the agent does not hold runs no program ([Lifting](agent.md#lifting)). What it holds is lifted by the program that was run for it, with the same arguments and the same alert, whatever the custom action has come to name.
- The program gets `PATH` and `LC_ALL=C` and nothing else of the agent's environment. A response by hand has no alert, and one of more than some 190 KiB does not come along: the program gets one with `data.srcip`,
  `data.dstuser`, `syscheck.path` or `data.pid` from the target, and rule id `0`.

## active-responses.log

In `responses_log` of the local policy, or `--responses-log FILE`, every action and program that was applied or lifted leaves a line in Wazuh's format, which rules 650 to 657 read; the time is in UTC. It says
what was done, not what was begun: one `add` when a block comes into force and one `delete` at its end. What is only extended, a failed apply and a second revert leave none. At 10 MiB the file is put aside as `.log.1`, and the older one is gone.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page += "| action | what it does | targets | platforms | arguments | undoable |\n|---|---|---|---|---|---|\n";
    for action in ALL {
        let about = action.about();
        let arguments: Vec<_> =
            about.parameters.iter().map(|it| format!("`{}`", it.form.text().replace('|', "\\|"))).collect();
        let _infallible = writeln!(
            page,
            "| [`{}`](#{}) | {} | {} | {} | {} | {} |",
            about.name,
            about.name.replace('.', ""),
            about.summary,
            targets(about),
            platforms(about),
            if arguments.is_empty() { "–".into() } else { arguments.join(", ") },
            if about.undoable { "yes" } else { "no" },
        );
    }
    for action in ALL {
        let about = action.about();
        let _infallible = write!(page, "\n## {}\n\n{}.\n\n| | |\n|---|---|\n", about.name, about.summary);
        let arguments = about.parameters.iter().map(|parameter| {
            let needed = if parameter.required { ", needed" } else { "" };
            let repeated = if parameter.repeated { ", as often as wanted" } else { "" };
            let form = parameter.form.text().replace('|', "\\|");
            format!("`{form}`: {}{needed}{repeated}", parameter.summary)
        });
        let arguments: Vec<_> = arguments.collect();
        for (word, text) in [
            ("targets", targets(about)),
            ("platforms", platforms(about)),
            ("arguments", if arguments.is_empty() { "none".into() } else { arguments.join("<br>") }),
            ("applied", about.applied.into()),
            ("verified", about.verified.into()),
            ("undone", about.undone.into()),
            ("lock domain", format!("`{}`", about.lock_domain)),
            ("rights", about.rights.into()),
        ] {
            let _infallible = writeln!(page, "| {word} | {text} |");
        }
    }
    page + "\n" + TAIL
}

fn targets(about: &About) -> String {
    let networks = if about.networks && !about.targets.is_empty() { ", also networks" } else { "" };
    about.targets_text() + networks
}

fn platforms(about: &About) -> String {
    if about.platforms == Os::ALL {
        return "all".into();
    }
    if about.platforms == Os::UNIX {
        return "all but Windows".into();
    }
    about.platforms.iter().map(|os| os.as_str()).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_page_of_actions_matches_their_descriptions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/actions.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/actions.md is out of date: run this test with UPDATE=1");
}

#[test]
fn every_action_has_a_complete_description() {
    for action in ALL {
        let about = action.about();
        let texts = [about.summary, about.lock_domain, about.applied, about.verified, about.undone, about.rights];
        assert!(texts.iter().all(|text| !text.is_empty() && !text.ends_with('.')), "{}", about.name);
        assert!(about.parameters.iter().all(|parameter| !parameter.summary.is_empty()), "{}", about.name);
    }
}
