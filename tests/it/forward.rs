//! `riposte forward` beside a writer that does with its files what Wazuh does: a new file at midnight, numbered parts, hard
//! links, compressed old days, lines that are not finished, crashes of all three programs. Real processes and files.

mod setting;
mod writer;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::processes::{PATIENCE, eventually, require, tied};
use setting::{Forwarder, Setting};

#[tokio::test]
async fn no_alert_is_lost_at_midnight_in_new_parts_or_while_the_forwarder_is_away() {
    let mut setting = Setting::new().await;
    setting.writer.write(3);
    let forwarder = setting.start(&["--from", "beginning"]);
    setting.has(3).await;
    // A line in two halves, around a look.
    let line = setting.writer.line();
    let (first, second) = line.split_at(line.len() / 2);
    setting.writer.file.write_all(first.as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(setting.received().await.len(), 3, "half a line is no alert");
    setting.writer.file.write_all(second.as_bytes()).unwrap();
    setting.has(4).await;
    setting.writer.write(2);
    // A line that was still in a buffer comes into the file of before.
    let mut before = setting.writer.next_part();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let line = setting.writer.line();
    before.write_all(line.as_bytes()).unwrap();
    setting.writer.write(1);
    setting.has(8).await;
    setting.writer.midnight(true);
    setting.writer.write(2);
    setting.has(10).await;
    forwarder.stop().await;
    // Two days and parts of them go by; the file of the cursor is compressed.
    setting.writer.write(1);
    setting.writer.next_part();
    setting.writer.write(1);
    setting.writer.midnight(true);
    setting.writer.write(1);
    setting.writer.next_part();
    setting.writer.midnight(false);
    setting.writer.write(1);
    let forwarder = setting.start(&[]);
    setting.has(14).await;
    // It follows the newest file again.
    setting.writer.write(1);
    setting.has(15).await;
    forwarder.stop().await;
}

#[tokio::test]
async fn after_kill_9_of_forwarder_and_manager_every_alert_is_there_once() {
    let mut setting = Setting::new().await;
    let mut forwarder = setting.start(&["--from", "beginning", "--batch", "7"]);
    // From then on it is known where it began.
    let cursor = setting.state.path().join("state/cursor.json");
    eventually("the cursor", PATIENCE, || async { cursor.exists().then_some(()) }).await;
    for round in 0..6 {
        setting.writer.write(150);
        if round % 2 == 0 {
            forwarder.kill9();
            setting.writer.next_part();
            forwarder = setting.start(&["--batch", "7"]);
        } else {
            setting.manager.kill9();
            setting.writer.write(50);
            setting.manager.start_again().await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    setting.has(6 * 150 + 3 * 50).await;
    forwarder.stop().await;
}

#[tokio::test]
async fn a_first_start_in_the_middle_of_a_file_loses_nothing_of_it_while_away() {
    let mut setting = Setting::new().await;
    setting.writer.write(5);
    let forwarder = setting.start(&[]);
    forwarder.says("reading").await;
    setting.writer.write(2);
    let expected: BTreeSet<u64> = (6..=7).collect();
    eventually("the alerts", PATIENCE, || async { (setting.received().await == expected).then_some(()) }).await;
    forwarder.stop().await;
    // The rest of the file, which is compressed, and the next one.
    setting.writer.write(2);
    setting.writer.midnight(true);
    setting.writer.write(1);
    let forwarder = setting.start(&[]);
    let expected: BTreeSet<u64> = (6..=10).collect();
    eventually("the alerts", PATIENCE, || async { (setting.received().await == expected).then_some(()) }).await;
    assert!(!forwarder.log().contains("is lost"), "{}", forwarder.log());
    forwarder.stop().await;
}

#[tokio::test]
async fn what_no_manager_has_taken_yet_is_found_again_although_its_file_is_compressed() {
    let mut setting = Setting::new().await;
    setting.manager.kill9();
    setting.writer.write(2);
    let mut forwarder = setting.start(&["--from", "beginning"]);
    let cursor = setting.state.path().join("state/cursor.json");
    eventually("the cursor", PATIENCE, || async { cursor.exists().then_some(()) }).await;
    forwarder.kill9();
    setting.writer.midnight(true);
    setting.writer.write(1);
    setting.manager.start_again().await;
    let forwarder = setting.start(&[]);
    setting.has(3).await;
    forwarder.stop().await;
}

/// `make forward` runs it with a million (`FORWARD_ALERTS`).
#[tokio::test]
async fn of_many_alerts_none_is_lost_whatever_happens_to_the_files_and_the_programs() {
    const ROUNDS: u64 = 20;
    let count: u64 = std::env::var("FORWARD_ALERTS").map_or(4000, |count| count.parse().unwrap());
    let mut setting = Setting::new().await;
    let mut forwarder = setting.start(&["--from", "beginning"]);
    let cursor = setting.state.path().join("state/cursor.json");
    eventually("the cursor", PATIENCE, || async { cursor.exists().then_some(()) }).await;
    for round in 0..ROUNDS {
        setting.writer.write(count / ROUNDS - 1);
        // Half of the time it happens while alerts are on their way, and else when there is nothing to do.
        if round % 2 == 1 {
            setting.is_caught_up(PATIENCE * 2 + Duration::from_millis(count)).await;
        }
        // The last line of the round is cut in two by what happens.
        let line = setting.writer.line();
        let (first, second) = line.split_at(line.len() / 3);
        setting.writer.file.write_all(first.as_bytes()).unwrap();
        match round % 5 {
            0 => forwarder.kill9(),
            1 => setting.manager.kill9(),
            2 => {
                forwarder.kill9();
                setting.manager.kill9();
            }
            _ => tokio::time::sleep(Duration::from_millis(150)).await,
        }
        setting.writer.file.write_all(second.as_bytes()).unwrap();
        if round % 5 == 1 {
            // The forwarder tries, and the manager is away.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        match round % 4 {
            0 => drop(setting.writer.next_part()),
            1 => setting.writer.midnight(false),
            2 => setting.writer.midnight(true),
            _ if round + 1 < ROUNDS => setting.writer.copy_and_truncate(round % 8 == 3),
            _ => {}
        }
        if matches!(round % 5, 1 | 2) {
            setting.manager.start_again().await;
        }
        if matches!(round % 5, 0 | 2) {
            forwarder = setting.start(&[]);
        }
    }
    let patience = PATIENCE * 2 + Duration::from_millis(count * 2);
    setting.is_caught_up(patience).await;
    assert_eq!(setting.received().await, (1..=count).collect(), "none is lost, and none invented");
    forwarder.stop().await;
}

#[tokio::test]
async fn a_manager_that_is_away_is_waited_for_and_said() {
    let mut setting = Setting::new().await;
    setting.manager.kill9();
    setting.writer.write(2);
    let forwarder = setting.start(&["--from", "beginning", "--metrics-listen", "127.0.0.1:0"]);
    forwarder.says("the alerts wait in their files").await;
    let log = forwarder.log();
    let address = log.split("metrics on ").nth(1).unwrap().split("/metrics").next().unwrap().to_owned();
    let get = async |path: &str| {
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(format!("{address}{path}"))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    eventually("not ready", PATIENCE, || async { (get("/readyz").await.0 == 503).then_some(()) }).await;
    // What is written while the manager is away counts too, in every file.
    setting.writer.write(1);
    setting.writer.next_part();
    setting.writer.write(1);
    let on_disk: u64 =
        fs::read_dir(setting.writer.folder()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let behind = format!("riposte_forward_behind_bytes {on_disk}\n");
    eventually("what is behind", PATIENCE, || async { get("/metrics").await.1.contains(&behind).then_some(()) }).await;
    setting.manager.start_again().await;
    setting.has(4).await;
    eventually("ready", PATIENCE, || async { (get("/readyz").await.0 == 200).then_some(()) }).await;
    let (_, metrics) = get("/metrics").await;
    assert!(metrics.contains("riposte_forward_alerts_total{outcome=\"accepted\"} 4"), "{metrics}");
    assert!(metrics.contains("riposte_forward_stuck 0"), "{metrics}");
    let is_done = || async { get("/metrics").await.1.contains("riposte_forward_behind_bytes 0\n").then_some(()) };
    eventually("nothing is behind", PATIENCE, is_done).await;
    forwarder.stop().await;
}

#[tokio::test]
async fn what_is_no_alert_is_named_with_its_place_and_the_rest_goes_on() {
    let mut setting = Setting::new().await;
    let forwarder = setting.start(&["--from", "beginning"]);
    setting.writer.write(1);
    let at = fs::metadata(setting.writer.main()).unwrap().len();
    setting.writer.file.write_all(b"{\"rule\": 5}\n\n  \n").unwrap();
    // Latin-1, zero bytes of a crash, and a line that is longer than an alert may be.
    let latin = setting.writer.line().replace("session opened", "session \u{fffd} opened");
    let bytes: Vec<u8> = latin.split('\u{fffd}').map(str::as_bytes).collect::<Vec<_>>().join(&b"\xe9"[..]);
    setting.writer.file.write_all(&bytes).unwrap();
    setting.writer.file.write_all(&[0; 512]).unwrap();
    setting.writer.write(1);
    let mut long = vec![b'x'; 3 * 1024 * 1024];
    long.push(b'\n');
    setting.writer.file.write_all(&long).unwrap();
    setting.writer.write(1);
    setting.has(4).await;
    forwarder.says(&format!("alerts.json at byte {at}: the manager rejects the alert")).await;
    forwarder.says("is longer than").await;
    forwarder.stop().await;
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_read_anew_and_said() {
    let mut setting = Setting::new().await;
    setting.writer.write(3);
    let forwarder = setting.start(&["--from", "beginning"]);
    setting.has(3).await;
    // As copytruncate of logrotate does; the file is longer at once than it was.
    setting.writer.file = OpenOptions::new().write(true).truncate(true).open(setting.writer.main()).unwrap();
    setting.writer.write(5);
    forwarder.says("was cut off or written anew").await;
    setting.has(8).await;
    forwarder.stop().await;
}

#[tokio::test]
async fn of_a_file_that_is_copied_and_cut_off_no_line_is_lost() {
    let mut setting = Setting::new().await;
    setting.writer.write(3);
    let mut forwarder = setting.start(&["--from", "beginning", "--batch", "1"]);
    setting.has(3).await;
    for compress in [false, true] {
        // The manager takes none of them, so most are not even read.
        setting.manager.kill9();
        setting.writer.write(50);
        setting.writer.copy_and_truncate(compress);
        // Longer at once than what was read of it.
        setting.writer.write(60);
        setting.manager.start_again().await;
        setting.has(setting.writer.number).await;
    }
    // While the forwarder is away too.
    forwarder.kill9();
    setting.writer.write(2);
    setting.writer.copy_and_truncate(false);
    setting.writer.write(1);
    setting.writer.copy_and_truncate(true);
    let forwarder = setting.start(&[]);
    setting.writer.write(1);
    setting.has(setting.writer.number).await;
    assert!(!forwarder.log().contains("reading it from its beginning"), "{}", forwarder.log());
    forwarder.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_over_midnight_stops_no_forwarder() {
    let mut setting = Setting::new().await;
    setting.writer.write(3);
    let mut forwarder = setting.start(&["--from", "beginning"]);
    setting.has(3).await;
    setting.writer.day = setting.writer.day.minus(Duration::from_hours(48));
    setting.writer.midnight(false);
    setting.writer.write(4);
    setting.has(7).await;
    forwarder.kill9();
    setting.writer.write(2);
    let forwarder = setting.start(&[]);
    setting.has(9).await;
    setting.writer.next_part();
    setting.writer.write(2);
    setting.has(11).await;
    forwarder.stop().await;
}

#[tokio::test]
async fn the_first_start_begins_with_the_next_alert_and_wrong_input_is_said_at_once() {
    let mut setting = Setting::new().await;
    setting.writer.write(2);
    let forwarder = setting.start(&[]);
    forwarder.says("reading").await;
    setting.writer.write(1);
    eventually("the third alert", PATIENCE, || async { (setting.received().await == [3].into()).then_some(()) }).await;
    let second = setting.refused(&[]).await;
    assert!(second.contains("another forwarder uses"), "{second}");
    forwarder.stop().await;
    fs::write(&setting.key, "rip_wrong").unwrap();
    assert!(setting.refused(&[]).await.contains("the manager refuses the key"), "a key");
    let me = setting.manager.data_dir().join("admin.key");
    setting.key = me;
    let other = setting.state.path().join("auth.log");
    fs::write(&other, "Nov 29 sshd[1]: hello\n").unwrap();
    let place = other.to_str().unwrap();
    let told = setting.refused(&["--alerts", place, "--from", "beginning"]).await;
    assert!(told.contains("is not a file of alerts: its first line is not a JSON object"), "{told}");
    fs::write(setting.state.path().join("state/cursor.json"), "{").unwrap();
    assert!(setting.refused(&[]).await.contains("cursor.json is no cursor of this version"), "a cursor");
}

#[tokio::test]
async fn with_a_full_disk_the_cursor_waits_and_no_alert_is_lost() {
    require(&[("unshare", "util-linux"), ("mount", "mount")]);
    let mut setting = Setting::new().await;
    setting.writer.write(2);
    let state = setting.state.path().join("small");
    fs::create_dir(&state).unwrap();
    let (plain, log) = setting.command(&["--from", "beginning", "--state-dir", state.to_str().unwrap()]);
    let mut command = tied(Path::new("unshare"));
    let script = r#"mount -t tmpfs -o size=16k none "$0" && touch "$0/lock" && { dd if=/dev/zero of="$0/filler" bs=4k 2>/dev/null; exec "$@"; }"#;
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&state);
    command.arg(plain.get_program()).args(plain.get_args()).stdout(Stdio::null());
    command.stderr(OpenOptions::new().append(true).open(&log).unwrap());
    let mut forwarder = Forwarder { child: command.spawn().unwrap(), log };
    forwarder.says("cannot write the cursor").await;
    setting.has(2).await;
    let filler = PathBuf::from(format!("/proc/{}/root{}/filler", forwarder.child.id(), state.display()));
    fs::remove_file(&filler).unwrap();
    setting.writer.write(1);
    let cursor = filler.with_file_name("cursor.json");
    eventually("the cursor", PATIENCE, || async { cursor.exists().then_some(()) }).await;
    setting.has(3).await;
    let stored: Value = serde_json::from_slice(&fs::read(&cursor).unwrap()).unwrap();
    assert!(stored["position"]["offset"].as_u64().unwrap() > 0);
    forwarder.kill9();
}
