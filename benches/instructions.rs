//! How many instructions an enforced alert costs, stage by stage: parse, decide, commit, deliver, sign. Instructions do not depend on
//! what else the machine does, so a change can be held against the committed figures (`benches/instructions.txt`): more than 5 % over
//! one of them fails. The stages run in this program, without HTTP, under valgrind. `docs/performance.md` says how to read it.

#[expect(dead_code, reason = "each bench uses its part")]
mod load;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use load::alerts::{Alerts, ENFORCED};
use load::report::{Table, float, say};
use load::{disk, knob, report};
use riposte::clock::Clock;
use riposte::domain::action::Catalogue;
use riposte::domain::alert::Alert;
use riposte::domain::fleet::Fleet;
use riposte::domain::formats::{self, AlertMappings};
use riposte::domain::id::new_id;
use riposte::domain::index::{PolicyIndex, VersionedPolicy};
use riposte::domain::ledger_key::LedgerKey;
use riposte::domain::pipeline::{self, Recurring};
use riposte::domain::policy::Policy;
use riposte::domain::protected::ProtectedSet;
use riposte::domain::response::NewResponse;
use riposte::engine::decide::{Ages, Circumstances, decide};
use riposte::store::Db;
use riposte::store::database::Bind;
use riposte::store::database::codec::Encoder;
use riposte::store::ledger::alerts::NewAlert;
use riposte::store::ledger::commands;
use riposte::store::seals::whole;
use riposte::store::writer::{IntakeJob, Writer};
use riposte_protocol::command::{Command as Order, Op};
use riposte_protocol::key::SigningKey;
use riposte_protocol::message::{CommandResult, Outcome};
use riposte_protocol::target::{Target, TargetKind};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What is run: `write` only writes the texts of alerts, which all but the last need.
const RUNS_OF: [&str; 6] = ["write", "parse", "decide", "commit", "deliver", "sign"];
/// The committed figures: a stage and its instructions for each alert a line.
const FIGURES: &str = "benches/instructions.txt";
/// How much a stage may cost more.
const MOST: f64 = 1.05;
/// Alerts of the two runs of a stage: the difference is without what a start costs.
const RUNS: [usize; 2] = [100, 600];
/// How often the text of an alert is read, or the alert decided.
const TIMES: usize = 10;
const AGENT: Uuid = Uuid::from_u128(1);

fn main() -> anyhow::Result<()> {
    match std::env::var("STAGE") {
        Ok(stage) => load::run(async move { run(&stage, knob("ALERTS", RUNS[0])?).await }),
        Err(_) => compare(),
    }
}

/// Measures every stage and compares it.
fn compare() -> anyhow::Result<()> {
    report::begin("instructions")?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FIGURES);
    let known = figures(&std::fs::read_to_string(&path).unwrap_or_default());
    let (mut table, mut worse, mut measured) = (Table::default(), Vec::new(), String::new());
    let mut whole = BTreeMap::new();
    for stage in RUNS_OF {
        let [few, many] = RUNS.map(|alerts| instructions(stage, alerts));
        whole.insert(stage, (many? - few?) / float(RUNS[1] - RUNS[0]));
    }
    for (stage, figure) in alone(&whole) {
        let before = known.get(stage).copied();
        table.row(&format!("{stage}, instructions per alert"), figure, "", before, "1.05 of the limit", "");
        writeln!(measured, "{stage} {figure:.0}")?;
        worse.extend(before.is_some_and(|before| figure > before * MOST).then_some(stage));
    }
    table.print();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, measured)?;
    } else if !worse.is_empty() {
        bail!(
            "{} costs over 5 % more than {FIGURES} says. If it is worth it, run this with UPDATE=1",
            worse.join(", ")
        );
    }
    say("UPDATE=1 writes these figures down");
    Ok(())
}

/// What each stage costs without those that its run needs too.
fn alone(whole: &BTreeMap<&'static str, f64>) -> [(&'static str, f64); 5] {
    let of = |stage: &str| whole.get(stage).copied().unwrap_or_default();
    let (parse, commit) = ((of("parse") - of("write")) / float(TIMES), of("commit"));
    [
        ("parse", parse),
        ("decide", (of("decide") - of("write") - parse) / float(TIMES)),
        ("commit", commit - of("write") - parse),
        ("deliver", of("deliver") - commit),
        ("sign", of("sign")),
    ]
}

