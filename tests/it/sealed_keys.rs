//! Keys that a passphrase encrypts, at rest and in backups, with the real programs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::processes::{FakeAgent, Manager, PATIENCE, alert, ended, signal, text, tied};

const PASSPHRASE: &str = "correct horse battery";

fn riposte(arguments: &[&str], data_dir: &Path) -> Output {
    let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
    command.args(arguments).arg("--data-dir").arg(data_dir).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

fn private(path: PathBuf, content: &str) -> PathBuf {
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

async fn stop(manager: &mut Manager) {
    signal(&manager.child, "TERM");
    assert!(ended(&mut manager.child, PATIENCE).await.unwrap().success());
}

fn secrets(data_dir: &Path) -> Vec<Vec<u8>> {
    let secret = |name: &str| std::fs::read_to_string(data_dir.join(name)).unwrap().trim().as_bytes().to_vec();
    ["signing.key", "admin.key"].map(secret).into()
}

fn holds(file: &Path, secret: &[u8]) -> bool {
    std::fs::read(file).unwrap().windows(secret.len()).any(|window| window == secret)
}

fn clear_files(folder: &Path, secrets: &[Vec<u8>]) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let clear = entries.filter(|path| path.is_file() && secrets.iter().any(|secret| holds(path, secret)));
    let mut names: Vec<String> = clear.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_encrypted_signing_key_starts_the_manager_only_with_its_passphrase() {
    let mut manager = Manager::start().await;
    let agent = FakeAgent::enroll(&manager, "web-01").await;
    stop(&mut manager).await;
    let (dir, folder) = (manager.data_dir(), manager.data_dir().parent().unwrap().to_owned());
    let before = secrets(&dir).remove(0);
    let right = private(folder.join("passphrase"), &format!("{PASSPHRASE}\n"));
    let (wrong, short) =
        (private(folder.join("wrong"), "another passphrase"), private(folder.join("short"), "correct"));
    let (right, wrong, short) = (right.to_str().unwrap(), wrong.to_str().unwrap(), short.to_str().unwrap());

    let refused = riposte(&["signing-key", "encrypt", "--key-passphrase-file", short], &dir);
    assert!(!refused.status.success() && said(&refused).contains("at least 12 characters"), "{}", said(&refused));
    let sealed = riposte(&["signing-key", "encrypt", "--key-passphrase-file", right], &dir);
    assert!(sealed.status.success(), "{}", said(&sealed));
    assert!(!holds(&dir.join("signing.key"), &before), "the key is in clear");
    assert_eq!(std::fs::metadata(dir.join("signing.key")).unwrap().permissions().mode() & 0o777, 0o600);
    // Its public half stands in clear, so the doctor needs no passphrase.
    assert!(riposte(&["doctor"], &dir).status.success());

    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let start = |more: &[&str]| riposte(&[&serve, more].concat(), &dir);
    let exposed = private(folder.join("exposed"), PASSPHRASE);
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (more, why) in [
        (vec![], "--key-passphrase-file"),
        (vec!["--key-passphrase-file", wrong], "is not the one that it was encrypted with"),
        (vec!["--key-passphrase-file", exposed.to_str().unwrap()], "chmod 600"),
        (vec!["--key-passphrase-file", "/nonexistent"], "cannot read the passphrase file /nonexistent"),
    ] {
        let refused = start(&more);
        assert_eq!(refused.status.code(), Some(1), "{more:?}: {}", said(&refused));
        assert!(said(&refused).contains(why), "{more:?}: {}", said(&refused));
    }
    // A changed file that asks for more memory than there is.
    let sealed = std::fs::read_to_string(dir.join("signing.key")).unwrap();
    private(dir.join("signing.key"), &sealed.replace("\"memory_kib\": 65536", "\"memory_kib\": 4294967295"));
    let bomb = start(&["--key-passphrase-file", right]);
    assert!(bomb.status.code() == Some(1) && said(&bomb).contains("argon2id.memory_kib"), "{}", said(&bomb));
    private(dir.join("signing.key"), &sealed);

    manager.add_flag("--key-passphrase-file");
    manager.add_flag(right);
    manager.start_again().await;
    let refused = riposte(&["signing-key", "decrypt", "--key-passphrase-file", right], &dir);
    assert!(!refused.status.success() && said(&refused).contains("stop the manager first"), "{}", said(&refused));
    // The agent still believes what it signs.
    let api = manager.api();
    api.make_policy("log-only", "1h").await;
    let (_, command) = api.answer_to(&alert(1, "203.0.113.1", "web-01")).await;
    let owed = agent.poll(json!({"cursor": 0, "wait_seconds": 1})).await;
    assert_eq!(owed[0].jti.to_string(), text(&command, "id"));
    stop(&mut manager).await;

    // Another passphrase, and none.
    let again =
        riposte(&["signing-key", "encrypt", "--key-passphrase-file", right, "--new-passphrase-file", wrong], &dir);
    assert!(again.status.success(), "{}", said(&again));
    assert!(!riposte(&["signing-key", "decrypt", "--key-passphrase-file", right], &dir).status.success());
    let clear = riposte(&["signing-key", "decrypt", "--key-passphrase-file", wrong], &dir);
    assert!(clear.status.success(), "{}", said(&clear));
    assert_eq!(secrets(&dir).remove(0), before);
}

#[tokio::test]
async fn a_credential_of_systemd_opens_the_signing_key() {
    let mut manager = Manager::start().await;
    stop(&mut manager).await;
    let (dir, folder) = (manager.data_dir(), manager.data_dir().parent().unwrap().join("credentials"));
    std::fs::create_dir(&folder).unwrap();
    let credential = private(folder.join("riposte-key-passphrase"), PASSPHRASE);
    // As systemd shows the access list of the service's account.
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o440)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_riposte")));
        command.env("CREDENTIALS_DIRECTORY", &folder).args(arguments).arg("--data-dir").arg(&dir);
        command.output().unwrap()
    };
    let sealed = run(&["signing-key", "encrypt"]);
    assert!(sealed.status.success(), "{}", said(&sealed));
    let clear = run(&["signing-key", "decrypt"]);
    assert!(clear.status.success(), "{}", said(&clear));
    std::fs::set_permissions(&credential, std::fs::Permissions::from_mode(0o444)).unwrap();
    let refused = run(&["signing-key", "encrypt"]);
    assert!(!refused.status.success() && said(&refused).contains("chmod 600"), "{}", said(&refused));
}

