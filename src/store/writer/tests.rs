//! Tests of the writer alone: the order of jobs, and the replies.

use super::*;
use crate::domain::formats::{self, AlertMappings};
use crate::domain::id::new_id;
use crate::domain::pipeline::{self, Recurring};
use crate::domain::response::{EndReason, ResponseEnd};
use crate::store::configured::caches::Cache;
use crate::store::database::codec::Encoder;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

#[tokio::test]
async fn promise_11_an_alert_flood_gets_busy_and_does_not_delay_results() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let (writer, work) = Writer::start(db, Clock::system(), Arc::new(|_: &[Uuid]| {}), CancellationToken::new());
    let intake = || IntakeJob { alerts: vec![], epoch: 0, permit: None, once: None };
    let mut flood = JoinSet::new();
    for _ in 0..INTAKES {
        let writer = writer.clone();
        flood.spawn(async move { writer.intake(intake()).await });
    }
    while writer.load() < 1.0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(writer.intake(intake()).await, Err(StoreError::Busy)), "one too many");
    let why = ResponseEnd::by_riposte(EndReason::Lifted, "");
    let others = async {
        writer.settle(Uuid::nil(), None, vec![]).await.unwrap();
        writer.release(vec![], why).await.unwrap();
        flood.join_all().await.into_iter().for_each(|taken| drop(taken.unwrap()));
        assert!(writer.load() < f64::EPSILON);
        drop(writer);
    };
    tokio::join!(work, others);
}

/// Alerts that an older configuration decided are not stored; they are decided again.
#[tokio::test]
async fn promise_6_alerts_are_not_committed_by_an_older_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let mut change = LedgerTx::begin(&db).await.unwrap();
    change.makes_stale(Cache::Policies);
    assert_eq!(change.commit_change().await.unwrap(), Some(1));
    let (writer, work) =
        Writer::start(db.clone(), Clock::system(), Arc::new(|_: &[Uuid]| {}), CancellationToken::new());
    let intake = |epoch| {
        let raw = br#"{"timestamp":"2026-11-29T10:00:00.000+0000","id":"1.1","rule":{"id":"5763","level":10},
            "agent":{"id":"001","name":"web-01"},"manager":{"name":"m"}}"#;
        let (_, alert) = formats::read(raw, &AlertMappings::default(), None).unwrap();
        let now = Clock::system().now();
        let alert = alert.received(now);
        let key = pipeline::key(&alert, None, &Recurring::default());
        let alert =
            alerts::NewAlert { id: new_id(now), alert, key, stored: Encoder::default().encode(raw), is_late: false };
        IntakeJob { alerts: vec![(alert, vec![])], epoch, permit: None, once: None }
    };
    let tries = async {
        assert!(matches!(writer.intake(intake(0)).await, Err(StoreError::Outdated(1))));
        // Stored by the first try, it would be a duplicate now.
        let IdempotentOutcome::Done(taken) = writer.intake(intake(1)).await.unwrap() else {
            panic!("no key was given")
        };
        assert_eq!(taken.new, [true]);
        drop(writer);
    };
    tokio::join!(work, tries);
}

/// A commit that fails may still be durable, and no other task would wake the agents.
#[tokio::test]
async fn promise_3_agents_are_woken_although_the_commit_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let agent = Uuid::from_u128(1);
    let mut tx = db.begin().await.unwrap();
    const AGENT: &str =
        "INSERT INTO agents (id, name, public_key, labels, platform, version, capabilities, enrolled_at)
        VALUES ($1, 'web-01', '', '{}', '{}', '', '[]', 0)";
    tx.execute(AGENT, crate::store::database::binds![agent]).await.unwrap();
    tx.execute("DROP TABLE audit", vec![]).await.unwrap();
    tx.commit().await.unwrap();
    let woken = Arc::new(std::sync::Mutex::new(Vec::new()));
    let wake = {
        let woken = Arc::clone(&woken);
        Arc::new(move |agents: &[Uuid]| woken.lock().unwrap().extend_from_slice(agents))
    };
    let (writer, work) = Writer::start(db, Clock::system(), wake, CancellationToken::new());
    let response = NewResponse {
        id: Uuid::from_u128(2),
        action: "log-only".into(),
        target: Some(riposte_protocol::target::Target::host()),
        agents: vec![agent],
        ..NewResponse::default()
    };
    let others = async move { writer.respond(response, None, None).await };
    let (outcome, ()) = tokio::join!(others, work);
    assert!(outcome.is_err());
    assert_eq!(*woken.lock().unwrap(), [agent]);
}

#[tokio::test]
async fn promise_10_delayed_results_are_committed_before_a_newer_report() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let (writer, work) = Writer::start(db, Clock::system(), Arc::new(|_: &[Uuid]| {}), CancellationToken::new());
    let others = async move {
        let mut results = Box::pin(writer.settle(Uuid::nil(), None, vec![]));
        assert!((&mut results).now_or_never().is_none());
        writer.converge(Uuid::nil(), AgentNews::default()).await.unwrap();
        assert!((&mut results).now_or_never().is_some(), "in the same transaction");
    };
    tokio::join!(work, others);
}
