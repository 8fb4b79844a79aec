//! `riposte forward` beside a writer that does with its files what Wazuh does: a new file at midnight, numbered parts, hard
//! links, compressed old days, lines that are not finished, crashes of all three programs. Real processes and files.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::processes::{Manager, PATIENCE, ended, eventually, manager_program, now, require, signal, tied};

/// Writes alerts as a Wazuh manager does.
struct Writer {
    dir: TempDir,
    file: File,
    number: u64,
    part: u32,
    /// Midnight of the present day: days go by faster than here.
    day: Timestamp,
}

/// Days before today on which a writer begins: its files and alerts are of the past.
const BEGINS: Duration = Duration::from_hours(24 * 40);

/// The folder of a day, and what its files begin with.
fn place(day: Timestamp) -> (String, String) {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = day.to_string();
    let month = MONTHS[text[5..7].parse::<usize>().unwrap() - 1];
    (format!("{}/{month}", &text[..4]), format!("ossec-alerts-{}", &text[8..10]))
}

impl Writer {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let begun = now().minus(BEGINS).to_string();
        let day: Timestamp = format!("{}T00:00:00.000Z", &begun[..10]).parse().unwrap();
        let (folder, name) = place(day);
        fs::create_dir_all(dir.path().join(&folder)).unwrap();
        let path = dir.path().join(folder).join(format!("{name}.json"));
        let file = File::create(&path).unwrap();
        fs::hard_link(&path, dir.path().join("alerts.json")).unwrap();
        Self { dir, file, number: 0, part: 0, day }
    }

    fn main(&self) -> PathBuf {
        self.dir.path().join("alerts.json")
    }

    fn line(&mut self) -> String {
        self.number += 1;
        let number = self.number;
        // Each a millisecond later: what order files have is said by their alerts.
        let time = self.day.plus(Duration::from_millis(number));
        json!({"timestamp": time, "rule": {"level": 3, "id": "5501", "description": "PAM: Login session opened.", "groups": ["pam"]},
            "agent": {"id": "005", "name": "web-01"}, "manager": {"name": "wazuh"}, "id": format!("{}.{number}", time.as_secs()),
            "full_log": "session opened", "decoder": {"name": "pam"}, "data": {"dstuser": "root"}, "location": "/var/log/auth.log"})
        .to_string()
            + "\n"
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            let line = self.line();
            self.file.write_all(line.as_bytes()).unwrap();
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(place(self.day).0)
    }

    /// Returns the file of before.
    fn begin(&mut self, path: &Path) -> File {
        fs::remove_file(self.main()).unwrap();
        let file = OpenOptions::new().create_new(true).append(true).open(path).unwrap();
        fs::hard_link(path, self.main()).unwrap();
        std::mem::replace(&mut self.file, file)
    }

    /// A new part of the day, with a name of its own.
    fn next_part(&mut self) -> File {
        self.part += 1;
        self.begin(&self.folder().join(format!("{}-{:03}.json", place(self.day).1, self.part)))
    }

    /// A new day. The files of the day before are compressed, and removed.
    fn midnight(&mut self, compress: bool) {
        let before = self.day;
        self.day = self.day.plus(Duration::from_hours(24));
        self.part = 0;
        fs::create_dir_all(self.folder()).unwrap();
        self.begin(&self.folder().join(format!("{}.json", place(self.day).1)));
        if compress {
            self.compress(before);
        }
    }

    fn compress(&self, day: Timestamp) {
        let (folder, of_day) = place(day);
        let folder = self.dir.path().join(folder);
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with(&of_day) && !name.contains(".gz") {
                let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
                gz.write_all(&fs::read(entry.path()).unwrap()).unwrap();
                fs::write(folder.join(format!("{name}.gz")), gz.finish().unwrap()).unwrap();
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// The forwarder, as a process.
struct Forwarder {
    child: Child,
    log: PathBuf,
}

struct Setting {
    manager: Manager,
    writer: Writer,
    state: TempDir,
    key: PathBuf,
}

impl Setting {
    async fn new() -> Self {
        let manager = Manager::start().await;
        let state = TempDir::new().unwrap();
        let key = state.path().join("ingest.key");
        let made =
            manager.api().post("/v1/api-keys", &json!({"name": "wazuh", "role": "ingest", "pipeline": "wazuh"})).await;
        fs::write(&key, made["key"].as_str().unwrap()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self { manager, writer: Writer::new(), state, key }
    }

    fn command(&self, flags: &[&str]) -> (Command, PathBuf) {
        let log = self.state.path().join("log");
        let out = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = tied(&manager_program());
        command.arg("forward");
        for (flag, path) in [("--alerts", self.writer.main()), ("--state-dir", self.state.path().join("state"))] {
            if !flags.contains(&flag) {
                command.arg(flag).arg(path);
            }
        }
        command.args(["--manager", &self.manager.base(), "--key-file"]).arg(&self.key).args(flags);
        command.stdout(Stdio::null()).stderr(out);
        (command, log)
    }

    fn start(&self, flags: &[&str]) -> Forwarder {
        let (mut command, log) = self.command(flags);
        Forwarder { child: command.spawn().unwrap(), log }
    }

    /// Runs a forwarder that must fail. Returns what it says.
    async fn refused(&self, flags: &[&str]) -> String {
        let mut forwarder = self.start(flags);
        let status = ended(&mut forwarder.child, PATIENCE).await.expect("it ends");
        assert_eq!(status.code(), Some(1));
        forwarder.log()
    }

    /// The numbers of the alerts that the manager has.
    async fn received(&self) -> BTreeSet<u64> {
        let (mut numbers, mut cursor) = (BTreeSet::new(), String::new());
        loop {
            let page = self.manager.api().get(&format!("/v1/alerts?limit=500{cursor}")).await;
            for alert in page["items"].as_array().unwrap() {
                let id = alert["pipeline_id"].as_str().unwrap();
                assert!(numbers.insert(id.split_once('.').unwrap().1.parse().unwrap()), "twice: {id}");
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return numbers,
            }
        }
    }

    async fn has(&self, count: u64) {
        eventually(&format!("{count} alerts"), PATIENCE * 2, || async {
            let counted = self.manager.api().get("/v1/alerts?limit=500").await;
            let most = counted["items"].as_array().unwrap().len() as u64;
            (most >= count.min(500)).then_some(())?;
            (self.received().await.len() as u64 >= count).then_some(())
        })
        .await;
        assert_eq!(self.received().await, (1..=count).collect(), "none is lost, and none invented");
    }
}

impl Setting {
    /// Waits until the cursor is at the end of the present file.
    async fn is_caught_up(&self, patience: Duration) {
        let cursor = self.state.path().join("state/cursor.json");
        eventually("the end of the file", patience, || async {
            let stored: Value = serde_json::from_slice(&fs::read(&cursor).ok()?).ok()?;
            let main = fs::metadata(self.writer.main()).ok()?;
            let is_there =
                stored["position"]["file"]["inode"] == main.ino() && stored["position"]["offset"] == main.len();
            is_there.then_some(())
        })
        .await;
    }
}

impl Forwarder {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    async fn says(&self, what: &str) {
        eventually(what, PATIENCE, || async { self.log().contains(what).then_some(()) }).await;
    }

    fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn stop(mut self) {
        signal(&self.child, "TERM");
        let status = ended(&mut self.child, PATIENCE).await.expect("it ends");
        assert!(status.success(), "{}", self.log());
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the forwarder's log ---\n{}", self.log());
        }
    }
}

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
