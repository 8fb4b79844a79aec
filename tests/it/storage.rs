//! What is stored: the same on both databases, over restarts, and in the terms that code and docs
//! use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use riposte::cli::serve::serve;
use riposte::clock::Clock;
use riposte::domain::command::CommandState;
use riposte::domain::effect::{Actual, Desired};
use riposte::domain::outcome::ResponseOutcome;
use riposte::domain::response::ResponseState;
use riposte::shutdown::Tasks;
use riposte::store::database::Db;
use riposte::store::transfer::tables::{ColumnKind, LEFT_OUT, TABLES};
use riposte_protocol::command::Op;
use riposte_protocol::message::Outcome;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, TestApp};

on_both_databases! {
    /// Promise 1: what was answered 2xx is stored, and continues after a restart.
    async fn promise_1_a_restart_keeps_everything(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        admin.policy(&drop_policy("drop")).await;
        let entry = json!({"kind": "ip", "value": "192.0.2.0/24", "reason": "why"});
        admin.post("/v1/protected", &entry).await.is(201);
        admin.post("/v1/alerts", &brute_force("1.1", "203.0.113.7")).await.is(202);
        let done = agent.answer(Outcome::Succeeded, Some(true)).await;
        let kept = admin.post_once("/v1/alerts", &brute_force("1.2", "203.0.113.8"), "key-1").await.is(202);
        let everything = async |admin: &Client| {
            let mut lists = Vec::new();
            for list in [
                "alerts",
                "policies",
                "responses",
                "effects",
                "commands",
                "agents",
                "enrollment-tokens",
                "protected",
                "audit",
            ] {
                lists.push((list, admin.list(&format!("/v1/{list}")).await));
            }
            lists
        };
        let before = everything(&admin).await;
        assert!(before.iter().all(|(_, items)| !items.is_empty()));
        let (app, again) = app.restart().await;
        assert_eq!(again.key(), admin.key(), "a second first key");
        for ((list, was), (_, is)) in before.iter().zip(everything(&again).await) {
            let quiet = |items: &[Value]| items.iter().cloned().map(without_liveness).collect::<Vec<_>>();
            assert_eq!(quiet(was), quiet(&is), "{list}");
        }
        // The same keys sign, the sequence numbers continue, and owed commands are still owed.
        let agent = agent.moved_to(&app);
        let owed = agent.owed_one().await;
        assert_eq!((owed.seq, owed.target.value()), (done.seq + 1, "203.0.113.8"));
        assert_eq!(again.post("/v1/alerts", &brute_force("1.1", "203.0.113.7")).await.is(202)["duplicates"], 1);
        assert_eq!(again.post_once("/v1/alerts", &brute_force("1.2", "203.0.113.8"), "key-1").await.is(202), kept);
        again.post("/v1/alerts", &brute_force("1.3", "203.0.113.9")).await.is(202);
        assert_eq!(agent.owed().await.last().unwrap().seq, done.seq + 2);
        assert_eq!(again.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    async fn alerts_are_forgotten_when_they_are_old_but_not_behind_a_live_response(database: Database) {
        let (app, admin) = TestApp::start_with(database, |config| config.alerts.alert_retention_days = 1).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("drop");
        policy["match"] = json!([{"min_level": 10}]);
        policy["respond"]["for"] = json!("7d");
        admin.policy(&policy).await;
        let live = brute_force("live", "203.0.113.7");
        let mut quiet = brute_force("quiet", "203.0.113.8");
        quiet["rule"]["level"] = json!(3);
        admin.alerts("application/json", json!([live, quiet]).to_string()).await.is(202);
        // In force: a response that is not carried out within a day has failed, and has ended.
        agent.obey().await;
        app.advance(86_400 - 3600);
        admin.post("/v1/alerts", &brute_force("young", "203.0.113.9")).await.is(202);
        let left = async || {
            admin
                .list("/v1/alerts")
                .await
                .iter()
                .map(|alert| alert["pipeline_id"].as_str().unwrap().to_owned())
                .collect::<BTreeSet<_>>()
        };
        let expected = BTreeSet::from(["live".to_owned(), "young".to_owned()]);
        app.advance(3600);
        // The sweep clears up every five minutes.
        let found = app
            .in_time("the old alert is forgotten", || async {
                app.advance(5);
                let left = left().await;
                (left.len() < 3).then_some(left)
            })
            .await;
        assert_eq!(found, expected);
        assert_eq!(admin.list("/v1/responses").await.len(), 2, "responses are kept");
    }

    /// The migrations have run: a restart changes nothing.
    async fn a_second_start_finds_the_schema_as_it_is(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let before = schema(&app).await;
        drop(admin);
        let (app, _admin) = app.restart().await;
        assert_eq!(schema(&app).await, before);
    }
}

/// Removes the fields that say when an agent was last seen.
fn without_liveness(mut thing: Value) -> Value {
    if let Some(object) = thing.as_object_mut() {
        object.remove("last_seen_at");
        for key in ["streaming", "presence", "away_since"] {
            object.remove(key);
        }
        // The reason why a response waits for its agent: presence is determined anew after a
        // restart.
        for told in object.get_mut("agent_outcomes").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(told) = told.as_object_mut() {
                told.remove("reason");
            }
        }
    }
    thing
}

#[derive(Debug, sqlx::FromRow)]
struct Column {
    place: String,
    name: String,
    kind: String,
}

/// Columns and their types, by table.
type Schema = BTreeMap<String, BTreeMap<String, String>>;

async fn schema(app: &TestApp) -> Schema {
    const SQLITE: &str = "SELECT tables.name AS place, columns.name AS name, columns.type AS kind
        FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%'";
    const POSTGRESQL: &str = "SELECT CAST(table_name AS TEXT) AS place,
        CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind
        FROM information_schema.columns WHERE table_schema = 'public'";
    let is_sqlite = app.config.server.database_url.is_empty();
    let columns: Vec<Column> = app.db().await.all(if is_sqlite { SQLITE } else { POSTGRESQL }, vec![]).await.unwrap();
    let mut schema = Schema::new();
    for Column { place, name, kind } in columns {
        // sqlx's own bookkeeping differs.
        if place != "_sqlx_migrations" {
            schema.entry(place).or_default().insert(name, kind.to_ascii_lowercase());
        }
    }
    schema
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    let (sqlite, _admin) = TestApp::start().await;
    let (postgresql, _admin) = TestApp::start_on(Database::postgresql().await).await;
    let (sqlite, postgresql) = (schema(&sqlite).await, schema(&postgresql).await);
    assert_eq!(sqlite, postgresql);
    for table in ["alerts", "responses", "effects", "holds", "commands", "results", "audit"] {
        assert!(sqlite.contains_key(table), "{table}");
    }
}

/// A column that an export forgot would be lost when a manager moves.
#[tokio::test]
async fn an_export_has_every_table_and_column() {
    let (app, _admin) = TestApp::start().await;
    let mut exported = Schema::new();
    for table in TABLES {
        let kind = |kind: &ColumnKind| match kind {
            ColumnKind::Int => "bigint",
            ColumnKind::Text => "text",
            ColumnKind::Bytes => "bytea",
            ColumnKind::Bool => "boolean",
        };
        let columns = table.columns.iter().map(|(name, of)| ((*name).to_owned(), kind(of).to_owned()));
        exported.insert(table.name.to_owned(), columns.collect());
    }
    let mut expected = schema(&app).await;
    for (table, column, _) in LEFT_OUT {
        match column {
            Some(column) => drop(expected.get_mut(*table).unwrap().remove(*column).unwrap()),
            None => drop(expected.remove(*table)),
        }
    }
    assert_eq!(exported, expected, "src/store/transfer/tables.rs");
}

/// A statement with a fault would be found when it is first run, which may be the night when it is needed.
#[tokio::test]
async fn both_databases_can_prepare_every_statement() {
    let statements: Vec<_> = riposte::store::statements().collect();
    assert!(statements.len() > 100, "{}", statements.len());
    for database in [Database::sqlite(), Database::postgresql().await] {
        let name = if database.url().is_empty() { "SQLite" } else { "PostgreSQL" };
        let (app, _admin) = TestApp::start_on(database).await;
        let db = app.db().await;
        for (statement, sql) in &statements {
            if let Err(error) = db.prepare(sql).await {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                // The types of values are known when they are bound, not before.
                let needs_types = [
                    "could not determine data type of parameter",
                    "but expression is of type text",
                    "operator does not exist: bytea = text",
                ];
                if needs_types.iter().any(|words| cause.contains(words)) {
                    continue;
                }
                panic!("{name} cannot prepare {statement}: {error}: {cause}\n{sql}");
            }
        }
    }
}

/// Each connection caches its prepared statements; the many-row ones have thousands of parameters.
#[tokio::test]
async fn every_change_goes_over_one_connection_to_postgresql() {
    let database = Database::postgresql().await;
    let db = Db::open(&database.url()).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let db = db.clone();
        writers.spawn(async move {
            let mut tx = db.begin().await.unwrap();
            let pid: Option<(i64,)> = tx.optional("SELECT CAST(pg_backend_pid() AS BIGINT)", vec![]).await.unwrap();
            pid.unwrap().0
        });
    }
    let pids: BTreeSet<i64> = writers.join_all().await.into_iter().collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[tokio::test]
async fn a_data_directory_has_one_manager() {
    let (app, admin) = TestApp::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = serve(app.config.clone(), listener, Clock::manual(app.clock.now()), Tasks::new());
    let error = second.await.unwrap_err().to_string();
    assert!(error.contains("another manager is running on"), "{error}");
    // The first one was not affected.
    admin.get("/readyz").await;
    admin.policy(&drop_policy("drop")).await;
}

// -------------------------------------------------------------------------------------------------
// Terms

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn migrations() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn promise_4_commands_queued_before_ranks_existed_keep_their_order() {
    let ledger = rusqlite::Connection::open_in_memory().unwrap();
    let (before, rest): (Vec<PathBuf>, Vec<PathBuf>) =
        migrations().into_iter().partition(|path| path.file_name().unwrap().to_str().unwrap() < "0008");
    let run = |files: &[PathBuf]| {
        for path in files {
            ledger.execute_batch(&std::fs::read_to_string(path).unwrap()).unwrap();
        }
    };
    run(&before);
    let response =
        "INSERT INTO responses (id, policy, action, arguments, agents, state, detail, requested_by, note, created_at)
        VALUES (?1, ?2, 'a', '[]', '[]', 'active', '', '', '', 0)";
    ledger.execute(response, ("policy", Some("drop"))).unwrap();
    ledger.execute(response, ("hand", None::<&str>)).unwrap();
    let commands = [
        ("apply", "e1", "policy", "delivered", 1),
        ("apply", "e2", "policy", "queued", 2),
        ("apply", "e3", "policy", "queued", 0),
        ("revert", "e1", "policy", "queued", 1),
        ("apply", "e1", "policy", "queued", 1),
        ("apply", "e3", "hand", "queued", 0),
        ("revert", "e2", "policy", "succeeded", 2),
        ("revert", "e4", "hand", "queued", 1),
    ];
    for (seq, (op, effect, response, state, _)) in (1_i64..).zip(commands) {
        let insert =
            "INSERT INTO commands (id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value,
            arguments, state, created_at) VALUES (?1, 'agent', ?1, ?2, ?3, ?4, 'a', 'ip', '', '[]', ?5, 0)";
        ledger.execute(insert, (seq, effect, response, op, state)).unwrap();
    }
    run(&rest);
    let mut ranks = ledger.prepare("SELECT rank FROM commands ORDER BY seq").unwrap();
    let ranks: Vec<i64> = ranks.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(ranks, commands.map(|(.., rank)| rank));
}

