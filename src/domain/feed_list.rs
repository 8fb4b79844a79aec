//! The list of a feed over time. Each change has a revision, and what is removed stays as a removal for a
//! while, so it can be said what a consumer that has an earlier revision must still be told. Pure rules; the
//! store keeps the list, so that a restart loses no removal.

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::effect::Until;
use super::feed::{FeedForm, Selected, SelectedEntry};

/// How long removals are kept. Longer than [`LONGEST_GIVEN`], so what a consumer missed has ended there.
const KEEP_REMOVALS: Duration = Duration::from_hours(30 * 24);
/// How long a removal is kept after its end, for consumers that lift by themselves: they need not be told.
const KEEP_ENDED: Duration = Duration::from_hours(1);
/// Longest time that a consumer which lifts by itself is given; sets of `ipset` take less than 25 days.
const LONGEST_GIVEN: Duration = Duration::from_hours(20 * 24);
/// What is longer is given anew when less than this is left.
const GIVE_AGAIN: Duration = Duration::from_hours(10 * 24);

/// An address or network that is or was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its end, as consumers that lift by themselves were told.
    pub until: Until,
    /// Policy of its longest hold; `None`: by hand.
    pub policy: Option<String>,
    /// Revision of its last change.
    pub revision: i64,
    /// Time of its last change. No other revision of the list has it.
    pub changed_at: Timestamp,
    /// Time when it was first listed, since it is known.
    pub first_at: Timestamp,
    /// Whether it is listed; otherwise it was removed.
    pub is_listed: bool,
}

/// The list of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedList {
    /// Revision of its last change; rises.
    pub revision: i64,
    /// Removals up to this revision are not kept any more.
    pub floor: i64,
    /// By address or network.
    pub entries: BTreeMap<String, FeedEntry>,
}

/// A change of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListChange {
    /// The new revision.
    pub revision: i64,
    /// The new floor.
    pub floor: i64,
    /// Entries that are new or changed, removals included.
    pub put: Vec<(String, FeedEntry)>,
    /// Removals that are not kept any more.
    pub forgotten: Vec<String>,
}

/// What a consumer does not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwedEntries {
    /// Entries that are new or changed.
    pub new: usize,
    /// Removals.
    pub removed: usize,
}

impl FeedList {
    /// The change that makes it `selected`, if it takes one. `event` is the number of the last event that `selected`
    /// takes into account. While new blocks are held back, none is added or extended.
    pub fn change(
        &self,
        form: FeedForm,
        selected: &Selected,
        event: i64,
        is_held_back: bool,
        now: Timestamp,
    ) -> Option<ListChange> {
        let revision = self.revision.saturating_add(1).max(event);
        let mut put = Vec::new();
        // Consumers that ask by time must miss nothing of the same instant, also when the clock is set back.
        let last = self.entries.values().map(|entry| entry.changed_at).max();
        let changed_at = last.map_or(now, |last| now.max(last.plus(Duration::from_millis(1))));
        for (value, wanted) in &selected.entries {
            let known = self.entries.get(value).filter(|entry| entry.is_listed);
            let until = given(form, wanted, known, now);
            let is_same = known
                .is_some_and(|known| !form.tells_ends() || (known.until == until && known.policy == wanted.policy));
            let is_more = known.is_none_or(|known| until > known.until);
            if !(is_same || is_held_back && is_more) {
                let policy = wanted.policy.clone();
                let first_at = self.entries.get(value).map_or(changed_at, |entry| entry.first_at);
                let entry = FeedEntry { until, policy, revision, changed_at, first_at, is_listed: true };
                put.push((value.clone(), entry));
            }
        }
        let gone =
            self.entries.iter().filter(|(value, entry)| entry.is_listed && !selected.entries.contains_key(*value));
        put.extend(gone.map(|(value, entry)| {
            (value.clone(), FeedEntry { revision, changed_at, is_listed: false, ..entry.clone() })
        }));
        let has_ended = |entry: &FeedEntry| {
            let end = entry.until.instant().filter(|_| form.tells_ends());
            end.is_some_and(|end| now > end && now.since(end) > KEEP_ENDED)
        };
        let (mut forgotten, mut floor) = (Vec::new(), self.floor);
        let removed = self.entries.iter().filter(|(_, entry)| !entry.is_listed);
        for (value, entry) in removed.filter(|(value, _)| !selected.entries.contains_key(*value)) {
            let is_old = now.since(entry.changed_at) > KEEP_REMOVALS;
            if is_old && !has_ended(entry) {
                // A consumer from before gets everything.
                floor = floor.max(entry.revision);
            }
            if is_old || has_ended(entry) {
                forgotten.push(value.clone());
            }
        }
        (!put.is_empty() || !forgotten.is_empty()).then_some(ListChange { revision, floor, put, forgotten })
    }

