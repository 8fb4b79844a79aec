//! The SQL that counts effects agrees with the rule for every state of the ledger, and reads no table in full.

use std::collections::BTreeMap;

use super::*;
use crate::domain::effect::{Actual, Desired, LastApply};
use crate::domain::outcome::{HoldFacts, of_effect};
use crate::store::database::{plan, reads_whole};

#[tokio::test]
async fn the_sql_agrees_with_the_rule_of_effects() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let (living, revoked) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut tx = db.begin().await.unwrap();
    for (agent, revoked_at) in [(living, None), (revoked, Some(1_i64))] {
        let sql = "INSERT INTO agents (id, name, public_key, labels, platform, version, capabilities, enrolled_at, revoked_at)
            VALUES ($1, $2, '', '{}', '{}', '', '[]', 0, $3)";
        tx.execute(sql, binds![agent, agent.to_string(), revoked_at]).await.unwrap();
    }
    let (mut effects, mut commands) = (vec![], vec![]);
    let mut expected: BTreeMap<String, EffectOutcome> = BTreeMap::new();
    let mut number: u128 = 100;
    for last in LastApply::ALL.into_iter().map(Some).chain([None]) {
        for actual in Actual::ALL {
            for desired in [Desired::InForce, Desired::Absent] {
                for (agent, failed) in [(living, 0_i64), (living, 3), (revoked, 0)] {
                    for under_way in [None, Some(CommandState::Queued), Some(CommandState::Acknowledged)] {
                        number += 1;
                        let (id, value) = (Uuid::from_u128(number), number.to_string());
                        let until = (desired == Desired::InForce).then_some(i64::try_from(number).unwrap());
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
                            i64::try_from(number / 7).unwrap(),
                            failed,
                            until
                        ]);
                        if let Some(state) = under_way {
                            let seq = i64::try_from(number).unwrap();
                            let op = "apply";
                            commands.push(binds![
                                id,
                                agent,
                                seq,
                                id,
                                id,
                                op,
                                "a",
                                "ip",
                                value.as_str(),
                                "[]",
                                state.as_str(),
                                0_i64
                            ]);
                        }
                        let stands = desired == Desired::InForce || matches!(actual, Actual::InForce | Actual::Drifted);
                        if stands && agent == living {
                            let (last_apply, is_revoked, released) = (last, false, None);
                            let facts = HoldFacts { desired, actual, last_apply, under_way, is_revoked, released };
                            expected.insert(value, of_effect(&facts, failed));
                        }
                    }
                }
            }
        }
    }
    let into =
        "INSERT INTO effects (id, agent_id, action, target_kind, target_value, arguments, desired, actual, actual_seq,
        created_at, changed_at, last_apply, wanted_at, failed_reverts, until) VALUES {15}";
    tx.execute_rows(into, effects, vec![]).await.unwrap();
    let into = "INSERT INTO commands (id, agent_id, seq, effect_id, response_id, op, action, target_kind, target_value,
        arguments, state, created_at) VALUES {12}";
    tx.execute_rows(into, commands, vec![]).await.unwrap();
    tx.commit().await.unwrap();
    for outcome in EffectOutcome::ALL {
        assert!(expected.values().any(|is| *is == outcome), "no state of the ledger is {}", outcome.as_str());
        let filter = TargetFilter { outcome: Some(outcome), ..TargetFilter::default() };
        let found = paged(&db, &filter, 7).await;
        let is = |one: &&EffectOutcome| {
            **one == outcome || (outcome == EffectOutcome::Reverting && **one == EffectOutcome::Failing)
        };
        let expected: Vec<&String> = expected.iter().filter(|(_, one)| is(one)).map(|(value, _)| value).collect();
        let mut values: Vec<&String> = found.iter().map(|target| &target.target_value).collect();
        values.sort_unstable();
        assert_eq!(values, expected, "{}", outcome.as_str());
    }
    let all = TargetFilter::default();
    let found = paged(&db, &all, 7).await;
    let counted = counted(&db, &all, &found, false).await.unwrap();
    let counted: BTreeMap<String, EffectOutcome> =
        counted.into_iter().map(|row| (row.target_value.clone(), row.outcome().unwrap())).collect();
    assert_eq!(counted, expected);
}

/// All targets, in pages of `limit`, without one twice.
async fn paged(db: &Db, filter: &TargetFilter, limit: i64) -> Vec<NewestEffect> {
    let (mut all, mut before): (Vec<NewestEffect>, Option<Before>) = (vec![], None);
    loop {
        let found = walk(db, filter, before, limit).await.unwrap();
        let Some(last) = found.last() else { return all };
        before = Before::parse(&last.cursor());
        assert!(before.is_some());
        let is_newer =
            |one: &NewestEffect| all.last().is_none_or(|last: &NewestEffect| last.wanted_at >= one.wanted_at);
        assert!(found.first().is_some_and(is_newer));
        all.extend(found);
    }
}

#[tokio::test]
async fn a_page_of_targets_reads_no_table_in_full() {
    for statement in [WALK, KINDS, COUNTED, AGENTS, HOLDING, EFFECTS, HOLDERS] {
        let whole: Vec<String> = reads_whole(statement).await;
        let whole: Vec<&String> =
            whole.iter().filter(|step| !step.contains("walk") && !step.ends_with("CONSTANT ROW")).collect();
        assert!(whole.is_empty(), "{whole:?}");
    }
    let plan = plan(WALK).await;
    let seeks = plan.iter().filter(|step| step.contains("SEARCH effects USING INDEX effects_newest (")).count();
    assert_eq!(seeks, 2, "{plan:?}");
    assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY") && step.contains("effects")), "{plan:?}");
}
