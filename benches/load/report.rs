//! The printed report: one plain table, each figure with its limit, their ratio, and DESIGN's
//! requirement.

use std::fmt::Write as _;
use std::io::Write as _;

/// Prints a line; a reader that has gone away is no error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints the machine and its load: other work on the machine makes a figure worthless.
pub(crate) fn begin(bench: &str) -> anyhow::Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let cores = std::thread::available_parallelism()?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    say(&format!("{bench}: riposte {}, {cores} cores, loadavg {} at start", env!("CARGO_PKG_VERSION"), load.join(" ")));
    if load.first().and_then(|one| one.parse::<f64>().ok()).is_some_and(|one| one > 0.3) {
        say("NOISY: other work ran within the last minute; ratios taken beside it are not usable");
    }
    Ok(())
}

/// Rows of: what, figure, limit, ratio, must, aim.
#[derive(Default)]
pub(crate) struct Table(Vec<[String; 6]>);

impl Table {
    /// Adds a figure; `limit` is what the machine does without Riposte.
    pub(crate) fn row(&mut self, what: &str, figure: f64, unit: &str, limit: Option<f64>, must: &str, aim: &str) {
        let ratio =
            limit.filter(|limit| *limit > 0.0).map_or_else(String::new, |limit| format!("{:.2}", figure / limit));
        let limit = limit.map_or_else(String::new, number);
        let figure = format!("{} {unit}", number(figure));
        self.0.push([what.into(), figure.trim().to_owned(), limit, ratio, must.into(), aim.into()]);
    }

    pub(crate) fn print(&self) {
        let head = ["what", "figure", "limit", "ratio", "must", "aim"].map(String::from);
        let rows: Vec<&[String; 6]> = std::iter::once(&head).chain(&self.0).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for row in rows {
            let mut line = format!("{:width$}", row[0], width = widths[0]);
            for (text, width) in row.iter().zip(widths).skip(1) {
                let _ = write!(line, "  {text:>width$}");
            }
            say(line.trim_end());
        }
    }
}

/// Formats three significant digits.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// Bytes in a mebibyte.
pub(crate) const MIB: f64 = 1_048_576.0;

/// Samples of one quantity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the value that `share` (0 to 1) of the samples do not exceed; 0 if there are none.
    pub(crate) fn quantile(&mut self, share: f64) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a position"
        )]
        let position = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1);
        self.0.get(position).copied().unwrap_or(0.0)
    }

    pub(crate) fn median(&mut self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn max(&mut self) -> f64 {
        self.quantile(1.0)
    }

    /// Formats `[lowest..highest]`, the spread over the rounds.
    pub(crate) fn spread(&mut self) -> String {
        format!("[{}..{}]", number(self.quantile(0.0)), number(self.quantile(1.0)))
    }
}

/// Converts a count for arithmetic.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}