    /// Carries out a change.
    pub fn apply(&mut self, change: &ListChange) {
        (self.revision, self.floor) = (change.revision, change.floor);
        for (value, entry) in &change.put {
            self.entries.insert(value.clone(), entry.clone());
        }
        for value in &change.forgotten {
            self.entries.remove(value);
        }
    }

    /// What is listed.
    pub fn listed(&self) -> impl Iterator<Item = (&str, &FeedEntry)> {
        self.entries.iter().filter(|(_, entry)| entry.is_listed).map(|(value, entry)| (value.as_str(), entry))
    }

    /// What has changed since `revision`, removals included. Without that revision, or after removals that are not
    /// kept any more, it is everything.
    pub fn since(&self, revision: i64) -> impl Iterator<Item = (&str, &FeedEntry)> {
        let from = if self.knows(revision) { revision } else { i64::MIN };
        let changed = self.entries.iter().filter(move |(_, entry)| entry.revision > from);
        changed.map(|(value, entry)| (value.as_str(), entry))
    }

    /// Whether all that has changed since `revision` is kept.
    fn knows(&self, revision: i64) -> bool {
        revision >= self.floor && revision <= self.revision
    }

    /// What a consumer with `revision` does not have yet. One that lifts by itself owes no removal of what has ended
    /// there.
    pub fn owed(&self, form: FeedForm, revision: i64, now: Timestamp) -> OwedEntries {
        let mut owed = OwedEntries::default();
        for (_, entry) in self.since(revision) {
            if entry.is_listed {
                owed.new += 1;
            } else if !(form.tells_ends() && entry.until.is_over(now)) {
                owed.removed += 1;
            }
        }
        owed
    }
}

