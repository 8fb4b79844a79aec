//! How lists and single things are printed: a table for people, or JSON, JSON lines, YAML or names for programs; once,
//! or again whenever it may have changed.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::client::Remote;
use super::output::say;
use super::reply::Said;
use super::terminal::{escaped, plain, plain_lines, table};

/// Time between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// YAML.
    Yaml,
    /// Names or ids, one a line.
    Name,
}

/// Which manager to ask, and how to print what it says.
#[derive(Clone, Debug, Args)]
pub struct ShownArgs {
    /// Which manager.
    #[command(flatten)]
    pub remote: Remote,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    /// Print JSON, one object a line; as `-o jsonl`.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// Whether to print again and again.
#[derive(Clone, Copy, Debug, Args)]
pub struct WatchArgs {
    /// Print it again every 2 seconds, until interrupted.
    #[arg(short, long)]
    watch: bool,
}

/// A list that can be watched, of which the newest are shown.
#[derive(Clone, Debug, Args)]
pub struct WatchedArgs {
    /// Which manager, and the form.
    #[command(flatten)]
    pub shown: ShownArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub limit: u16,
}

/// How things of one kind are shown.
pub struct ListForm<'a, T> {
    /// What one and many are called.
    pub noun: (&'a str, &'a str),
    /// What stands above the columns of a table.
    pub head: &'a [&'a str],
    /// What stands above the further columns of a wide table.
    pub more: &'a [&'a str],
    /// The cells, those of a wide table included.
    pub row: &'a dyn Fn(&T) -> Vec<String>,
    /// What one is named by other commands.
    pub name: &'a dyn Fn(&T) -> String,
}

impl ShownArgs {
    /// The form that was asked for.
    pub const fn format(&self) -> Format {
        if self.json { Format::Jsonl } else { self.output }
    }

    /// Whether a person reads the output.
    pub fn is_for_people(&self) -> bool {
        matches!(self.format(), Format::Table | Format::Wide)
    }

    /// Prints one thing: `text` for people, else what the manager said.
    ///
    /// # Errors
    /// If it cannot be written as YAML.
    pub fn print_one<T>(&self, said: &Said<T>, name: &str, text: impl FnOnce(&T) -> Vec<String>) -> anyhow::Result<()> {
        match self.format() {
            Format::Table | Format::Wide => text(&said.view).iter().for_each(|line| say(&plain(line))),
            Format::Json | Format::Jsonl => self.print_json(&said.json)?,
            Format::Yaml => say(&yaml(&said.json)?),
            Format::Name => say(&plain(name)),
        }
        Ok(())
    }

    /// Prints one thing as JSON: on one line with `-o jsonl`.
    fn print_json(&self, json: &impl Serialize) -> anyhow::Result<()> {
        let is_line = self.format() == Format::Jsonl;
        let text = if is_line { serde_json::to_string(json)? } else { serde_json::to_string_pretty(json)? };
        say(&escaped(&text));
        Ok(())
    }

    /// Prints a list. `left_out` says what is not in it, such as `3 agents are hidden by the filter`.
    ///
    /// # Errors
    /// If it cannot be written as YAML.
    pub fn print<T>(&self, items: &[Said<T>], form: &ListForm<'_, T>, left_out: &[String]) -> anyhow::Result<()> {
        let json: Vec<_> = items.iter().map(|item| &item.json).collect();
        let columns = form.head.len();
        let wide = || [form.head, form.more].concat();
        match self.format() {
            Format::Json => self.print_json(&json)?,
            Format::Jsonl => json.iter().try_for_each(|item| self.print_json(item))?,
            Format::Yaml => say(&yaml(&json)?),
            Format::Name => items.iter().for_each(|item| say(&plain(&(form.name)(&item.view)))),
            Format::Table | Format::Wide if items.is_empty() => say(&format!("no {}", form.noun.1)),
            format @ (Format::Table | Format::Wide) => {
                let is_wide = format == Format::Wide;
                let mut rows: Vec<Vec<String>> = items.iter().map(|item| (form.row)(&item.view)).collect();
                rows.iter_mut().filter(|_| !is_wide).for_each(|row| row.truncate(columns));
                table(if is_wide { wide() } else { form.head.to_vec() }.as_slice(), &rows);
            }
        }
        if self.is_for_people() {
            for line in left_out {
                say(&plain(line));
            }
        }
        Ok(())
    }
}

/// The YAML of `value`. A terminal does not get the hidden characters that YAML keeps.
fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    let text = yaml_serde::to_string(value)?;
    Ok(if std::io::stdout().is_terminal() { plain_lines(&text) } else { text.trim_end().to_owned() })
}

impl WatchArgs {
    /// Runs `look` once, or again and again.
    ///
    /// # Errors
    /// That of a look.
    pub async fn again(self, look: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let is_terminal = std::io::stdout().is_terminal();
        loop {
            if self.watch && is_terminal {
                say("\u{1b}[H\u{1b}[2J\u{1b}[3J");
            }
            look().await?;
            if !self.watch {
                return Ok(());
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

impl WatchedArgs {
    /// Runs `look` once, or again and again.
    ///
    /// # Errors
    /// That of a look.
    pub async fn again(&self, look: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.watch.again(look).await
    }

    /// The same, watched.
    #[must_use]
    pub const fn watching(mut self) -> Self {
        self.watch.watch = true;
        self
    }

    /// That there are more, if there are.
    pub fn more(&self, is_more: bool, noun: &str) -> Vec<String> {
        let limit = self.limit;
        let more = format!("further {noun} are not shown; --limit COUNT shows more than {limit}, up to 500");
        Vec::from_iter(is_more.then_some(more))
    }
}
