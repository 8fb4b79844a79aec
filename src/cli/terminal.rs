//! What commands have in common when they talk to people: tables, colours on a terminal only, and the question before
//! something is changed. Nothing that a manager or a file says reaches a terminal with its control characters.

use std::io::{IsTerminal as _, Write as _};

use riposte_protocol::visible::is_hidden;

use super::{complain, say};

/// The text with every hidden character as U+FFFD, so that no answer can steer a terminal or its reader.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// The same for a text of several lines, which stay lines.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Prints `rows` in columns below `head`.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|word| word.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        say(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&head.iter().map(|word| word.to_uppercase()).collect::<Vec<_>>());
    for row in &rows {
        line(row);
    }
}

/// How a line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something new, or good.
    Good,
    /// Something gone, or bad.
    Bad,
    /// As it was.
    Quiet,
}

/// Prints a line, in colour if a person sees it and has not asked for none (`NO_COLOR`).
pub fn shade(tone: Tone, line: &str) {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty());
    match tone {
        Tone::Good if colour => say(&format!("\u{1b}[32m{line}\u{1b}[0m")),
        Tone::Bad if colour => say(&format!("\u{1b}[31m{line}\u{1b}[0m")),
        Tone::Good | Tone::Bad | Tone::Quiet => say(line),
    }
}

/// Whether a question can be answered: the input is a terminal.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks, and takes anything but a plain yes for no.
pub fn is_confirmed(question: &str) -> bool {
    let _ = write!(std::io::stderr(), "{} [y/N] ", plain(question));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Tells a script that forgot `--yes`.
pub fn needs_yes(what: &str) -> std::process::ExitCode {
    complain(&format!(
        "riposte: {what} asks before it changes anything, and the input is not a terminal: add --yes, or --dry-run to look"
    ));
    std::process::ExitCode::from(2)
}

/// A line that stays in its place while work goes on; on a terminal only.
#[derive(Debug, Default)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Says how far it is.
    pub fn show(&mut self, text: &str) {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            self.shown = true;
            let _ = write!(stderr, "\r\u{1b}[K{}", plain(text));
            let _ = stderr.flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        // A name that reads backwards, and one that reads like another.
        assert_eq!(plain("exe.\u{202e}gpj ad\u{200b}min \u{2066}x"), "exe.\u{fffd}gpj ad\u{fffd}min \u{fffd}x");
        assert_eq!(plain_lines("400: wrong\n  /name: \u{9b}2J\u{202e}"), "400: wrong\n  /name: \u{fffd}2J\u{fffd}");
    }
}
