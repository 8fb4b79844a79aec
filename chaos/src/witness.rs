//! What an agent really did, read from its log. `log-only` writes one line for every execution,
//! with a bare `write` that survives `kill -9`. It is independent of the journal, and the two are
//! compared.

use std::path::Path;

use riposte_protocol::time::Timestamp;

/// One deed of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It brought this target's effect into force.
    Applied(String),
    /// It ran the program without a lasting effect, with this target.
    Ran(String),
    /// It lifted this target's effect.
    Reverted(String),
    /// It finished a command.
    Done {
        command: String,
        /// `succeeded`, `failed`, `timed_out` or `refused`.
        outcome: String,
        /// The reason, for people.
        reason: String,
    },
}

/// A deed and its time, in Unix milliseconds.
pub(crate) type Witnessed = (i64, Deed);

/// The deeds that the program without a lasting effect has recorded.
pub(crate) fn ran(file: &Path) -> Vec<Witnessed> {
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
    text.lines().map(|line| (0, Deed::Ran(line.to_owned()))).collect()
}

/// The deeds in a log, in order, and the lines that no log may contain.
pub(crate) fn read(log: &Path) -> (Vec<Witnessed>, Vec<String>) {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let wrong = text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect();
    (text.lines().filter_map(parse).collect(), wrong)
}

fn parse(line: &str) -> Option<Witnessed> {
    let at: Timestamp = line.split_whitespace().next()?.parse().ok()?;
    let target = || Some(line.split_once("target=ip ")?.1.split_whitespace().next()?.to_owned());
    let deed = if line.contains("log-only: applied") {
        Deed::Applied(target()?)
    } else if line.contains("log-only: reverted") {
        Deed::Reverted(target()?)
    } else {
        let (_, rest) = line.split_once("command=")?;
        let (command, rest) = rest.split_once(" outcome=")?;
        let (outcome, reason) = rest.split_once(" reason=")?;
        let bare = |text: &str| text.trim_matches('"').to_owned();
        Deed::Done { command: command.into(), outcome: bare(outcome), reason: bare(reason) }
    };
    Some((at.as_millis(), deed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let applied = r#"2026-11-24T11:00:00.250000Z  INFO riposte_agent::actions::log_only: log-only: applied action="log-only" target=ip 10.0.0.1 arguments="""#;
        assert_eq!(parse(applied).unwrap().1, Deed::Applied("10.0.0.1".into()));
        let done = r#"2026-11-24T11:00:00.250000Z  INFO riposte_agent::executor::execute: command done command=0193 outcome="succeeded" reason="in force""#;
        let deed = Deed::Done { command: "0193".into(), outcome: "succeeded".into(), reason: "in force".into() };
        assert_eq!(parse(done).unwrap().1, deed);
        assert_eq!(parse("thread 'main' panicked at x"), None);
    }
}
