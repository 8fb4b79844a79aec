//! Words that no column can hold: each is refused as corruption where its row is read, and a change
//! that meets one changes nothing.

use riposte::store::StoreError;
use riposte::store::configured::keys;
use riposte::store::ledger::{approvals, commands, effects, outcomes, responses};
use riposte_protocol::message::{Actual, HeldEffect, Outcome, PollRequest};
use rusqlite::types::Value as Column;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, FakeAgent, TestApp};

/// An app whose ledger has each word: a response in force, one lifted, and one that waits.
struct Ledger {
    app: TestApp,
    admin: Client,
    approver: Client,
    agent: FakeAgent,
    active: Uuid,
    lifted: Uuid,
    waiting: Uuid,
}

impl Ledger {
    async fn start(database: Database) -> Self {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut acts = drop_policy("acts");
        acts["respond"]["for"] = json!("1h");
        admin.policy(&acts).await;
        let mut ids = Vec::new();
        for n in 1..=2 {
            let alert = brute_force(&n.to_string(), &format!("203.0.113.{n}"));
            ids.extend(responses_of(&admin.post("/v1/alerts", &alert).await.is(202)));
            agent.answer(Outcome::Succeeded, Some(true)).await;
        }
        admin.post(&format!("/v1/responses/{}/lift", ids[1]), &json!({"reason": "a mistake"})).await.is(200);
        let mut waits = drop_policy("acts");
        waits["mode"] = json!("approve");
        waits["approval"] = json!({"on_silence": "enforce", "quorum": 2});
        admin.put("/v1/policies/acts", &waits, Some("\"1\"")).await.is(200);
        ids.extend(responses_of(&admin.post("/v1/alerts", &brute_force("3", "203.0.113.3")).await.is(202)));
        let other = app.person(&admin, "bob", "analyst").await;
        let approver = app.person(&admin, "alice", "admin").await;
        other.post(&format!("/v1/responses/{}/approve", ids[2]), &json!({"reason": "right"})).await.is(200);
        Self { app, admin, approver, agent, active: ids[0], lifted: ids[1], waiting: ids[2] }
    }

    /// Changes the database behind the manager's back, against its checks.
    async fn spoil(&self, sql: &'static str) {
        if self.app.config.database().starts_with("postgres") {
            assert!(self.app.execute(sql).await > 0, "{sql} changes nothing");
            return;
        }
        self.app.spoil(sql).await;
    }

    /// Every row of the tables that a change of the ledger writes to.
    fn rows(&self) -> Vec<Vec<Column>> {
        let file = rusqlite::Connection::open(self.app.data_dir().join("riposte.db")).unwrap();
        let mut rows = Vec::new();
        for table in ["responses", "effects", "holds", "commands", "results", "answers", "waves", "audit", "audit_head"]
        {
            let mut query = file.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
            let columns = query.column_count();
            let found = query.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
            rows.extend(found.map(Result::unwrap));
        }
        rows
    }
}

