//! What `riposte top` prints elsewhere than at a terminal: one block of text.

use super::look::{TopRates, TopState};
use crate::cli::night::phrases::len;

/// The sums of rates: alerts and responses of the last 5 minutes and of the last hour.
pub fn sums(rates: &TopRates) -> [(&'static str, u64, u64); 2] {
    let sum = |name, steps: &[u64]| (name, steps.last().copied().unwrap_or_default(), steps.iter().sum());
    [sum("alerts", &rates.alerts), sum("responses", &rates.responses)]
}

/// The lines; cells may hold anything.
pub fn lines(state: &TopState) -> Vec<String> {
    let mut lines = vec![format!("at {}", state.at)];
    match &state.rates {
        Some(rates) => {
            for (name, now, hour) in sums(rates) {
                lines.push(format!("{name:10} {now} in 5 min, {hour} in 1 h"));
            }
            let failures = rates.failures.iter().map(|(action, state, count)| format!("{count} {action} {state}"));
            let failures: Vec<String> = failures.collect();
            let none = if failures.is_empty() { "none in 1 h".to_owned() } else { failures.join(", ") };
            lines.push(format!("failures   {none}"));
        }
        None => lines.push("rates      need an unlimited scope".to_owned()),
    }
    if !state.frozen.is_empty() {
        lines.push(state.frozen.clone());
    }
    lines.push(format!("waiting    {}", state.waits));
    lines.extend(state.waiting.iter().map(|[what, by, lapses]| format!("  {what}, by {by}, lapses {lapses}")));
    lines.push(format!("undo fails {}", state.fails));
    let failing = state.failing.iter();
    lines.extend(failing.map(|[agent, what, times, why]| format!("  {agent}: {what}, {times}: {why}")));
    let agents = &state.agents;
    lines.push(format!("away       {} of {} agents", agents.away, agents.enrolled));
    lines.extend(agents.rows.iter().map(|[name, since]| format!("  {name}, last here {since}")));
    let others = i64::try_from(agents.away).unwrap_or(i64::MAX) - len(&agents.rows);
    if others > 0 {
        lines.push(format!("  and {others} more; `riposte agent list --away` lists them"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::state;
    use super::*;
    use crate::cli::terminal::plain;

    #[test]
    fn the_block_says_everything_once() {
        let mut state = state();
        state.agents.away = 3;
        let shown: Vec<String> = lines(&state).iter().map(|line| plain(line)).collect();
        insta::assert_snapshot!(shown.join("\n"));
        state.rates = None;
        assert!(lines(&state).contains(&"rates      need an unlimited scope".to_owned()));
    }
}
