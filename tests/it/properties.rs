//! Invariants under every order of events: random sequences and concurrent requests, on both
//! databases. The numbers come from a seed, so that a failure can be repeated.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use riposte_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::support::alert::{brute_force, drop_policy};
use crate::support::{Client, Database, TestApp};

/// Knuth's MMIX generator: another sequence for each seed, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

fn millis(row: &Value, key: &str) -> i64 {
    row[key].as_str().unwrap().parse::<Timestamp>().unwrap().as_millis()
}

async fn post(admin: &Client, rule: &str, id: &str, source: &str) -> Vec<Value> {
    let mut alert = brute_force(id, source);
    alert["rule"]["id"] = json!(rule);
    let answer = admin.post("/v1/alerts", &alert).await.is(202);
    answer["responses"].as_array().unwrap().clone()
}

on_both_databases! {
    async fn no_sequence_of_concurrent_alerts_exceeds_a_rate_or_a_radius(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        for seed in 0..6_u64 {
            let mut numbers = Numbers(seed);
            let (rate, radius, within) = (1 + numbers.below(6), 1 + numbers.below(4), 5 + numbers.below(50));
            let name = format!("limited-{seed}");
            let mut policy = drop_policy(&name);
            policy["match"] = json!([{"rule_ids": [name]}]);
            policy["limits"] = json!({"responses": format!("{rate}/{within}s"), "targets": format!("{radius}/{within}s"),
                "over_limit": "drop"});
            admin.policy(&policy).await;
            for round in 0..5 {
                let sources: Vec<u64> = (0..12).map(|_| numbers.below(8)).collect();
                join_all(sources.iter().enumerate().map(|(n, source)| {
                    let (admin, name) = (admin.clone(), name.clone());
                    async move { post(&admin, &name, &format!("{name} {round} {n}"), &format!("10.9.0.{source}")).await }
                }))
                .await;
                app.advance(numbers.below(within));
            }
            let acted = admin.list(&format!("/v1/responses?policy={name}")).await;
            assert_eq!(acted.len(), 60, "every alert has its answer");
            let acted: Vec<&Value> = acted.iter().filter(|row| row["state"] != "spared").collect();
            assert!(!acted.is_empty());
            for first in &acted {
                let from = millis(first, "created_at");
                let until = from + i64::try_from(within).unwrap() * 1000;
                let window: Vec<_> = acted.iter().filter(|row| (from..until).contains(&millis(row, "created_at"))).collect();
                let targets: BTreeSet<_> = window.iter().map(|row| row["target_value"].as_str().unwrap()).collect();
                assert!(window.len() as u64 <= rate, "seed {seed}: {} in {within}s, {rate} are allowed", window.len());
                assert!(targets.len() as u64 <= radius, "seed {seed}: {} targets, {radius} are allowed", targets.len());
            }
        }
    }

    async fn concurrent_approvals_never_carry_out_a_response_without_its_quorum(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut people = Vec::new();
        for n in 0..4 {
            people.push(app.person(&admin, &format!("analyst-{n}"), "analyst").await);
        }
        for seed in 0..8_u64 {
            let mut numbers = Numbers(seed + 100);
            let quorum = 1 + numbers.below(4);
            let name = format!("asks-{seed}");
            let mut policy = drop_policy(&name);
            policy["match"] = json!([{"rule_ids": [name]}]);
            policy["mode"] = json!("approve");
            policy["approval"] = json!({"quorum": quorum});
            admin.policy(&policy).await;
            let id = post(&admin, &name, &name, &format!("10.8.0.{seed}")).await[0].as_str().unwrap().to_owned();
            // Some approve twice, all at the same time.
            let who: Vec<u64> = (0..6).map(|_| numbers.below(4)).collect();
            join_all(who.iter().map(|who| {
                let (client, path) = (people[usize::try_from(*who).unwrap()].clone(), format!("/v1/responses/{id}/approve"));
                async move { client.post(&path, &json!({"reason": "yes"})).await.status }
            }))
            .await;
            let different = who.iter().collect::<BTreeSet<_>>().len() as u64;
            let response = admin.get(&format!("/v1/responses/{id}")).await.is(200);
            let expected = if different >= quorum { "active" } else { "awaiting_approval" };
            assert_eq!(response["state"], expected, "seed {seed}: {different} of {quorum}");
            let activated = admin.history("response", &id).await.iter().filter(|(_, verb)| verb == "activated").count();
            assert_eq!(activated, usize::from(different >= quorum), "seed {seed}: carried out once");
            let commands = response["commands"].as_array().unwrap().len();
            assert_eq!(commands, usize::from(different >= quorum), "seed {seed}");
        }
    }

    async fn promise_7_no_protected_target_is_ever_in_a_command_whichever_field_it_came_from(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        for (kind, value) in [("ip", "10.1.0.0/16"), ("ip", "203.0.113.9"), ("ip", "2001:db8:7::/48"), ("user", "backup")] {
            admin.post("/v1/protected", &json!({"kind": kind, "value": value, "reason": "ours"})).await.is(201);
        }
        let fields = ["source.ip", "destination.ip", "source.user", "destination.user"];
        for field in fields {
            let mut policy = drop_policy(&format!("at-{}", field.replace('.', "-")));
            let action = if field.ends_with("ip") { "firewall-drop" } else { "disable-account" };
            policy["respond"] = json!({"action": action, "target": field, "for": "10m"});
            admin.policy(&policy).await;
        }
        let addresses = ["10.1.2.3", "::ffff:10.1.2.3", "203.0.113.9", "203.0.113.8", "2001:db8:7::1", "2001:DB8:7:0::1",
            "2001:db8:8::1", "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "198.51.100.7"];
        let users = ["backup", "BACKUP", "Backup", "root", "ROOT", "SYSTEM", "alice", "bob"];
        let places = [("srcip", "dstip"), ("src_ip", "dest_ip")];
        let mut numbers = Numbers(7);
        for n in 0..60 {
            let mut alert = brute_force(&format!("p{n}"), "x");
            let (source, destination) = numbers.one_of(&places);
            let windows = numbers.below(3) == 0;
            let (a, b) = (*numbers.one_of(&addresses), *numbers.one_of(&addresses));
            let (u, v) = (*numbers.one_of(&users), *numbers.one_of(&users));
            alert["data"] = if windows {
                json!({"win": {"eventdata": {"ipAddress": a, "destinationIp": b, "subjectUserName": u, "targetUserName": v}}})
            } else {
                json!({*source: a, *destination: b, "srcuser": u, "dstuser": v})
            };
            admin.post("/v1/alerts", &alert).await.is(202);
        }
        let commands = admin.list("/v1/commands").await;
        let targets: BTreeSet<String> =
            commands.iter().map(|command| command["target_value"].as_str().unwrap().to_lowercase()).collect();
        let open = ["198.51.100.7", "2001:db8:8::1", "203.0.113.8", "alice", "bob"];
        assert_eq!(targets, open.map(str::to_owned).into(), "these and no others");
    }

    async fn promise_6_the_longest_of_overlapping_responses_wins_in_any_order(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        let agent = app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut numbers = Numbers(11);
        let mut standing: BTreeMap<String, Option<i64>> = BTreeMap::new();
        for step in 0..40 {
            if standing.is_empty() || numbers.below(3) > 0 {
                let minutes = numbers.below(60);
                let mut asked = json!({"action": "firewall-drop", "target": "203.0.113.7", "agents": ["web-01"], "reason": "x"});
                if minutes > 0 {
                    asked["for"] = json!(format!("{}m", minutes + 60));
                }
                let made = admin.post("/v1/responses", &asked).await.is(201);
                let until = made["until"].as_str().map(|_| millis(&made, "until"));
                standing.insert(made["id"].as_str().unwrap().to_owned(), until);
            } else {
                let ids: Vec<String> = standing.keys().cloned().collect();
                let id = numbers.one_of(&ids).clone();
                admin.post(&format!("/v1/responses/{id}/lift"), &json!({"reason": "x"})).await.is(200);
                standing.remove(&id);
            }
            if numbers.below(2) == 0 {
                agent.obey().await;
            }
            app.advance(1);
            let effects = admin.list("/v1/effects").await;
            match standing.values().copied().reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))) {
                None => assert!(effects.iter().all(|effect| effect["desired"] == "absent"), "step {step}: {effects:?}"),
                Some(longest) => {
                    assert_eq!(effects[0]["desired"], "in_force", "step {step}");
                    let until = effects[0]["until"].as_str().map(|_| millis(&effects[0], "until"));
                    assert_eq!(until, longest, "step {step}: {standing:?}");
                }
            }
        }
    }

    async fn escalation_climbs_and_decays_as_its_ladder_says(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        let mut policy = drop_policy("climbs");
        policy["respond"]["for"] = json!("1m");
        policy["respond"]["escalate"] = json!({"ladder": ["2m", "5m", "30m"], "forget_after": "1h"});
        admin.policy(&policy).await;
        let ladder = [60, 120, 300, 1800];
        let mut numbers = Numbers(3);
        // Per source: how often it was answered, when last, and until when.
        let mut known: BTreeMap<u64, (usize, i64, i64)> = BTreeMap::new();
        let mut now = 0_i64;
        for step in 0..60 {
            let source = numbers.below(3);
            let ids = post(&admin, "5763", &format!("e{step}"), &format!("10.7.0.{source}")).await;
            let response = admin.get(&format!("/v1/responses/{}", ids[0].as_str().unwrap())).await.is(200);
            let lasts = (millis(&response, "until") - millis(&response, "created_at")) / 1000;
            let (count, last, until) = known.get(&source).copied().unwrap_or((0, 0, 0));
            let remembered = if count > 0 && last + 3600 > now { count } else { 0 };
            // While one of its blocks is in force, another alert belongs to the same offence.
            let before = if until > now { remembered.saturating_sub(1) } else { remembered };
            let expected = ladder[before.min(3)];
            assert_eq!(lasts, expected, "step {step}, source {source}, {remembered} before, at {now}");
            known.insert(source, (before + 1, now, until.max(now + expected)));
            let wait = *numbers.one_of(&[1_u32, 30, 61, 200, 400, 1900, 4000]);
            app.advance(wait.into());
            now += i64::from(wait);
            // Wait until due blocks have ended, before the next alert comes.
            for _ in 0..100 {
                let due = |row: &Value| millis(row, "until") <= app.clock.now().as_millis();
                if !admin.list("/v1/responses?state=active").await.iter().any(due) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }

    async fn a_backtest_and_the_real_guardrails_say_the_same(database: Database) {
        let (app, admin) = TestApp::start_on(database).await;
        app.enrol(&admin, "web-01", &json!({"wazuh_id": "005"})).await;
        for seed in 0..4_u64 {
            let mut numbers = Numbers(seed + 40);
            let name = format!("both-{seed}");
            let mut policy = drop_policy(&name);
            policy["match"] = json!([{"rule_ids": [name]}]);
            if seed % 2 == 0 {
                policy["threshold"] = json!({"count": 2 + numbers.below(2), "within": "40s", "by": "source.ip"});
            }
            let over_limit = *numbers.one_of(&["drop", "approve"]);
            policy["limits"] = json!({"responses": format!("{}/1m", 3 + numbers.below(5)), "over_limit": over_limit,
                "targets": format!("{}/2m", 2 + numbers.below(3)), "cooldown": format!("{}s", 5 + numbers.below(20))});
            // Long enough that no approval expires and frees a place meanwhile.
            policy["approval"] = json!({"within": "1h"});
            admin.policy(&policy).await;
            for n in 0..60 {
                let source = format!("10.6.0.{}", numbers.below(6));
                let mut alert = brute_force(&format!("{name} {n}"), &source);
                alert["rule"]["id"] = json!(name);
                alert["timestamp"] = json!(app.clock.now());
                admin.post("/v1/alerts", &alert).await.is(202);
                app.advance(1 + numbers.below(9));
            }
            let counts = admin.get(&format!("/v1/policies/{name}/counts")).await.is(200);
            let report = admin.post("/v1/policies/backtest", &json!({"policy": policy})).await.is(200);
            let count = |state: &str| counts["responses"][state].as_u64().unwrap_or(0);
            let asked = count("awaiting_approval");
            assert_eq!(report["awaiting_approval"], asked, "seed {seed}: {counts} {report} {policy}");
            assert_eq!(report["responses"], count("active") + count("ended") + asked, "seed {seed}: {counts} {report}");
            assert_eq!(report["spared"], counts["spared"], "seed {seed}: {policy}");
            assert_eq!(report["targets"], counts["targets"], "seed {seed}");
            assert!(count("spared") > 0 && report["responses"].as_u64().unwrap() > 3, "seed {seed} shows little: {counts}");
        }
    }
}