fn figures(text: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let (stage, figure) = line.split_once(' ')?;
        Some((stage.to_owned(), figure.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Instructions of a whole run of this program.
fn instructions(stage: &str, alerts: usize) -> anyhow::Result<f64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe()?).env("STAGE", stage).env("ALERTS", alerts.to_string());
    let output = valgrind.output().context("valgrind cannot be started: install it")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let count = said.lines().find_map(|line| line.split_once("I   refs:").or_else(|| line.split_once("I refs:")));
    let Some((_, count)) = count.filter(|_| output.status.success()) else { bail!("{stage} failed: {said}") };
    Ok(count.trim().replace(',', "").parse()?)
}

/// Runs one stage with so many alerts.
async fn run(stage: &str, count: usize) -> anyhow::Result<()> {
    let mut alerts = Alerts::new(7);
    let mut text = || {
        let mut text = String::new();
        alerts.of(ENFORCED, 0, None, &mut text);
        text
    };
    match stage {
        "write" => (0..count).for_each(|_| drop(black_box(text()))),
        "parse" => {
            for text in (0..count).map(|_| text()) {
                (0..TIMES).for_each(|_| drop(black_box(parsed(&text))));
            }
        }
        "decide" => deciding(&(0..count).map(|_| text()).collect::<Vec<_>>())?,
        "sign" => signing(count)?,
        "commit" | "deliver" => {
            let texts: Vec<String> = (0..count).map(|_| text()).collect();
            changing(&texts, stage == "deliver").await?;
        }
        other => bail!("no stage {other}"),
    }
    Ok(())
}

fn parsed(text: &str) -> anyhow::Result<Alert> {
    formats::parse(text, &AlertMappings::default(), None).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

fn deciding(texts: &[String]) -> anyhow::Result<()> {
    let document = json!({"name": "block", "match": [{"rule_ids": [ENFORCED]}],
        "respond": {"action": "firewall-drop", "for": "10m"}});
    let policy = Policy::parse(&document, Catalogue::built_in()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let index = PolicyIndex::compile(vec![Arc::new(VersionedPolicy { policy: Arc::new(policy), version: 1 })]);
    let (fleet, protected) = (Fleet::default(), ProtectedSet::default());
    for text in texts {
        let alert = parsed(text)?;
        let circumstances = Circumstances {
            policies: &index,
            actions: Catalogue::built_in(),
            fleet: &fleet,
            protected: &protected,
            now: Clock::system().now(),
            ages: Ages::NotJudged,
            trace: None,
        };
        for _ in 0..TIMES {
            black_box(decide(Uuid::nil(), &alert, text, circumstances));
        }
    }
    Ok(())
}

fn signing(count: usize) -> anyhow::Result<()> {
    let key = SigningKey::from_seed(&[7; 32])?;
    for number in 0..count {
        let seq = u64::try_from(number)?;
        let order = Order {
            iss: riposte_protocol::MANAGER.to_owned(),
            aud: AGENT,
            jti: Uuid::from_u128(u128::from(seq)),
            seq,
            iat: 1_795_514_400,
            exp: 1_795_600_800,
            op: Op::Apply,
            effect: Uuid::from_u128(2),
            action: "firewall-drop".to_owned(),
            target: target(number)?,
            arguments: Vec::new(),
            until: None,
            response: Uuid::from_u128(3),
            alert: None,
            script: None,
            as_of: None,
            urgent: false,
        };
        black_box(order.sign(&key, "key")?);
    }
    Ok(())
}

fn target(number: usize) -> anyhow::Result<Target> {
    let address = std::net::Ipv4Addr::from_bits(u32::from_be_bytes([11, 0, 0, 0]) + u32::try_from(number)?);
    Target::named(TargetKind::Ip, &address.to_string()).map_err(|fault| anyhow::anyhow!("{fault:?}"))
}

/// Commits each alert with its response and command; then reads and settles each command, if `is_delivered`. The command's
/// acknowledgement and its result share a transaction, as those of an agent do.
async fn changing(texts: &[String], is_delivered: bool) -> anyhow::Result<()> {
    let dir = disk()?;
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await?;
    let clock = Clock::system();
    whole::arm(&db, &LedgerKey::new([7; 32]), None, clock.now()).await?;
    let mut tx = db.begin().await?;
    let agent = "INSERT INTO agents (id, name, public_key, labels, platform, version, capabilities, enrolled_at)
        VALUES ($1, 'web-01', '', '{}', '{}', '', '[]', 0)";
    tx.execute(agent, vec![Bind::from(AGENT)]).await?;
    tx.commit().await?;
    let (writer, work) = Writer::start(db.clone(), clock.clone(), Arc::new(|_: &[Uuid]| {}), CancellationToken::new());
    let jobs = async {
        let mut encoder = Encoder::default();
        let prepared: Vec<IntakeJob> = texts
            .iter()
            .enumerate()
            .map(|(number, text)| intake(&mut encoder, text, number))
            .collect::<anyhow::Result<_>>()?;
        for job in prepared {
            writer.intake(job).await?;
            if is_delivered {
                deliver(&db, &writer, &clock).await?;
            }
        }
        drop(writer);
        anyhow::Ok(())
    };
    let (done, ()) = tokio::join!(jobs, work);
    done
}

fn intake(encoder: &mut Encoder, text: &str, number: usize) -> anyhow::Result<IntakeJob> {
    let now = Clock::system().now();
    let alert = parsed(text)?.received(now);
    let key = pipeline::key(&alert, None, &Recurring::default());
    let (id, stored) = (new_id(now), encoder.encode(text.as_bytes()));
    let response = NewResponse {
        id: new_id(now),
        alert: Some(id),
        policy: Some(("block".to_owned(), 1)),
        action: "firewall-drop".to_owned(),
        target: Some(target(number)?),
        agents: vec![AGENT],
        ..NewResponse::default()
    };
    let alert = NewAlert { id, alert, key, stored, is_late: false };
    Ok(IntakeJob { alerts: vec![(alert, vec![response])], epoch: 0, permit: None, once: None })
}

async fn deliver(db: &Db, writer: &Writer, clock: &Clock) -> anyhow::Result<()> {
    let owed = commands::owed(db, vec![AGENT], false).await?.remove(&AGENT).unwrap_or_default();
    let ids: Vec<Uuid> = owed.iter().map(|command| command.id).collect();
    let now = clock.now();
    writer.delivered(ids.clone(), now);
    let result = |id: &Uuid| CommandResult {
        command_id: *id,
        outcome: Outcome::Succeeded,
        exit_code: Some(0),
        output: String::new(),
        verified: Some(true),
        message: "blocked".to_owned(),
        evidence: None,
        started_at: now,
        finished_at: now,
        observed: false,
    };
    let results = ids.iter().map(result).collect();
    let (acknowledged, settled) = tokio::join!(writer.acknowledge(AGENT, ids), writer.settle(AGENT, None, results));
    acknowledged?;
    settled?;
    Ok(())
}
