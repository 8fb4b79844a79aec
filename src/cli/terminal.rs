//! Output for people: tables, colours on a terminal only, and confirmations. Control characters of
//! a manager or a file never reach the terminal.

use std::io::{IsTerminal as _, Write as _};

use riposte_protocol::visible::is_hidden;

use super::output::{complain, say};

/// The text with hidden characters as U+FFFD, so that no input can control the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// The same for a text of several lines, which stay lines.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// JSON text whose hidden characters are escapes, so that it reads the same and cannot control the terminal.
pub fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        // JSON itself escapes the control characters of ASCII but DEL in strings; elsewhere they are its white space.
        if is_hidden(c) && !matches!(c, '\0'..='\u{1f}') {
            text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

/// A value that may be absent, or a text that may be empty, as a table shows it.
pub fn cell(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
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

/// Style of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// New or good.
    Good,
    /// Removed or bad.
    Bad,
    /// Unchanged.
    Quiet,
}

/// Prints a line, coloured on a terminal unless `NO_COLOR` is set.
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

/// Asks for confirmation; only a plain yes confirms.
pub fn is_confirmed(question: &str) -> bool {
    let _ = write!(std::io::stderr(), "{} [y/N] ", plain(question));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Asks for a line of text.
///
/// # Errors
/// If the input has ended.
pub fn ask(question: &str) -> anyhow::Result<String> {
    let _ = write!(std::io::stderr(), "{}: ", plain(question));
    let mut answer = String::new();
    anyhow::ensure!(std::io::stdin().read_line(&mut answer)? > 0, "the input has ended");
    Ok(answer.trim().to_owned())
}

/// Asks for a secret, which the terminal does not show.
///
/// # Errors
/// If there is no terminal.
pub fn ask_secret(question: &str) -> anyhow::Result<String> {
    Ok(rpassword::prompt_password(format!("{}: ", plain(question)))?)
}

/// Reports a missing `--yes` in a script.
pub fn needs_yes(what: &str) -> std::process::ExitCode {
    complain(&format!(
        "riposte: {what} asks before it changes anything, and the input is not a terminal: add --yes, or --dry-run to look"
    ));
    std::process::ExitCode::from(2)
}

/// A progress line that is updated in place; on a terminal only.
#[derive(Debug, Default)]
pub struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    /// Updates the progress.
    pub fn show(&mut self, text: &str) {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            self.shown = true;
            let _ = write!(stderr, "\r\u{1b}[K{}", plain(text));
            let _ = stderr.flush();
        }
    }
}

impl Drop for ProgressLine {
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
    fn json_stays_the_same_json_and_cannot_control_a_terminal() {
        let value = serde_json::json!({"name": "a\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0041}é🦀\n"});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = escaped(&json);
            assert!(shown.chars().all(|c| c == '\n' || !is_hidden(c)), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn no_output_can_control_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        // A name that reads backwards, and one that reads like another.
        assert_eq!(plain("exe.\u{202e}gpj ad\u{200b}min \u{2066}x"), "exe.\u{fffd}gpj ad\u{fffd}min \u{fffd}x");
        assert_eq!(plain_lines("400: wrong\n  /name: \u{9b}2J\u{202e}"), "400: wrong\n  /name: \u{fffd}2J\u{fffd}");
    }
}