/// Returns the values that the schema allows in `table`.`column`: the list of the last CHECK on it.
fn allowed(table: &str, column: &str) -> BTreeSet<String> {
    let sql: String = migrations().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let (_, body) = sql.split_once(&format!("CREATE TABLE {table} (")).unwrap();
    let body = body.split("\n);").next().unwrap();
    let (_, list) =
        body.split_once(&format!("CHECK ({column} IN")).unwrap_or_else(|| panic!("no CHECK on {table}.{column}"));
    let list = list.trim_start().strip_prefix('(').unwrap().split(')').next().unwrap();
    list.split(',').map(|word| word.trim().trim_matches('\'').to_owned()).collect()
}

/// Returns the arrows of the diagram under a heading of `docs/states.md`.
fn arrows(heading: &str) -> BTreeSet<(String, String)> {
    let text = read("docs/states.md");
    let (_, section) =
        text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("docs/states.md has no part {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let diagram = section
        .split("```mermaid")
        .nth(1)
        .unwrap_or_else(|| panic!("{heading} has no diagram"))
        .split("```")
        .next()
        .unwrap();
    diagram
        .lines()
        .filter_map(|line| line.split_once("-->"))
        .map(|(from, to)| (from.trim().to_owned(), to.split(':').next().unwrap().trim().to_owned()))
        .collect()
}

fn words<'a>(states: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    states.into_iter().map(str::to_owned).collect()
}