/// The end that a consumer is told. What has no end, or a far one, is told in parts: the sets of firewalls take no
/// time without end, and a consumer that is never told of the removal must lift it all the same.
fn given(form: FeedForm, wanted: &SelectedEntry, known: Option<&FeedEntry>, now: Timestamp) -> Until {
    let longest = Until::At(now.plus(LONGEST_GIVEN));
    if !form.tells_changes() || wanted.until <= longest {
        return wanted.until;
    }
    let again = Until::At(now.plus(GIVE_AGAIN));
    known
        .map(|known| known.until)
        .filter(|until| *until > again && *until <= wanted.until.min(longest))
        .unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn selected(entries: &[(&str, i64)]) -> Selected {
        let entry = |(value, secs): &(&str, i64)| {
            let until = if *secs == 0 { Until::Never } else { Until::At(at(*secs)) };
            ((*value).to_owned(), SelectedEntry { until, policy: Some("ssh".into()) })
        };
        Selected { entries: entries.iter().map(entry).collect(), next_change: None }
    }

    fn step(list: &mut FeedList, form: FeedForm, entries: &[(&str, i64)], event: i64, now: i64) -> bool {
        let change = list.change(form, &selected(entries), event, false, at(now));
        if let Some(change) = &change {
            list.apply(change);
        }
        change.is_some()
    }

    fn changed(list: &FeedList, revision: i64) -> Vec<(&str, bool)> {
        list.since(revision).map(|(value, entry)| (value, entry.is_listed)).collect()
    }

    #[test]
    fn a_consumer_is_told_what_changed_since_its_revision() {
        let (mut list, form) = (FeedList::default(), FeedForm::Crowdsec);
        assert!(step(&mut list, form, &[("a", 100), ("b", 100)], 7, 1));
        assert_eq!((list.revision, changed(&list, 0)), (7, vec![("a", true), ("b", true)]));
        assert!(!step(&mut list, form, &[("a", 100), ("b", 100)], 9, 2), "nothing has changed");
        // No event in between, such as at an end by time: the revision rises all the same.
        assert!(step(&mut list, form, &[("a", 200)], 7, 3));
        assert_eq!((list.revision, changed(&list, 7)), (8, vec![("a", true), ("b", false)]));
        assert_eq!(list.owed(form, 7, at(3)), OwedEntries { new: 1, removed: 1 });
        assert_eq!(list.owed(form, 7, at(100)), OwedEntries { new: 1, removed: 0 }, "b has ended there by itself");
        assert_eq!(list.owed(FeedForm::Plain, 7, at(100)).removed, 1, "a list of addresses knows no end");
        assert_eq!(list.owed(form, 8, at(3)), OwedEntries::default());
        // A revision of a ledger that was restored since is not known.
        assert_eq!(changed(&list, 99), [("a", true), ("b", false)]);
    }

    #[test]
    fn a_list_without_ends_changes_only_with_its_lines() {
        let mut list = FeedList::default();
        assert!(step(&mut list, FeedForm::Plain, &[("a", 100)], 1, 1));
        assert!(!step(&mut list, FeedForm::Plain, &[("a", 500)], 2, 2), "an extension changes no line");
        assert!(step(&mut list, FeedForm::Plain, &[], 3, 3));
        assert!(step(&mut list, FeedForm::Plain, &[("a", 900)], 4, 4), "it is back");
        assert_eq!(changed(&list, 3), [("a", true)]);
    }

    #[test]
    fn each_revision_has_a_later_time_also_within_an_instant_and_when_the_clock_is_set_back() {
        let (mut list, form) = (FeedList::default(), FeedForm::Taxii);
        let mut times = Vec::new();
        for (value, now) in [("a", 50), ("b", 50), ("c", 3)] {
            let before: Vec<String> = list.entries.keys().cloned().collect();
            let mut entries: Vec<(&str, i64)> = before.iter().map(|value| (value.as_str(), 900)).collect();
            entries.push((value, 900));
            assert!(step(&mut list, form, &entries, 1, now));
            times.push(list.entries[value].changed_at.as_millis());
        }
        assert_eq!(times, [50_000, 50_001, 50_002]);
        // What is lifted keeps the time when it was first listed, and when it comes back too.
        assert!(step(&mut list, form, &[("b", 900)], 1, 60));
        assert!(step(&mut list, form, &[("a", 900), ("b", 900)], 1, 70));
        let back = &list.entries["a"];
        assert_eq!((back.is_listed, back.first_at.as_millis(), back.changed_at.as_millis()), (true, 50_000, 70_000));
    }

    #[test]
    fn what_has_no_end_is_given_in_parts() {
        let (mut list, day) = (FeedList::default(), 86_400);
        step(&mut list, FeedForm::Crowdsec, &[("a", 0)], 1, 0);
        assert_eq!(list.entries["a"].until, Until::At(at(20 * day)));
        assert!(!step(&mut list, FeedForm::Crowdsec, &[("a", 0)], 2, 9 * day));
        assert!(step(&mut list, FeedForm::Crowdsec, &[("a", 0)], 3, 11 * day));
        assert_eq!(list.entries["a"].until, Until::At(at(31 * day)));
        // An end that comes into reach is told as it is.
        assert!(step(&mut list, FeedForm::Crowdsec, &[("a", 12 * day)], 4, 11 * day));
        assert_eq!(list.entries["a"].until, Until::At(at(12 * day)));
    }

    #[test]
    fn while_blocks_are_held_back_none_is_added_or_extended_and_removals_go_on() {
        let mut list = FeedList::default();
        step(&mut list, FeedForm::Crowdsec, &[("a", 100), ("b", 100), ("c", 100)], 1, 1);
        let change = list.change(FeedForm::Crowdsec, &selected(&[("a", 900), ("b", 50), ("d", 100)]), 2, true, at(2));
        let put: Vec<(String, bool)> = change.unwrap().put.into_iter().map(|(value, e)| (value, e.is_listed)).collect();
        assert_eq!(put, [("b".to_owned(), true), ("c".to_owned(), false)]);
    }

    #[test]
    fn removals_are_kept_for_longer_than_anything_lasts_at_a_consumer() {
        let (mut list, day) = (FeedList::default(), 86_400);
        step(&mut list, FeedForm::Plain, &[("a", 100), ("b", 0)], 1, 0);
        step(&mut list, FeedForm::Plain, &[("b", 0)], 2, 50);
        step(&mut list, FeedForm::Plain, &[("b", 0)], 3, 25 * day);
        assert_eq!(changed(&list, 1), [("a", false)]);
        step(&mut list, FeedForm::Plain, &[("b", 0)], 4, 31 * day);
        assert!(!list.entries.contains_key("a") && list.floor == 2);
        // A consumer from before gets everything.
        assert_eq!(changed(&list, 1), [("b", true)]);
    }

    #[test]
    fn a_removal_that_has_ended_at_its_consumers_is_forgotten_and_nothing_is_told_anew() {
        let (mut list, hour) = (FeedList::default(), 3600);
        step(&mut list, FeedForm::Crowdsec, &[("a", 2 * hour), ("b", 9 * hour)], 1, 0);
        step(&mut list, FeedForm::Crowdsec, &[("b", 9 * hour)], 2, 50);
        step(&mut list, FeedForm::Crowdsec, &[("b", 9 * hour)], 3, 3 * hour);
        assert_eq!(changed(&list, 1), [("a", false)]);
        step(&mut list, FeedForm::Crowdsec, &[("b", 9 * hour)], 4, 3 * hour + 1);
        assert_eq!((changed(&list, 1), list.floor), (vec![], 0));
    }

    proptest! {
        /// A consumer that is told, in any order of changes and fetches, what has changed since its revision has exactly
        /// the list. Told everything twice, it still has.
        #[test]
        fn a_consumer_that_follows_the_changes_has_the_list(
            steps in proptest::collection::vec((proptest::collection::btree_map("[a-d]", 1000i64..1004, 0..4), any::<bool>()), 1..40)
        ) {
            let mut list = FeedList::default();
            let (mut has, mut mark, mut before) = (BTreeMap::<String, Until>::new(), 0, 0);
            for (nth, (entries, fetches)) in steps.into_iter().enumerate() {
                let now = i64::try_from(nth).unwrap();
                let entries: Vec<(&str, i64)> = entries.iter().map(|(value, secs)| (value.as_str(), *secs)).collect();
                step(&mut list, FeedForm::Crowdsec, &entries, now / 3, now);
                if fetches {
                    for (value, entry) in list.since(before) {
                        has.remove(value);
                        if entry.is_listed {
                            has.insert(value.to_owned(), entry.until);
                        }
                    }
                    (before, mark) = (mark, list.revision);
                    let listed: BTreeMap<String, Until> = list.listed().map(|(v, e)| (v.to_owned(), e.until)).collect();
                    prop_assert_eq!(&has, &listed);
                }
            }
        }
    }
}
