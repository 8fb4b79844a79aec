//! The report as one HTML page that needs nothing else: no script, no picture, no font. askama escapes every value;
//! hidden characters become visible ones.

use askama::Template;

use super::figures::{AccessReview, ContainFigures, MonthReport};
use crate::cli::terminal::plain;
use crate::views::columns::Millis;

/// A table: its title, what stands above the columns, and its rows.
struct ReportTable {
    title: &'static str,
    about: String,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage<'a> {
    report: &'a MonthReport,
    tables: Vec<ReportTable>,
}

/// The page of a report.
///
/// # Errors
/// If it cannot be written.
pub fn html(report: &MonthReport) -> anyhow::Result<String> {
    let mut tables = vec![states(report), blocks(report), contained(report), undone(report), decisions(report)];
    tables.push(spared(report));
    if let Some(access) = &report.access {
        tables.extend([people(access), keys(access)]);
    }
    for cell in tables.iter_mut().flat_map(|table| table.rows.iter_mut().flatten()) {
        *cell = plain(cell);
    }
    Ok(ReportPage { report, tables }.render()?)
}

fn states(report: &MonthReport) -> ReportTable {
    ReportTable {
        title: "Responses by state",
        about: format!("{} responses were decided in the month; their states are those of today.", report.decided),
        head: vec!["state", "responses"],
        rows: report.by_state.iter().map(|(state, count)| vec![state.replace('_', " "), count.to_string()]).collect(),
    }
}

/// A policy, or by whom without one.
fn policy(name: Option<&String>) -> String {
    name.cloned().unwrap_or_else(|| "by hand".to_owned())
}

fn time(millis: Option<u64>) -> String {
    match millis {
        None => "not known".to_owned(),
        Some(millis @ 0..1000) => format!("{millis} ms"),
        Some(millis @ 1000..120_000) => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        Some(millis) => format!("{} min", millis / 60_000),
    }
}

fn times(figures: &ContainFigures) -> Vec<String> {
    let ContainFigures { verified, unverified, p50_millis, p95_millis, p99_millis } = figures;
    vec![verified.to_string(), unverified.to_string(), time(*p50_millis), time(*p95_millis), time(*p99_millis)]
}

const TIMES: [&str; 5] = ["verified", "not verified", "p50", "p95", "p99"];

fn blocks(report: &MonthReport) -> ReportTable {
    let row = |block: &super::figures::BlockFigures| {
        let first = vec![
            policy(block.policy.as_ref()),
            block.action.clone(),
            block.responses.to_string(),
            block.targets.to_string(),
        ];
        [first, times(&block.time_to_contain)].concat()
    };
    ReportTable {
        title: "Blocks",
        about: "Responses that acted, by policy and action.".to_owned(),
        head: [&["policy", "action", "responses", "targets"][..], &TIMES].concat(),
        rows: report.blocks.iter().map(row).collect(),
    }
}

fn contained(report: &MonthReport) -> ReportTable {
    ReportTable {
        title: "Time to contain",
        about: "From the decision, or the last approval, to the first effect that an agent verified, by the manager's \
                clock. Quantiles are nearest ranks."
            .to_owned(),
        head: TIMES.to_vec(),
        rows: vec![times(&report.time_to_contain)],
    }
}

fn undone(report: &MonthReport) -> ReportTable {
    let undone = &report.undone;
    let share =
        undone.share_by_people.map_or_else(|| "not known".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let mut rows = vec![
        vec!["lifted by people".to_owned(), undone.by_people.to_string()],
        vec!["ended on time".to_owned(), undone.by_time.to_string()],
        vec!["share lifted by people".to_owned(), share],
        vec!["still active".to_owned(), undone.active.to_string()],
    ];
    rows.extend(undone.otherwise.iter().map(|(reason, count)| vec![format!("ended: {reason}"), count.to_string()]));
    ReportTable {
        title: "Undone",
        about: "How the responses that acted have ended.".to_owned(),
        head: vec!["how", "responses"],
        rows,
    }
}

fn decisions(report: &MonthReport) -> ReportTable {
    let row = |figures: &super::figures::DecisionFigures| {
        let counts = [figures.approved, figures.rejected, figures.confirmed, figures.break_glass];
        std::iter::once(figures.who.clone()).chain(counts.map(|count| count.to_string())).collect()
    };
    ReportTable {
        title: "Decisions of people",
        about: "Breaking the glass lets a response act without the approvals that it needs.".to_owned(),
        head: vec!["who", "approved", "rejected", "confirmed", "broke the glass"],
        rows: report.decisions.iter().map(row).collect(),
    }
}

fn spared(report: &MonthReport) -> ReportTable {
    let row = |figures: &super::figures::SparedFigures| {
        vec![policy(figures.policy.as_ref()), figures.reason.replace('_', " "), figures.responses.to_string()]
    };
    ReportTable {
        title: "Spared",
        about: "Responses that a guardrail stopped before they acted.".to_owned(),
        head: vec!["policy", "by what", "responses"],
        rows: report.spared.iter().map(row).collect(),
    }
}

fn at(at: Option<Millis>, none: &str) -> String {
    at.map_or_else(|| none.to_owned(), |at| at.to_string())
}

fn people(access: &AccessReview) -> ReportTable {
    let row = |person: &super::figures::PersonAccess| {
        let codes = if person.one_time_codes { "yes" } else { "NO" };
        vec![
            person.name.clone(),
            person.role.to_owned(),
            person.state.clone(),
            codes.to_owned(),
            at(person.last_login, "never"),
        ]
    };
    ReportTable {
        title: "Access: people",
        about: "As it is when the report is made.".to_owned(),
        head: vec!["name", "role", "state", "one-time codes", "last login"],
        rows: access.people.iter().map(row).collect(),
    }
}

fn keys(access: &AccessReview) -> ReportTable {
    let row = |key: &super::figures::KeyAccess| {
        let ends = match key.revoked {
            Some(revoked) => format!("revoked {revoked}"),
            None => at(key.ends, "until revoked"),
        };
        vec![
            key.name.clone(),
            key.role.to_owned(),
            key.person.clone().unwrap_or_else(|| "a program".to_owned()),
            key.created.to_string(),
            at(key.last_used, "never"),
            ends,
        ]
    };
    ReportTable {
        title: "Access: API keys",
        about: "As it is when the report is made.".to_owned(),
        head: vec!["name", "role", "of", "created", "last use", "end"],
        rows: access.keys.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::report;
    use super::*;

    #[test]
    fn the_page_is_whole_and_shows_hostile_names_as_text() {
        let page = html(&report()).unwrap();
        for markup in ["<script", "<img", "<b>", "onerror=alert(1)>", "\u{202e}", "http://", "https://"] {
            assert!(!page.contains(markup), "{markup}: {page}");
        }
        insta::assert_snapshot!(page);
    }

    #[test]
    fn times_are_in_a_unit_that_fits() {
        let table = [
            (None, "not known"),
            (Some(999), "999 ms"),
            (Some(1250), "1.2 s"),
            (Some(119_999), "119.9 s"),
            (Some(120_000), "2 min"),
        ];
        for (millis, words) in table {
            assert_eq!(time(millis), words);
        }
    }
}