#[test]
fn docs_code_and_schema_agree_on_the_states_of_a_command() {
    let code = words(CommandState::ALL.iter().map(|state| state.as_str()));
    assert_eq!(code, allowed("commands", "state"));
    let mut becomes = BTreeSet::new();
    for from in CommandState::ALL {
        for to in CommandState::ALL.into_iter().filter(|to| from.can_become(*to)) {
            becomes.insert((from.as_str().to_owned(), to.as_str().to_owned()));
        }
    }
    let documented: BTreeSet<(String, String)> =
        arrows("Command").into_iter().filter(|(from, to)| from != "[*]" && to != "[*]").collect();
    assert_eq!(documented, becomes);
}

#[test]
fn docs_code_and_schema_agree_on_the_states_of_a_response_and_an_effect() {
    let code = words(ResponseState::ALL.iter().map(|state| state.as_str()));
    assert_eq!(code, allowed("responses", "state"));
    let documented: BTreeSet<String> =
        arrows("Response").into_iter().flat_map(|(from, to)| [from, to]).filter(|state| state != "[*]").collect();
    assert_eq!(documented, code);
    assert_eq!(words([Desired::InForce, Desired::Absent].map(Desired::as_str)), allowed("effects", "desired"));
    assert_eq!(words(Actual::ALL.map(Actual::as_str)), allowed("effects", "actual"));
    let page = read("docs/states.md");
    for outcome in ResponseOutcome::ALL {
        assert!(page.contains(&format!("| `{}` |", outcome.as_str())), "docs/states.md does not say {outcome:?}");
    }
    let text = read("docs/states.md");
    for state in Actual::ALL {
        assert!(text.contains(&format!("`{}`", state.as_str())), "docs/states.md says nothing of {}", state.as_str());
    }
    assert_eq!(words([Op::Apply, Op::Revert].map(Op::as_str)), allowed("commands", "op"));
    let outcomes = [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::Refused];
    assert_eq!(words(outcomes.map(Outcome::as_str)), allowed("results", "outcome"));
    let roles = riposte::domain::principal::Role::ALL.map(riposte::domain::principal::Role::as_str);
    assert_eq!(words(roles), allowed("api_keys", "role"));
    assert_eq!(words(["ip", "user", "agent"]), allowed("protected", "kind"));
}