#[tokio::test]
async fn a_backup_with_a_passphrase_holds_no_key_in_clear_and_is_restored_with_it() {
    let mut manager = Manager::start().await;
    drop(FakeAgent::enroll(&manager, "web-01").await);
    let (dir, folder) = (manager.data_dir(), manager.data_dir().parent().unwrap().to_owned());
    let tls_key = private(folder.join("key.pem"), "-----BEGIN PRIVATE KEY-----\nVERYSECRET\n");
    let right = private(folder.join("passphrase"), PASSPHRASE);
    let wrong = private(folder.join("wrong"), "another passphrase");
    let mut secrets = secrets(&dir);
    secrets.push(b"VERYSECRET".to_vec());
    let copy = folder.join("sealed");
    let sealed = riposte(
        &[
            "backup",
            "--to",
            copy.to_str().unwrap(),
            "--passphrase-file",
            right.to_str().unwrap(),
            "--tls-key",
            tls_key.to_str().unwrap(),
        ],
        &dir,
    );
    assert!(sealed.status.success() && !said(&sealed).contains("warning"), "{}", said(&sealed));
    assert!(said(&sealed).contains("signing.key, admin.key, tls.key are encrypted"), "{}", said(&sealed));
    assert_eq!(clear_files(&copy, &secrets), Vec::<String>::new());
    assert_eq!(clear_files(&dir, &secrets), ["admin.key", "signing.key"], "the check finds them where they are");
    // The doctor compares its key without the passphrase.
    let doctor = riposte(&["doctor"], &copy);
    assert!(doctor.status.success(), "{}", said(&doctor));

    let from = copy.to_str().unwrap();
    let restored = folder.join("restored");
    let passphrase =
        |path: &Path| riposte(&["restore", "--from", from, "--passphrase-file", path.to_str().unwrap()], &restored);
    let none = riposte(&["restore", "--from", from], &restored);
    assert!(!none.status.success() && said(&none).contains("--passphrase-file"), "{}", said(&none));
    let refused = passphrase(&wrong);
    assert!(!refused.status.success() && said(&refused).contains("cannot be decrypted"), "{}", said(&refused));
    assert!(!restored.exists(), "nothing is written with a wrong passphrase");
    let done = passphrase(&right);
    assert!(done.status.success() && said(&done).contains("name it in tls_key"), "{}", said(&done));
    for name in ["signing.key", "admin.key"] {
        assert_eq!(std::fs::read(restored.join(name)).unwrap(), std::fs::read(dir.join(name)).unwrap(), "{name}");
        assert_eq!(std::fs::metadata(restored.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(holds(&restored.join("tls.key"), b"VERYSECRET"));
    assert!(riposte(&["doctor"], &restored).status.success());
    stop(&mut manager).await;
}

#[tokio::test]
async fn a_backup_without_keys_names_them_and_a_plain_one_warns() {
    let manager = Manager::start().await;
    drop(FakeAgent::enroll(&manager, "web-01").await);
    let (dir, folder) = (manager.data_dir(), manager.data_dir().parent().unwrap().to_owned());
    let secrets = secrets(&dir);
    let (without, plain, restored) = (folder.join("without"), folder.join("plain"), folder.join("restored"));
    let signing_key = dir.join("signing.key").display().to_string();

    let made = riposte(&["backup", "--without-keys", "--to", without.to_str().unwrap()], &dir);
    assert!(made.status.success() && said(&made).contains(&signing_key), "{}", said(&made));
    assert_eq!(clear_files(&without, &secrets), Vec::<String>::new());
    let manifest: Value = serde_json::from_slice(&std::fs::read(without.join("backup.json")).unwrap()).unwrap();
    assert_eq!(manifest["missing"], json!([signing_key, dir.join("admin.key")]));
    let doctor = riposte(&["doctor"], &without);
    assert!(doctor.status.success() && said(&doctor).contains("made without keys"), "{}", said(&doctor));
    let done = riposte(&["restore", "--from", without.to_str().unwrap()], &restored);
    assert!(done.status.success() && said(&done).contains(&signing_key), "{}", said(&done));
    let refused = riposte(&["serve", "--listen", "127.0.0.1:0"], &restored);
    assert!(!refused.status.success() && said(&refused).contains("has no signing.key"), "{}", said(&refused));
    std::fs::copy(&signing_key, restored.join("signing.key")).unwrap();
    assert!(riposte(&["doctor"], &restored).status.success());

    let made = riposte(&["backup", "--to", plain.to_str().unwrap()], &dir);
    let text = said(&made);
    assert!(made.status.success() && text.contains("signing.key and admin.key in clear"), "{text}");
    assert!(text.contains("The version after next refuses a backup with keys in clear"), "{text}");
    assert_eq!(clear_files(&plain, &secrets), ["admin.key", "signing.key"]);
    let both = riposte(&["backup", "--without-keys", "--passphrase-file", "x", "--to", "y"], &dir);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
}
