//! The ledger knows the key that signs its commands. A manager with another key does not start
//! unless it is told to; then it names the agents that must enrol again.

use std::path::Path;
use std::process::Output;

use crate::processes::{FakeAgent, Manager, PATIENCE, ended, signal, tied};

fn riposte(arguments: &[&str], data_dir: &Path) -> Output {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    command.args(arguments).arg("--data-dir").arg(data_dir).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

async fn stop(manager: &mut Manager) {
    signal(&manager.child, "TERM");
    assert!(ended(&mut manager.child, PATIENCE).await.unwrap().success());
}

/// Writes a key file in which only the content may be wrong.
fn write_key(path: &std::path::Path, content: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn promise_8_a_manager_with_another_signing_key_does_not_start() {
    let mut manager = Manager::start().await;
    drop(FakeAgent::enroll(&manager, "web-01").await);
    stop(&mut manager).await;
    let (dir, key) = (manager.data_dir(), manager.data_dir().join("signing.key"));
    let right = std::fs::read_to_string(&key).unwrap();
    assert!(riposte(&["doctor"], &dir).status.success());

    // Another key, and no key.
    write_key(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n");
    for is_there in [true, false] {
        if !is_there {
            std::fs::remove_file(&key).unwrap();
        }
        let refused = riposte(&["serve", "--listen", "127.0.0.1:0"], &dir);
        let text = said(&refused);
        assert!(!refused.status.success(), "{text}");
        assert!(text.contains("--adopt-signing-key") && text.contains("web-01"), "{text}");
        assert!(text.contains(if is_there { "is not the one that signs" } else { "has no signing.key" }), "{text}");
        assert_eq!(key.exists(), is_there, "nothing was changed");
        let doctor = riposte(&["doctor"], &dir);
        assert!(
            !doctor.status.success() && said(&doctor).contains("signing key is not the ledger's"),
            "{}",
            said(&doctor)
        );
    }

    // The right key starts the manager, and a backup of the wrong key says so.
    write_key(&key, &right);
    manager.start_again().await;
    stop(&mut manager).await;
    write_key(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n");
    let copy = dir.with_file_name("backup");
    let backup = riposte(&["backup", "--to", copy.to_str().unwrap()], &dir);
    assert!(said(&backup).contains("a manager cannot start on this backup"), "{}", said(&backup));
    let restored = riposte(&["restore", "--from", copy.to_str().unwrap()], &dir.with_file_name("restored"));
    assert!(restored.status.success() && said(&restored).contains("--adopt-signing-key"), "{}", said(&restored));
}

#[tokio::test]
async fn a_lost_signing_key_is_replaced_when_that_is_asked_for_and_audited() {
    let mut manager = Manager::start().await;
    drop(FakeAgent::enroll(&manager, "web-01").await);
    stop(&mut manager).await;
    std::fs::remove_file(manager.data_dir().join("signing.key")).unwrap();
    manager.add_flag("--adopt-signing-key");
    manager.start_again().await;
    assert!(manager.log().contains("these agents must be enrolled again: web-01"), "{}", manager.log());
    let audit = manager.api().get("/v1/audit?noun=signing_key").await;
    let entries = audit["items"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{audit}");
    assert!(entries.iter().all(|entry| entry["verb"] == "adopted" && entry["actor"] == "riposte"), "{audit}");
    assert!(entries[0]["detail"].as_str().unwrap().contains("--adopt-signing-key"), "{audit}");
    // Once is enough: the next start needs no flag; with the flag it adopts no other key.
    manager.start_again().await;
    assert_eq!(manager.api().get("/v1/audit?noun=signing_key").await["items"].as_array().unwrap().len(), 2);
}
