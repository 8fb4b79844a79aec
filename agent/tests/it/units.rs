//! The systemd units of both programs, as systemd itself reads them; it need not be running for that.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Both units in `folder`, started with a program that is there on every system: what is asked is about all the rest.
fn units(folder: &Path, change: impl Fn(&str) -> String) -> Vec<PathBuf> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let copy = |name: &str| {
        let unit = std::fs::read_to_string(deploy.join(name)).unwrap();
        assert_eq!(unit.matches("ExecStart=/usr/bin/riposte").count(), 1, "{name}");
        let unit = unit.replace("/usr/bin/riposte-agent", "/bin/true").replace("/usr/bin/riposte", "/bin/true");
        std::fs::write(folder.join(name), change(&unit)).unwrap();
        folder.join(name)
    };
    ["riposte.service", "riposte-agent.service"].map(copy).into()
}

fn analyze(arguments: &[&str], units: &[PathBuf]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).args(units).env("LC_ALL", "C").output();
    let output = output.expect("this test needs systemd-analyze, which is not installed");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let (good, said) = analyze(&["verify", "--man=no"], &units(folder.path(), str::to_owned));
    assert!(good && said.trim().is_empty(), "{said}");
    // It only complains of what it does not understand, so that it complains at all is looked at too.
    let damaged = units(folder.path(), |unit| unit.replace("ProtectClock=", "ProtectClok="));
    let (_, said) = analyze(&["verify", "--man=no"], &damaged);
    assert_eq!(said.matches("Unknown key").count(), 2, "{said}");
}

/// By systemd's own scale from 0 to 10, ten times that as an option; a line that is lost costs more than there is left.
#[test]
fn the_units_are_as_closed_as_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let units = units(folder.path(), str::to_owned);
    for (unit, threshold) in units.iter().zip(["15", "30"]) {
        let threshold = format!("--threshold={threshold}");
        let (is_below, said) =
            analyze(&["security", "--offline=true", "--no-pager", &threshold], std::slice::from_ref(unit));
        assert!(is_below, "{said}");
    }
}
