//! The SQL that counts outcomes agrees with the rule for every state of the ledger, and scans no
//! table in full.

use super::*;
use crate::domain::outcome::of_agent;
use crate::store::database::plan;

const AT: i64 = 1000;

#[tokio::test]
async fn the_sql_agrees_with_the_outcome_rule() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let (living, revoked) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut tx = db.begin().await.unwrap();
    for (agent, revoked_at) in [(living, None), (revoked, Some(AT))] {
        let sql = "INSERT INTO agents (id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at)
            VALUES ($1, $2, '', '{}', '{}', '', '[]', 0, $3)";
        tx.execute(sql, binds![agent, agent.to_string(), revoked_at]).await.unwrap();
    }
    let lasts = LastApply::ALL.into_iter().map(Some).chain([None]);
    let lefts = ["in_force", "withdrawn", "observed", "failed", "refused", "timed_out", "expired", "cancelled"];
    // Held; released before the state was kept; released, with the effect unchanged or wanted
    // again.
    let releases = [(None, None, AT), (Some(AT), None, AT)].into_iter();
    let releases =
        releases.chain(lefts.iter().flat_map(|left| [(Some(AT), Some(*left), AT), (Some(AT), Some(*left), AT + 1)]));
    let releases: Vec<(Option<i64>, Option<&str>, i64)> = releases.collect();
    let (mut effects, mut holds, mut commands, mut rows) = (vec![], vec![], vec![], vec![]);
    let mut number: u128 = 100;
    for last in lasts {
        for actual in Actual::ALL {
            for desired in [Desired::InForce, Desired::Absent] {
                for agent in [living, revoked] {
                    for is_under_way in [false, true] {
                        for (released_at, left_as, wanted_at) in &releases {
                            number += 1;
                            let id = Uuid::from_u128(number);
                            let value = number.to_string();
                            effects.push(binds![
                                id,
                                agent,
                                "a",
                                "ip",
                                value.as_str(),
                                "[]",
                                desired.as_str(),
                                actual.as_str(),
                                0_i64,
                                0_i64,
                                0_i64,
                                last.map(LastApply::as_str),
                                *wanted_at
                            ]);
                            holds.push(binds![id, id, *released_at, *left_as]);
                            if is_under_way {
                                let seq = i64::try_from(number).unwrap();
                                commands.push(binds![
                                    id, agent, seq, id, id, "apply", "a", "ip", value, "[]", "queued", 0_i64
                                ]);
                            }
                            rows.push(response(id));
                        }
                    }
                }
            }
        }
    }
    let into =
        "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments, desired, actual, actual_seq,
        created_at, changed_at, last_apply, wanted_at) VALUES {13}";
    tx.execute_rows(into, effects, vec![]).await.unwrap();
    let into = "INSERT INTO holds (response_id, effect_id, released_at, left_as) VALUES {4}";
    tx.execute_rows(into, holds, vec![]).await.unwrap();
    let into = "INSERT INTO commands (id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value,
        arguments, state, created_at) VALUES {12}";
    tx.execute_rows(into, commands, vec![]).await.unwrap();
    tx.commit().await.unwrap();
    let became = of(&db, &rows, 10).await.unwrap();
    let mut seen = BTreeMap::new();
    for (response, became) in became {
        for agent in &became.agents {
            let Known::Hold { facts, .. } = &agent.known else { panic!("{agent:?}") };
            let mut counts = OutcomeCounts::default();
            counts.add(of_agent(facts), 1);
            assert_eq!(became.counts, counts, "{response}: {facts:?}");
            assert_eq!(became.unverified == 1, facts.is_unverified() && facts.released.is_none(), "{facts:?}");
            *seen.entry(of_agent(facts).as_str()).or_insert(0) += 1;
        }
        if became.agents.is_empty() {
            let plain = OutcomeCounts { in_force: 1, ..OutcomeCounts::default() };
            let over = OutcomeCounts { lifted: 1, ..OutcomeCounts::default() };
            assert!([plain, over].contains(&became.counts), "of what is left out there is nothing to say: {became:?}");
        }
    }
    assert!(["failed", "in_force", "pending"].iter().all(|outcome| seen.contains_key(outcome)), "{seen:?}");
}

fn response(id: Uuid) -> ResponseRow {
    let row = serde_json::json!([id]).to_string();
    ResponseRow::for_tests(id, &row)
}

#[tokio::test]
async fn counting_what_stands_reads_only_active_responses() {
    let plan = plan(STANDING).await;
    assert!(plan.iter().any(|step| step.contains("responses_active")), "{plan:?}");
    let scans = |step: &String| ["holds", "effects", "agents"].iter().any(|t| step.starts_with(&format!("SCAN {t}")));
    assert!(!plan.iter().any(scans), "{plan:?}");
}
