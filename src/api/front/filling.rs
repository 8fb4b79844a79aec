//! Fills a page of a list for a caller with a scope. Rows are read until enough of them are visible, so
//! that neither a cursor nor a short page tells of rows that the scope hides.

use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;

use super::page::page_until;

/// Rows that are read at a time for a caller from whom rows are hidden.
const BATCH: i64 = 200;
/// Rows that one request reads at most. Then the page ends early, and its cursor leads on.
const MOST: i64 = 2000;

/// A page that is being filled.
#[derive(Debug)]
pub struct Filling<T> {
    limit: usize,
    batch: i64,
    read: i64,
    /// The visible rows, each with its cursor.
    items: Vec<(String, T)>,
    /// Where the next read begins.
    cursor: Option<String>,
    is_complete: bool,
    next: Option<String>,
}

impl<T: Serialize> Filling<T> {
    /// An empty page of `limit` items behind `cursor`. `hides` says whether rows may be hidden.
    pub(super) fn new(limit: i64, cursor: Option<String>, hides: bool) -> Self {
        let batch = if hides { BATCH.max(limit + 1) } else { limit + 1 };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { limit, batch, read: 0, items: Vec::new(), cursor, is_complete: false, next: None }
    }

    /// Rows may be left out for another reason too, such as a filter.
    pub fn hides(&mut self) {
        self.batch = self.batch.max(BATCH);
    }

    /// The cursor behind which to read, and how many rows; `None` once the page is complete.
    pub fn wants(&self) -> Option<(Option<String>, i64)> {
        (!self.is_complete).then(|| (self.cursor.clone(), self.batch))
    }

    /// Adds all rows that were read: the cursor of each, and its item if it is visible.
    pub fn add(&mut self, rows: Vec<(String, Option<T>)>) {
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        self.read += count;
        let last = rows.last().map(|(cursor, _)| cursor.clone());
        for (cursor, item) in rows {
            let Some(item) = item else { continue };
            if self.items.len() == self.limit {
                // A visible item is left over, so there is a next page.
                self.next = self.items.last().map(|(cursor, _)| cursor.clone());
                self.is_complete = true;
                return;
            }
            self.items.push((cursor, item));
        }
        let is_last = count < self.batch;
        self.is_complete = is_last || self.read >= MOST;
        self.next = if is_last || !self.is_complete { None } else { last.clone() };
        self.cursor = last;
    }

    /// The response.
    pub fn page(self, uri: &Uri) -> Response {
        page_until(self.items.into_iter().map(|(_, item)| item).collect(), self.next, uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a page of the numbers up to `total` of which `is_visible` holds; the items and the cursor.
    fn filled(total: i64, limit: i64, cursor: Option<i64>, is_visible: fn(i64) -> bool) -> (Vec<i64>, Option<String>) {
        let mut page = Filling::new(limit, cursor.map(|cursor| cursor.to_string()), true);
        while let Some((cursor, count)) = page.wants() {
            let from = cursor.map_or(0, |cursor| cursor.parse::<i64>().unwrap() + 1);
            let rows = (from..total).take(usize::try_from(count).unwrap());
            let rows = rows.map(|row| (row.to_string(), is_visible(row).then_some(row)));
            page.add(rows.collect());
        }
        (page.items.into_iter().map(|(_, item)| item).collect(), page.next)
    }

    #[test]
    fn a_page_is_full_and_its_cursor_names_what_it_shows() {
        assert_eq!(filled(1000, 2, None, |row| row % 300 == 0), (vec![0, 300], Some("300".into())));
        assert_eq!(filled(1000, 2, Some(300), |row| row % 300 == 0), (vec![600, 900], None));
        assert_eq!(filled(1000, 2, None, |row| row < 2), (vec![0, 1], None), "what follows is hidden");
        assert_eq!(filled(1000, 1, None, |_| false), (vec![], None));
        assert_eq!(filled(3, 3, None, |_| true), (vec![0, 1, 2], None));
        assert_eq!(filled(4, 3, None, |_| true), (vec![0, 1, 2], Some("2".into())));
    }

    #[test]
    fn one_request_reads_a_bounded_number_of_rows() {
        let (items, next) = filled(1_000_000, 5, None, |row| row == 10);
        assert_eq!((items, next), (vec![10], Some((MOST - 1).to_string())));
        assert_eq!(filled(MOST, 5, None, |_| false), (vec![], Some((MOST - 1).to_string())));
    }
}