/// SHA-256 of each migration that has landed: the next file changes the schema, never these.
const LANDED: &[(&str, &str)] = &[
    ("0001_ledger.sql", "cc34545e42804a1c4551128bb6585d9d30b42232e03da21848eb4cc4cbd8a2d0"),
    ("0002_protected.sql", "5dbe4c17ccf20930ae6e82391ccedea6a24b98a2ba0acd99af56ac682d55f0d2"),
    ("0003_freeze.sql", "246b97f64b173b77387609d115aa9901fedaff72634aaf5ad3c0f97b124663f5"),
    ("0004_guardrails.sql", "ca0f2ca16ff403f6f704de0b5aaa46c04f50ade7c536fa6482ccfe9a382b805a"),
    ("0005_custom_actions.sql", "b49d6aec1f57d022c127a93b010fe682cbc66c32faa47c13ecce7c66767d5ba5"),
    ("0006_incidents.sql", "e3b1b780a66d79275232ee13e2be40e591bdf79fb70f832cf02441e02322c822"),
    ("0007_last_holders.sql", "514919cef0ef502abefa13c02ba585c97bfda57006249163365552998b3b7a96"),
    ("0008_ranks.sql", "3dd5653c8d5dd025cec4690fcf53520b5766228cc4626c19f9a294894f06d2cf"),
    ("0009_standing.sql", "72346a78bd48e82a0d1ebe24092cea0c5784747f00ad2e05c7e951ff1635f2ce"),
    ("0010_enrolment.sql", "93e891c4c9456deb4548aec9bdd9465f45044a8566918198ddd858240391afa8"),
    ("0011_pipelines.sql", "70fb8e032c4311612a0ae265921e7aee90f801ea39dd41eefa815e59d9977d76"),
    ("0012_outcomes.sql", "c58c720786e0739fb3db7612def28f0aefa36aa851c03c78798a533151d34019"),
    ("0013_agent_breakers.sql", "1eb27316a5f6af49c79a9559b4e8cd7666f871e2ecc57898337535c84d26d157"),
    ("0014_nodes.sql", "aaeebf2f0e419fa87d829114301d4cbbf8a009f0f01c9d12d3713dd8ddbc8315"),
    ("0015_own_ids.sql", "138bfbc7bd59d0fea1837cd80eaa015d848fce96c2288273e8be4068fb049446"),
    ("0016_clock_skew.sql", "4092984881bf8565724212b37b1ae335510e94f0fd54a6307fcf4a6379af1a24"),
    ("0017_evidence.sql", "43308451e6f5c000483a59d8e16c3f0d1eef4b11ecba6d9249934f92af57bd81"),
    ("0018_users.sql", "c03ea8757922f94cd5ad4b295fb4a989856a0f8671f94df1ed96c786e3977890"),
    ("0019_identities.sql", "e43a7c00222c66d276f6addf1399aa28823eb9d75a421bab32541aca2a951b58"),
    ("0020_key_rotation.sql", "faed30de7c96dc3c573f7b0caad5efff290c8f4fd3768d0992905c572d9d2aca"),
    ("0021_scopes.sql", "a5a2170abfd9b3a0737f573c8e25ae55d20b60769f9a4227253678d72443f414"),
    ("0022_audit_checkpoints.sql", "1cbf0786fee020a27d559a4a07080593f84f509664c4836f1d8e4fbfdc9c72d8"),
    ("0023_secrets.sql", "5a7578455f675da6cb5399993f50a7cd30cd7184146a58043db1e756afe01244"),
    ("0024_agent_keys.sql", "a76f9dc51e4fe45ae222c0b2e40d720ae5f2b7874e5a1097da8916a906f24f0d"),
    ("0025_seals.sql", "91a85012a3fff28d2eba905145b6934dfcdcc78fcf72fc77feacf018c3c065f8"),
    ("0026_retention.sql", "679577d15d9fec19ebab506943c63d5bd2027681c5ff0b814f6c13a57d77ed47"),
    ("0027_events.sql", "569b17a2b35b31257526398bd8586bbd5d1ec06f296832674ffd7c4caba0dcee"),
    ("0028_several_managers.sql", "6e33928288d13fe1ae658405c606a01a3f5c6d51355930aebe1d6902d8d037a8"),
    ("0029_rejected_alerts.sql", "7c4819606f4f1a7a0954b503b39e7e288f927e55aa50107f64a0faf77330b255"),
    ("0030_key_tokens.sql", "8c315ff9fa71f7f6f0052f108245624f8dbb3995ff480d697aef354f1089a00d"),
    ("0031_wazuh_agents.sql", "5340d34ec3de17d90d0a5bac80e5d98bb2235fd827f1cdc9aa335930c999e078"),
    ("0032_webhooks.sql", "172361f7ab31492a9520fe5b3072b4698d63567ee61401f335a3a48a03e4172a"),
    ("0033_feeds.sql", "3be6ee177949f5ad67980d00ba6501bb49e83d5eef8a0f526d62d3c5aa32d1c8"),
    ("0034_openc2.sql", "b27f0e88f0418777c45ac429c11184e47f2403969f78c44e97c76e84f1cdb606"),
    ("0035_forwarders.sql", "61f82cc7edd2bef054fd8ecd2b3498cf63f5ea11c244aa2223c92e91da680ed6"),
    ("0036_mitre.sql", "1707740b0e2495b98059395b8de239fe953007391d4189fc32cb3e6267627544"),
    ("0037_client_certificates.sql", "914b5f6fb833acab34fad2e0c30824d58019bc3999b40e96542c08c366caa7d8"),
    ("0038_forgotten_people.sql", "7ea3ade28d15b38784596c6060e06bf2f4355e8986132ba317b2c69bdef35fef"),
    ("0039_late_alerts.sql", "60e49dd0352f60f5ef47f4f082b206d6de1974aa8290e0770f34acc95e536b58"),
    ("0040_targets.sql", "59c3686e010c20c0e0cf73f6dbb59329f95257e1c4f3f0cf1f2251a9af887fab"),
    ("0041_alert_lists.sql", "3b61bd578bb53f8bcd5a4a64110bb80bea1abf9ddc8f66b4a8f40ea070933cc8"),
];

#[test]
fn a_migration_that_has_landed_is_never_edited() {
    let files: Vec<String> =
        migrations().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let landed: Vec<&str> = LANDED.iter().map(|(name, _)| *name).collect();
    assert_eq!(files, landed, "a new migration is added to LANDED");
    for ((name, expected), path) in LANDED.iter().zip(migrations()) {
        let digest = Sha256::digest(std::fs::read(path).unwrap());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&digest, expected, "{name} was edited");
    }
}
