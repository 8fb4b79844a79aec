//! Lists of a manager: a table for people, or one JSON object a line for programs.

use clap::Args;
use serde::de::DeserializeOwned;

use super::client::Remote;
use super::output::say;
use super::reply::Said;
use super::terminal::table;

/// Which manager to ask, and how to print what it says.
#[derive(Debug, Args)]
pub struct Listing {
    /// Which manager.
    #[command(flatten)]
    pub remote: Remote,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl Listing {
    /// Prints every item of the list at `path`: its JSON, or its `row` below `columns`.
    ///
    /// # Errors
    /// If the manager cannot be asked, or refuses.
    pub async fn print<T: DeserializeOwned>(
        self,
        path: &str,
        columns: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        self.print_where(path, columns, row, |_| true).await
    }

    /// As [`Listing::print`], without the items that `is_listed` does not accept.
    ///
    /// # Errors
    /// As [`Listing::print`].
    pub async fn print_where<T: DeserializeOwned>(
        self,
        path: &str,
        columns: &[&str],
        row: impl Fn(&T) -> Vec<String>,
        is_listed: impl Fn(&T) -> bool,
    ) -> anyhow::Result<()> {
        let mut items: Vec<Said<T>> = self.remote.items(path).await?;
        let all = items.len();
        items.retain(|item| is_listed(&item.view));
        if self.json {
            for item in &items {
                say(&item.json.to_string());
            }
        } else {
            let rows: Vec<Vec<String>> = items.iter().map(|item| row(&item.view)).collect();
            table(columns, &rows);
            if items.len() < all {
                say(&format!("{} hidden by the filter", all - items.len()));
            }
        }
        Ok(())
    }
}