fn responses_of(receipt: &Value) -> Vec<Uuid> {
    receipt["responses"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect()
}

/// Checks that a read is refused, and that the error names the table, the column and the text.
fn is_refused<T>(read: Result<T, StoreError>, column: &str) {
    let Err(error) = read else { panic!("{column} was read") };
    let StoreError::Word(unknown) = &error else { panic!("{column}: {error}") };
    assert_eq!(format!("{}.{}", unknown.table, unknown.column), column);
    assert_eq!(unknown.word, "nonsense", "{column}");
    assert!(error.is_corruption() && error.to_string().contains(column), "{error}");
}

async fn every_column_refuses(database: Database) {
    let ledger = Ledger::start(database).await;
    let db = ledger.app.db().await;
    let row = responses::find(&db, ledger.lifted).await.unwrap().unwrap();
    let newest = effects::of_response(&db, ledger.active, 1).await.unwrap().remove(0).id.parse().unwrap();
    let filter = commands::CommandFilter { response: Some(ledger.active), ..commands::CommandFilter::default() };
    let command = commands::list(&db, filter, None, 1).await.unwrap().remove(0).id.parse().unwrap();
    assert!(commands::result(&db, command).await.unwrap().is_some());

    ledger.spoil("UPDATE holds SET left_as = 'nonsense' WHERE released_at IS NOT NULL").await;
    is_refused(outcomes::of(&db, std::slice::from_ref(&row), 10).await, "holds.left_as");
    ledger.spoil("UPDATE effects SET last_apply = 'nonsense'").await;
    is_refused(effects::find(&db, newest).await, "effects.last_apply");
    ledger.spoil("UPDATE effects SET last_apply = 'verified', actual = 'nonsense'").await;
    is_refused(effects::find(&db, newest).await, "effects.actual");
    ledger.spoil("UPDATE effects SET actual = 'in_force', desired = 'nonsense'").await;
    is_refused(effects::find(&db, newest).await, "effects.desired");
    is_refused(outcomes::of(&db, std::slice::from_ref(&row), 10).await, "effects.desired");
    ledger.spoil("UPDATE results SET outcome = 'nonsense'").await;
    is_refused(commands::result(&db, command).await, "results.outcome");
    ledger.spoil("UPDATE commands SET op = 'nonsense'").await;
    is_refused(commands::find(&db, command).await, "commands.op");
    ledger.spoil("UPDATE commands SET op = 'apply', state = 'nonsense'").await;
    is_refused(commands::find(&db, command).await, "commands.state");
    ledger.spoil("UPDATE answers SET answer = 'nonsense'").await;
    is_refused(approvals::of_response(&db, ledger.waiting).await, "answers.answer");
    ledger.spoil("UPDATE responses SET state = 'nonsense', ended_at = NULL").await;
    is_refused(responses::find(&db, ledger.active).await, "responses.state");
    ledger.spoil("UPDATE api_keys SET role = 'nonsense' WHERE role = 'analyst'").await;
    is_refused(keys::all(&db).await, "api_keys.role");
    // The manager's own key is still in its memory: it says that something is broken, and no more.
    let problem = ledger.admin.get(&format!("/v1/responses/{}", ledger.active)).await.is_problem(500);
    assert!(!problem.to_string().contains("nonsense"), "{problem}");
}

#[tokio::test]
async fn an_unknown_word_in_any_column_is_refused_where_its_row_is_read() {
    every_column_refuses(Database::sqlite()).await;
}

#[tokio::test]
async fn an_unknown_word_is_refused_on_postgresql_too() {
    let database = Database::postgresql().await;
    let ledger = Ledger::start(database).await;
    let unchecked = "ALTER TABLE effects DROP CONSTRAINT effects_desired_check";
    ledger.app.execute(unchecked).await;
    ledger.spoil("UPDATE effects SET desired = 'nonsense'").await;
    let db = ledger.app.db().await;
    is_refused(effects::of_response(&db, ledger.active, 1).await, "effects.desired");
    ledger.spoil("UPDATE responses SET on_silence = 'nonsense' WHERE state = 'awaiting_approval'").await;
    let approve = format!("/v1/responses/{}/approve", ledger.waiting);
    ledger.approver.post(&approve, &json!({"reason": "right"})).await.is_problem(500);
}

#[tokio::test]
async fn a_change_that_meets_an_unknown_word_changes_nothing() {
    let ledger = Ledger::start(Database::sqlite()).await;
    let lift = format!("/v1/responses/{}/lift", ledger.active);
    let approve = format!("/v1/responses/{}/approve", ledger.waiting);
    let why = json!({"reason": "it must be"});
    let table = [
        (
            &lift,
            "UPDATE effects SET desired = 'nonsense' WHERE desired = 'in_force'",
            "UPDATE effects SET desired = 'in_force' WHERE desired = 'nonsense'",
        ),
        (
            &lift,
            "UPDATE effects SET actual = 'nonsense' WHERE desired = 'in_force'",
            "UPDATE effects SET actual = 'in_force' WHERE desired = 'in_force'",
        ),
        (
            &approve,
            "UPDATE responses SET on_silence = 'nonsense' WHERE state = 'awaiting_approval'",
            "UPDATE responses SET on_silence = 'enforce' WHERE state = 'awaiting_approval'",
        ),
        (
            &approve,
            "UPDATE responses SET requested_by = 'nonsense' WHERE state = 'awaiting_approval'",
            "UPDATE responses SET requested_by = 'policy:acts' WHERE state = 'awaiting_approval'",
        ),
    ];
    for (path, spoil, heal) in table {
        ledger.spoil(spoil).await;
        let before = ledger.rows();
        ledger.approver.post(path, &why).await.is_problem(500);
        assert!(ledger.rows() == before, "something was changed after {spoil}");
        ledger.spoil(heal).await;
    }
    // What the agent says: it holds the lifted effect, and it has carried out the revert of it.
    let revert = ledger.agent.owed_one().await;
    let held = HeldEffect {
        effect: revert.effect,
        action: revert.action.clone(),
        target: revert.target.clone(),
        until: revert.until,
        actual: Some(Actual::InForce),
        drifts: 0,
        failing: None,
        released: None,
    };
    let holds = || PollRequest { effects: Some(vec![held.clone()]), max: 0, ..PollRequest::default() };
    let reverted = || {
        let results = vec![ledger.agent.result(revert.jti, Outcome::Succeeded, Some(true))];
        PollRequest { results, cursor: u64::MAX >> 1, max: 0, ..PollRequest::default() }
    };
    let table = [
        (
            reverted(),
            "UPDATE commands SET state = 'nonsense' WHERE op = 'revert'",
            "UPDATE commands SET state = 'delivered' WHERE op = 'revert'",
        ),
        (
            reverted(),
            "UPDATE effects SET last_apply = 'nonsense' WHERE desired = 'absent'",
            "UPDATE effects SET last_apply = 'verified' WHERE desired = 'absent'",
        ),
        (
            reverted(),
            "UPDATE effects SET desired = 'nonsense' WHERE desired = 'absent'",
            "UPDATE effects SET desired = 'absent' WHERE desired = 'nonsense'",
        ),
        (
            holds(),
            "UPDATE effects SET desired = 'nonsense' WHERE desired = 'absent'",
            "UPDATE effects SET desired = 'absent' WHERE desired = 'nonsense'",
        ),
    ];
    for (said, spoil, heal) in table {
        ledger.spoil(spoil).await;
        let before = ledger.rows();
        ledger.agent.exchange(&ledger.agent.token(), &said).await.is_problem(500);
        assert!(ledger.rows() == before, "something was changed after {spoil}");
        ledger.spoil(heal).await;
    }
    let acked = ledger.agent.report(vec![ledger.agent.result(revert.jti, Outcome::Succeeded, Some(true))]).await;
    assert_eq!(acked, [revert.jti]);
    ledger.approver.post(&approve, &why).await.is(200);
    ledger.admin.post(&lift, &why).await.is(200);
    let proof = ledger.admin.get("/v1/audit/verify").await.is(200);
    assert_eq!(proof["intact"], true);
}

#[tokio::test]
async fn an_effect_with_an_unknown_word_keeps_no_other_in_force() {
    let ledger = Ledger::start(Database::sqlite()).await;
    let target = "203.0.113.9";
    let mut acts = drop_policy("brief");
    acts["respond"]["for"] = json!("10m");
    ledger.admin.policy(&acts).await;
    for n in 8..=9 {
        ledger.admin.post("/v1/alerts", &brute_force(&n.to_string(), &format!("203.0.113.{n}"))).await.is(202);
    }
    ledger.spoil("UPDATE effects SET desired = 'nonsense' WHERE target_value = '203.0.113.8'").await;
    ledger.app.advance(10 * 60 + 1);
    ledger
        .app
        .in_time("the other is undone", || async {
            let ended = ledger.admin.list("/v1/responses?policy=brief&state=ended").await;
            ended.iter().any(|response| response["target_value"] == target).then_some(())
        })
        .await;
    let fault = ledger
        .app
        .in_time("the fault is shown", || async {
            // 200, or 503 once a deadline counts as missed: the clock has jumped.
            let answer = ledger.admin.get("/readyz?verbose=true").await;
            let report: Value = serde_json::from_str(&answer.text).unwrap();
            report["stages"]["undo"]["fault"].as_str().map(str::to_owned)
        })
        .await;
    assert!(fault.contains("effects.desired is \"nonsense\""), "{fault}");
}
