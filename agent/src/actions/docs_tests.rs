//! `docs/actions.md` is generated from the descriptions of the actions. This test compares the two,
//! and rewrites the page with `UPDATE=1`.

use std::fmt::Write as _;
use std::path::Path;

use super::{ALL, About, Os};

const HEAD: &str = "\
# Actions

This page lists what an agent can do and undo. It is generated from the code
(`UPDATE=1 cargo test -p riposte-agent --lib docs`). `riposte-agent actions` shows which actions a
host can run, and why not the others.

**How actions are tested.** On Linux the tests run every action against the real kernel, real files,
accounts and processes, in namespaces of their own. Kaspersky's program, Wazuh's and `systemctl` are
replaced by stand-ins at the same paths, which record how they were started. On every other system
the actions are *argv-tested, not run*: the commands are compared with
`agent/src/actions/golden.txt`, and the programs' responses are simulated.

**Windows is beta.** Each action that exists there says how it was tried: *run under Wine*, by the
program itself against what Wine has of Windows, or *argv-tested*. No action was run on Windows yet.
[Windows](windows.md) has a page for the first time on a real one.

";

const TAIL: &str = "\
## Evidence

Some actions kill a process, move a file or isolate the host. Before such an action the agent
records what will be gone. It writes the record to its journal before it acts, so a crash in between
does not lose it. The record is `evidence` of the result, in `GET /v1/responses/ID` and
`GET /v1/commands/ID`. It has at most 8 KiB and is gathered within 2 seconds. Texts that others may
have written are cut, and terminal sequences are escaped. A detail that could not be read says
`unseen` and why; it does not stop the action.

| `kind` | |
|---|---|
| `process` | `executable` and its `sha256`, `arguments`, `directory`, `parent`, `account`, `control_group`, `sockets` |
| `file` | `path`, `sha256`, `size_bytes`, `mode`, `owner`, `group`, `links`, `inode`, and when it was modified, changed and read |
| `host` | `sockets`: open sockets, connected ones first |

## The end of a block

The agent's own timer ends every block. Only `firewall-drop` on nftables also hands the end to
another program, as the time-out of its element. So the block ends even if the agent never runs
again. The kernel holds 584 years; an end after more than 200,000 days is set without a time-out.

## Custom actions

A custom action names a program. The agent runs it from `scripts_dir` of the [local
policy](agent.md). Without that key it uses `active-response/bin` below `--wazuh-home`, or, without
that option too, `/var/ossec/active-response/bin`.

The program must be a plain file in that folder, executable, without set-uid and set-gid bits. No
account but root and the agent's own may be able to change it, or any part of the path to it. A path
or a link is refused. The agent advertises each program as `script:NAME`.

The local policy's `allowed_actions` binds a custom action and its program ([the
entries](agent.md#the-local-policy)). A name in `denied_actions` denies the action of that name;
`script:NAME` denies the program under every name.

Wazuh's own scripts run unchanged, as execd runs them: in Wazuh's home, as
`active-response/bin/NAME`, in a process group of their own, with one line of JSON on standard
input. Programs of another folder run in that folder, under their whole path.

| style | input | |
|---|---|---|
| `wazuh` | `{\"version\":1,\"origin\":{…},\"command\":\"add\",\"parameters\":{\"extra_args\":[…],\"alert\":{…},\"program\":\"…\"}}` | Wazuh 4.2 and later; later `delete` with the same alert |
| `wazuh5` | the alert as it is, with `\"command\":\"enable\"` | Wazuh 5; later `disable` |
| `argv` | `add USER IP ALERTID RULEID LOCATION FILENAME EXTRA…`, `-` for a missing value | before Wazuh 4.2; later `delete` |

- **Keys.** A program that sends `check_keys` gets `continue`, or `abort` if another effect of the
  same program holds one of the keys. A second request gets the same answer. Effects that share a
  key are lifted by one `delete`, with the last of them.
- **Standard input** is closed when the program waits for nothing else: every process that could ask
  or be answered is blocked, one of them reads, and all input is read. So a program that reads to
  the end continues at once. A program that computes before it asks still gets its answer. The
  kernel shows this (`/proc/PID/syscall`); where it does not, the input is closed after half of the
  time-out.
- **Output.** Both outputs are drained; the first 16 KiB are in the result. The exit status 0 is
  success.
- **Time-out.** After 60 seconds (`script_timeout_seconds` of the local policy) the whole process
  group is asked to end, and killed 2 seconds later. A daemon that a program leaves behind is
  neither waited for nor ended.
- **Verification.** Only the exit status is known, so `verified` is null. The agent never runs the
  program again by itself to repair its effect.
- **Order.** Programs of different names run side by side. Runs of one program follow one another
  (lock domain `script:NAME`).
- **Crash.** A program that was running when the agent was killed is not run again. The agent knows
  only that it had begun. So the effect fails and is lifted by `delete`.
- **Extension.** An apply of a held effect only changes its end; the program is not run again.
- **Revert.** A revert of an effect that the agent does not hold runs no program
  ([Lifting](agent.md#lifting)). A held effect is lifted by the program that was run for it, with
  the same arguments and the same alert, even if the custom action names another program since.
- **Environment.** The program gets `PATH` and `LC_ALL=C` and nothing else of the agent's
  environment.
- **Missing alert.** A manual response has no alert, and an alert of more than about 190 KiB is not
  sent. The program then gets one with rule id `0`, and with `data.srcip`, `data.dstuser`,
  `syscheck.path` or `data.pid` from the target.

## active-responses.log

The agent writes this log to `responses_log` of the local policy, or to `--responses-log FILE`.
Every action and program that was applied or lifted leaves a line in Wazuh's format, which rules 650
to 657 read. The time is in UTC. The log records what was done, not what was begun: one `add` when a
block comes into force and one `delete` at its end. An extension, a failed apply and a second revert
leave no line. At 10 MiB the file is renamed to `.log.1`, which replaces the older one.
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
            ("on Windows", on_windows(about)),
            ("arguments", if arguments.is_empty() { "none".into() } else { arguments.join("<br>") }),
            ("applied", about.applied.into()),
            ("verified", about.verified.into()),
            ("undone", about.undone.into()),
            ("lock domain", format!("`{}`", about.lock_domain)),
            ("rights", about.rights.into()),
        ] {
            if !text.is_empty() {
                let _infallible = writeln!(page, "| {word} | {text} |");
            }
        }
    }
    page + "\n" + TAIL
}

pub(super) fn targets(about: &About) -> String {
    let networks = if about.networks && !about.targets.is_empty() { ", also networks" } else { "" };
    about.targets_text() + networks
}

pub(super) fn platforms(about: &About) -> String {
    if about.platforms == Os::ALL {
        return "all".into();
    }
    if about.platforms == Os::UNIX {
        return "all but Windows".into();
    }
    about.platforms.iter().map(|os| os.as_str()).collect::<Vec<_>>().join(", ")
}

/// How it was tried on Windows; empty if it does not exist there.
fn on_windows(about: &About) -> String {
    let is_there = about.platforms.contains(&Os::Windows);
    if is_there { about.windows.as_str().into() } else { String::new() }
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
