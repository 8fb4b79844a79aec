//! What the command line says of itself: the help of the words of the night and of their neighbours, and the errors that
//! a person meets first.

use crate::login_cli::Account;

/// Commands whose help is kept.
const HELP: [&str; 14] = [
    "--help",
    "blocked --help",
    "unblock --help",
    "agent --help",
    "agent list --help",
    "agent show --help",
    "agent label --help",
    "agent revoke --help",
    "response list --help",
    "response lift --help",
    "effect watch --help",
    "events --help",
    "report --help",
    "top --help",
];

/// Commands that are wrong, or that find no manager.
const WRONG: [&str; 12] = [
    "agent",
    "agent show",
    "agent label web-01",
    "agent revoke",
    "agent list -o xml",
    "agent list --json -o yaml",
    "response list --limit 0",
    "response list --state blocked",
    "report",
    "report --month 2026-13",
    "top --manager 127.0.0.1:8480",
    "agent list --manager http://127.0.0.1:1",
];

#[test]
fn the_help_and_the_first_errors_are_as_they_were_read() {
    let account = Account::new();
    let key = account.write("key", "rip_0");
    let said = |line: &str| {
        let mut command = account.command(&line.split(' ').collect::<Vec<_>>());
        // A width of its own, and nothing of this host.
        let output = command.env("COLUMNS", "100").env("RIPOSTE_KEY_FILE", &key).output().unwrap();
        let code = output.status.code().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap().replace(&key, "KEY_FILE");
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        format!("$ riposte {line}    (exit code {code})\n{}", text.join("\n"))
    };
    insta::assert_snapshot!("help", HELP.map(said).join("\n\n"));
    insta::assert_snapshot!("first_errors", WRONG.map(said).join("\n\n"));
}
