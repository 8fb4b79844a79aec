//! Guardrails of a policy: thresholds, limits, cooldown, escalation, approval. All on both
//! databases, and the limits with many concurrent requests.

use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, FakeAgent, TestApp};

async fn with_policy(database: Database, change: impl FnOnce(&mut Value)) -> (TestApp, Client, FakeAgent) {
    let (app, admin) = TestApp::start_on(database).await;
    let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let mut policy = drop_policy("drop");
    change(&mut policy);
    admin.policy(&policy).await;
    (app, admin, agent)
}

async fn post(admin: &Client, id: &str, source: &str) -> Vec<String> {
    let answer = admin.post("/v1/alerts", &brute_force(id, source)).await.is(202);
    let ids = answer["responses"].as_array().unwrap().iter();
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

async fn find(admin: &Client, id: &str) -> Value {
    admin.get(&format!("/v1/responses/{id}")).await.is(200)
}

/// Returns the one response of an alert.
async fn response(admin: &Client, id: &str, source: &str) -> Value {
    let ids = post(admin, id, source).await;
    assert_eq!(ids.len(), 1, "{ids:?}");
    find(admin, &ids[0]).await
}

fn state(response: &Value) -> (&str, &str) {
    (response["state"].as_str().unwrap(), response["reason"].as_str().unwrap_or_default())
}

fn lasts_secs(response: &Value) -> i64 {
    let millis = |key: &str| {
        let text = response[key].as_str().unwrap();
        text.parse::<riposte_protocol::time::Timestamp>().unwrap().as_millis()
    };
    (millis("until") - millis("created_at")) / 1000
}

async fn say(admin: &Client, response: &Value, word: &str) -> crate::support::Answer {
    let path = format!("/v1/responses/{}/{word}", response["id"].as_str().unwrap());
    admin.post(&path, &json!({"reason": "looked at it"})).await
}

on_both_databases! {
    async fn a_threshold_fires_at_the_nth_alert_of_one_source_within_its_time(database: Database) {
        let threshold = json!({"count": 3, "within": "2m", "by": "source.ip"});
        let (app, admin, _agent) = with_policy(database, |policy| policy["threshold"] = threshold).await;
        for n in 0..2 {
            assert!(post(&admin, &format!("a{n}"), "203.0.113.7").await.is_empty());
            assert!(post(&admin, &format!("b{n}"), "203.0.113.8").await.is_empty());
        }
        assert!(post(&admin, "a1", "203.0.113.7").await.is_empty(), "a repetition does not count");
        assert_eq!(state(&response(&admin, "a2", "203.0.113.7").await), ("active", ""));
        assert!(post(&admin, "a3", "203.0.113.7").await.is_empty(), "counting begins anew");
        app.advance(121);
        assert!(post(&admin, "b2", "203.0.113.8").await.is_empty(), "the first two are too long ago");
    }

    async fn the_same_target_is_left_alone_during_the_cooldown(database: Database) {
        let (app, admin, _agent) = with_policy(database, |policy| policy["limits"] = json!({"cooldown": "30s"})).await;
        assert_eq!(state(&response(&admin, "1", "203.0.113.7").await), ("active", ""));
        app.advance(29);
        assert_eq!(state(&response(&admin, "2", "203.0.113.7").await), ("spared", "cooldown"));
        assert_eq!(state(&response(&admin, "3", "203.0.113.8").await), ("active", ""));
        app.advance(2);
        assert_eq!(state(&response(&admin, "4", "203.0.113.7").await), ("active", ""));
    }

    async fn no_burst_of_concurrent_alerts_exceeds_a_rate_or_a_radius(database: Database) {
        let limits = json!({"responses": "20/1m", "targets": "7/1h", "over_limit": "drop"});
        let (app, admin, _agent) = with_policy(database, |policy| policy["limits"] = limits).await;
        // 160 alerts from 40 sources, sixteen at a time.
        let posts = (0..16).map(|task| {
            let admin = admin.clone();
            async move {
                for n in 0..10 {
                    let number = task * 10 + n;
                    post(&admin, &format!("c{number}"), &format!("203.0.113.{}", number % 40)).await;
                }
            }
        });
        futures_util::future::join_all(posts).await;
        let active = admin.list("/v1/responses?state=active").await;
        let targets: std::collections::BTreeSet<&str> =
            active.iter().map(|response| response["target_value"].as_str().unwrap()).collect();
        assert_eq!(targets.len(), 7);
        assert!(active.len() <= 20, "{}", active.len());
        let spared = admin.list("/v1/responses?state=spared").await;
        assert_eq!(active.len() + spared.len(), 160, "every alert has its answer");
        app.advance(61);
        let again = active[0]["target_value"].as_str().unwrap();
        assert_eq!(state(&response(&admin, "later", again).await), ("active", ""), "a minute later there is room again");
        assert_eq!(state(&response(&admin, "new", "198.51.100.1").await), ("spared", "over_limit"), "an hour is not over");
    }

    async fn a_response_over_a_limit_asks_for_approval_once(database: Database) {
        let (_app, admin, _agent) = with_policy(database, |policy| policy["limits"] = json!({"responses": "1/1m"})).await;
        assert_eq!(state(&response(&admin, "1", "203.0.113.1").await), ("active", ""));
        assert_eq!(state(&response(&admin, "2", "203.0.113.2").await), ("awaiting_approval", ""));
        assert_eq!(state(&response(&admin, "3", "203.0.113.2").await), ("spared", "waiting_already"));
        assert_eq!(state(&response(&admin, "4", "203.0.113.3").await), ("awaiting_approval", ""));
    }

    async fn a_response_on_too_many_agents_is_over_the_limit(database: Database) {
        let (app, admin, _agent) = with_policy(database, |policy| {
            policy["respond"]["on"] = json!("all");
            policy["limits"] = json!({"agents_per_response": 1, "over_limit": "observe"});
        })
        .await;
        assert_eq!(state(&response(&admin, "1", "203.0.113.1").await), ("active", ""));
        app.enrol(&admin, "web-02", &json!({})).await;
        assert_eq!(state(&response(&admin, "2", "203.0.113.2").await), ("observed", "over_limit"));
    }

    async fn escalation_climbs_for_a_returning_source_and_decays(database: Database) {
        let ladder = json!({"ladder": ["30m", "2h"], "forget_after": "7d"});
        let (app, admin, _agent) = with_policy(database, |policy| policy["respond"]["escalate"] = ladder).await;
        for (n, minutes) in [10, 30, 120, 120].into_iter().enumerate() {
            let made = response(&admin, &format!("{n}"), "203.0.113.7").await;
            assert_eq!(lasts_secs(&made), minutes * 60, "offence {n}");
            // While the block is in force, further alerts belong to the same offence.
            let same = response(&admin, &format!("same-{n}"), "203.0.113.7").await;
            assert_eq!(lasts_secs(&same), minutes * 60, "offence {n} again");
            app.advance(3 * 3600);
            app.in_time("everything is over", || async {
                admin.list("/v1/responses?state=active").await.is_empty().then_some(())
            })
            .await;
        }
        assert_eq!(lasts_secs(&response(&admin, "other", "203.0.113.8").await), 600, "another source begins anew");
        app.advance(8 * 86_400);
        assert_eq!(lasts_secs(&response(&admin, "late", "203.0.113.7").await), 600, "a week is enough");
    }

    async fn a_quorum_of_others_carries_a_response_out_exactly_once(database: Database) {
        let (app, admin, agent) = with_policy(database, |policy| {
            policy["mode"] = json!("approve");
            policy["approval"] = json!({"quorum": 2, "within": "15m"});
        })
        .await;
        let waiting = response(&admin, "1", "203.0.113.7").await;
        assert_eq!(state(&waiting), ("awaiting_approval", ""));
        assert!(agent.owed().await.is_empty());
        let mut people = Vec::new();
        for n in 0..6 {
            people.push(app.person(&admin, &format!("analyst-{n}"), "analyst").await);
        }
        say(&people[0], &waiting, "approve").await.is(200);
        say(&people[0], &waiting, "approve").await.is_problem(409);
        app.advance(60);
        // The rest at once: one of them is the second approval.
        let answers = futures_util::future::join_all(people[1..].iter().map(|who| say(who, &waiting, "approve"))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        let carried = find(&admin, waiting["id"].as_str().unwrap()).await;
        assert_eq!((state(&carried).0, lasts_secs(&carried)), ("active", 660), "its time begins when it is approved");
        assert_eq!(carried["commands"].as_array().unwrap().len(), 1);
        assert_eq!(agent.owed_one().await.target.value(), "203.0.113.7");
    }

    async fn one_rejection_is_enough_and_silence_does_what_the_policy_says(database: Database) {
        let (app, admin, agent) = with_policy(database, |policy| policy["mode"] = json!("approve")).await;
        let rejected = response(&admin, "1", "203.0.113.1").await;
        say(&admin, &rejected, "reject").await.is(200);
        let person = app.person(&admin, "alice", "analyst").await;
        say(&person, &rejected, "approve").await.is_problem(409);
        let lapses = response(&admin, "2", "203.0.113.2").await;
        let mut policy = drop_policy("enforce");
        policy["mode"] = json!("approve");
        policy["approval"] = json!({"on_silence": "enforce"});
        policy["match"] = json!([{"rule_ids": ["5763"], "when": "source.ip == '203.0.113.3'"}]);
        admin.policy(&policy).await;
        post(&admin, "3", "203.0.113.3").await;
        app.advance(15 * 60 + 1);
        app.in_time("silence is over", || async {
            admin.list("/v1/responses?state=awaiting_approval").await.is_empty().then_some(())
        })
        .await;
        assert_eq!(state(&find(&admin, rejected["id"].as_str().unwrap()).await).0, "rejected");
        assert_eq!(state(&find(&admin, lapses["id"].as_str().unwrap()).await).0, "lapsed");
        assert_eq!(agent.owed_one().await.target.value(), "203.0.113.3");
        assert_eq!(admin.get("/v1/audit/verify").await.is(200)["intact"], true);
    }

    async fn a_response_that_acted_first_is_undone_unless_it_is_confirmed(database: Database) {
        let approval = json!({"undo_unless_confirmed": "5m"});
        let (app, admin, _agent) = with_policy(database, |policy| policy["approval"] = approval).await;
        let confirmed = response(&admin, "1", "203.0.113.1").await;
        let forgotten = response(&admin, "2", "203.0.113.2").await;
        assert_eq!((state(&confirmed).0, state(&forgotten).0), ("active", "active"));
        say(&admin, &confirmed, "confirm").await.is(200);
        say(&admin, &confirmed, "confirm").await.is_problem(409);
        app.advance(301);
        let path = forgotten["id"].as_str().unwrap();
        app.in_time("the unconfirmed one is undone", || async {
            (state(&find(&admin, path).await) == ("ended", "unconfirmed")).then_some(())
        })
        .await;
        assert_eq!(state(&find(&admin, confirmed["id"].as_str().unwrap()).await).0, "active");
    }
}

#[tokio::test]
async fn a_condition_in_cel_is_checked_when_it_is_saved_and_cannot_stop_other_policies() {
    let (app, admin) = TestApp::start().await;
    app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
    let mut policy = drop_policy("cel");
    for (when, word) in
        [("rule.level >", "line 1"), ("dat.url == 'x'", "did you mean data?"), ("1 + 1", "true or false")]
    {
        policy["match"][0]["when"] = json!(when);
        let problem = admin.post("/v1/policies", &policy).await;
        assert_eq!(problem.points_at(), ["/match/0/when"], "{when}");
        assert!(problem.text.contains(word), "{}", problem.text);
    }
    policy["match"][0]["when"] = json!("data.nothing.there > 3");
    admin.policy(&policy).await;
    admin.policy(&drop_policy("plain")).await;
    let made = response(&admin, "1", "203.0.113.7").await;
    assert_eq!(made["policy"], "plain");
}
