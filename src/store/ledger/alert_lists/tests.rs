//! Lists agree with their filters, whatever the alerts are, and no list reads the alerts that its filter leaves out.

use super::*;
use crate::store::database::{plan, reads_whole};

/// Agents, rules and levels of the alerts: one rule has two levels, and some alerts have no agent.
const AGENTS: [Option<&str>; 4] = [Some("001"), Some("002"), Some("003"), None];
const RULES: [(&str, i64); 5] = [("100", 3), ("100", 12), ("200", 3), ("300", 7), ("5", 0)];
/// What the alerts' own times are apart from their receipt, in milliseconds: the last three are astray.
const APART: [i64; 6] = [0, -1_000, 5_000, -5_001, 60_000, -86_400_000];
const START: i64 = 1_795_514_400_000;

/// An alert as a filter sees it.
#[derive(Clone, Debug)]
struct Told {
    id: String,
    agent: Option<&'static str>,
    rule: (&'static str, i64),
    time: i64,
}

impl Told {
    fn is_taken(&self, filter: &AlertFilter) -> bool {
        let AlertFilter { rule_id, min_level, agent_id, since, until, .. } = filter;
        rule_id.as_deref().is_none_or(|rule| rule == self.rule.0)
            && min_level.is_none_or(|level| self.rule.1 >= level)
            && agent_id.as_deref().is_none_or(|agent| Some(agent) == self.agent)
            && since.is_none_or(|since| self.time >= since.as_millis())
            && until.is_none_or(|until| self.time < until.as_millis())
    }
}

/// A ledger with alerts of every kind, several in some milliseconds, and what it has, newest first.
async fn ledger() -> (tempfile::TempDir, Db, Vec<Told>) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    let (mut told, mut rows) = (Vec::new(), Vec::new());
    for number in 0..1_500_i64 {
        // Without a pattern, and the same in every run.
        let nth = |salt: i64, of: usize| {
            let mixed = (number * 7 + salt).wrapping_mul(2_654_435_761) >> 7;
            usize::try_from(mixed.rem_euclid(1_000_003)).unwrap() % of
        };
        let received = START + number / 3 * 400;
        let at = u128::try_from(received).unwrap() << 80 | u128::try_from(number).unwrap();
        let id = Uuid::from_u128(at);
        let (agent, rule, apart) = (AGENTS[nth(1, 4)], RULES[nth(2, 5)], APART[nth(3, 6)]);
        let time = received + apart;
        let is_astray = super::super::alerts::is_astray(&id, Timestamp::from_millis(time));
        assert_eq!(is_astray, apart.abs() > 5_000);
        rows.push(binds![
            id,
            number.to_be_bytes().to_vec(),
            "wazuh",
            time,
            agent,
            rule.0,
            rule.1,
            Vec::from("x"),
            is_astray
        ]);
        told.push(Told { id: id.to_string(), agent, rule, time });
    }
    let mut tx = db.begin().await.unwrap();
    let insert =
        "INSERT INTO alerts (id, dedupe, pipeline, time, agent_id, rule_id, rule_level, raw, is_astray) VALUES {9}";
    tx.execute_rows(insert, rows, vec![]).await.unwrap();
    tx.commit().await.unwrap();
    told.reverse();
    (dir, db, told)
}

/// Every combination of filters, each with a value that takes much, little and nothing.
fn filters() -> Vec<AlertFilter> {
    let at = |seconds: i64| Some(Timestamp::from_millis(START + seconds * 1000));
    let times =
        [(None, None), (at(100), None), (None, at(30)), (at(60), at(61)), (at(-86_400), at(-86_300)), (at(900), None)];
    let mut filters = Vec::new();
    for rule in [None, Some("100"), Some("5"), Some("never")] {
        for min_level in [None, Some(0), Some(4), Some(12), Some(16)] {
            for agent in [None, Some("001"), Some("never")] {
                for (since, until) in times {
                    let (rule_id, agent_id) = (rule.map(str::to_owned), agent.map(str::to_owned));
                    filters.push(AlertFilter { source_id: None, rule_id, min_level, agent_id, since, until });
                }
            }
        }
    }
    filters
}

#[tokio::test]
async fn a_list_is_what_its_filter_takes_page_by_page() {
    let (_dir, db, told) = ledger().await;
    for filter in filters() {
        let expected: Vec<&str> =
            told.iter().filter(|alert| alert.is_taken(&filter)).map(|alert| alert.id.as_str()).collect();
        for limit in [7, 1_000] {
            let (mut listed, mut before) = (Vec::new(), None);
            // Some pages of each are enough, and the end of those that are short.
            while listed.len() < 60 {
                let page = list(&db, filter.clone(), before, limit).await.unwrap();
                listed.extend(page.iter().map(|alert| alert.id.clone()));
                before = page.last().map(|alert| alert.id.parse().unwrap());
                if i64::try_from(page.len()).unwrap() < limit {
                    assert_eq!(listed.len(), expected.len(), "{filter:?}");
                    break;
                }
            }
            assert_eq!(listed, expected[..listed.len()], "{filter:?}");
        }
    }
}

#[tokio::test]
async fn no_list_reads_what_its_filter_leaves_out() {
    for (name, sql) in STATEMENTS {
        let whole = reads_whole(sql).await;
        let tables = ["SCAN alerts", "SCAN kinds", "SCAN seen"];
        assert!(!whole.iter().any(|step| tables.iter().any(|table| step.starts_with(table))), "{name}: {whole:?}");
    }
    let by_kind = "alerts_kind (rule_level=? AND rule_id=? AND is_astray=? AND <expr>";
    let by_agent = "alerts_agent (agent_id=? AND rule_level=? AND rule_id=? AND is_astray=? AND <expr>";
    let uses = [
        (NEWEST, "(id<?)", 1),
        (NEWEST_FROM_LEVEL, "(id>? AND id<?)", 1),
        (TIMED, "(id>? AND id<?)", 1),
        (ASTRAY, "COVERING INDEX alerts_astray (id<?)", 1),
        (ASTRAY_BETWEEN, "COVERING INDEX alerts_astray_time (time>? AND time<?)", 1),
        (OF_SOURCE, "alerts_pipeline_id (pipeline_id=?", 1),
        (KINDS, "alerts_kind (rule_level>?)", 1),
        (KINDS, "alerts_kind ((rule_level,rule_id,is_astray)>(?,?,?))", 1),
        (KINDS_OF_AGENT, "alerts_agent (agent_id=?)", 1),
        (KINDS_OF_AGENT, "alerts_agent (agent_id=? AND (rule_level,rule_id,is_astray)>(?,?,?))", 1),
        (LEVELS, "alerts_kind (rule_level>?)", 2),
        (PAGE_OF_KINDS, by_kind, 3),
        (PAGE_OF_AGENT, by_agent, 3),
    ];
    for (statement, index, times) in uses {
        let plan = plan(statement).await;
        assert_eq!(plan.iter().filter(|step| step.contains(index)).count(), times, "{statement}: {plan:?}");
    }
}
