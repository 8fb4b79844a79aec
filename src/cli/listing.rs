//! Whole lists of a manager, read page by page and printed in every form (`shown.rs`).

use clap::Args;
use serde::de::DeserializeOwned;

use super::reply::Said;
use super::shown::{ListForm, ShownArgs, WatchArgs};

/// Which manager to ask, and how to print what it says.
#[derive(Clone, Debug, Args)]
pub struct Listing {
    /// Which manager, and the form.
    #[command(flatten)]
    pub shown: ShownArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Listing {
    /// Prints every item of the list at `path`.
    ///
    /// # Errors
    /// If the manager cannot be asked, or refuses.
    pub async fn print<T: DeserializeOwned>(&self, path: &str, form: &ListForm<'_, T>) -> anyhow::Result<()> {
        self.print_where(path, form, |_| true).await
    }

    /// As [`Listing::print`], without the items that `is_listed` does not accept.
    ///
    /// # Errors
    /// As [`Listing::print`].
    pub async fn print_where<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &ListForm<'_, T>,
        is_listed: impl Fn(&T) -> bool,
    ) -> anyhow::Result<()> {
        let look = async || {
            let mut items: Vec<Said<T>> = self.shown.remote.items(path).await?;
            let all = items.len();
            items.retain(|item| is_listed(&item.view));
            let hidden = all - items.len();
            let left_out = (hidden > 0).then(|| format!("{hidden} hidden by the filter"));
            self.shown.print(&items, form, &Vec::from_iter(left_out))
        };
        self.again(look).await
    }

    /// Runs `look` once, or again and again.
    ///
    /// # Errors
    /// That of a look.
    pub async fn again(&self, look: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.watch.again(look).await
    }
}
