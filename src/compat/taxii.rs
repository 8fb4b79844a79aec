//! TAXII's words for what a feed lists: indicators of STIX, pages of them, and the filters of requests.
//!
//! An indicator keeps its id for as long as its address is known. Its end is told in `valid_until`, also that of a block that was
//! lifted: an indicator that STIX calls revoked could never come back.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use riposte_protocol::time::Timestamp;
use uuid::{Builder, Uuid};

use super::feed_forms::BY_HAND;
use crate::domain::feed_list::{FeedEntry, FeedList};
use crate::views::taxii::{StixIndicator, TaxiiRecord};

/// Media type of TAXII.
pub const TAXII: &str = "application/taxii+json;version=2.1";
/// Media type of STIX.
pub const STIX: &str = "application/stix+json;version=2.1";
/// Type of every object.
const INDICATOR: &str = "indicator";
/// Version of STIX.
const SPEC_VERSION: &str = "2.1";
/// What every id is derived from.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1e_0c7a_52d9_4c1b_9f0e_2a77_31d4_8ce5);
/// Objects of a page, if a request names no limit, and at most.
pub const MOST: usize = 2000;
/// Most parts of a list in a request.
pub const MOST_PARTS: usize = 100;

/// A UUID of version 5 that follows from `words`.
fn derived(words: &str) -> Uuid {
    let mut bytes = NAMESPACE.as_bytes().to_vec();
    bytes.extend_from_slice(words.as_bytes());
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    Builder::from_sha1_bytes(first).into_uuid()
}

/// Id of the collection of a feed.
pub fn collection_id(feed: &str) -> Uuid {
    derived(&format!("collection {feed}"))
}

/// Id of the indicator of an entry.
fn indicator_id(feed: &str, value: &str, entry: &FeedEntry) -> String {
    format!("{INDICATOR}--{}", derived(&format!("{INDICATOR} {feed} {value} {}", entry.first_at)))
}

/// The entry as an indicator.
pub fn indicator(feed: &str, value: &str, entry: &FeedEntry, now: Timestamp) -> StixIndicator {
    let family = if value.contains(':') { "ipv6" } else { "ipv4" };
    let compares = if value.contains('/') { "ISSUBSET" } else { "=" };
    let by = entry.policy.as_deref().unwrap_or(BY_HAND);
    // The times of a list order its changes. After a clock was set back they may be ahead of it.
    let (end, begin, lifted_at) = (entry.until.instant(), entry.first_at.min(now), entry.changed_at.min(now));
    let end =
        if entry.is_listed { end.unwrap_or(Timestamp::MAX) } else { end.map_or(lifted_at, |at| at.min(lifted_at)) };
    // STIX wants it to be later than the beginning.
    let valid_until = end.max(begin.plus(Duration::from_millis(1)));
    StixIndicator {
        r#type: INDICATOR.to_owned(),
        spec_version: SPEC_VERSION.to_owned(),
        id: indicator_id(feed, value, entry),
        created: entry.first_at.into(),
        modified: entry.changed_at.into(),
        name: value.to_owned(),
        description: if entry.is_listed { format!("Blocked by {by}") } else { format!("Was blocked by {by}") },
        indicator_types: vec!["malicious-activity".to_owned()],
        pattern: format!("[{family}-addr:value {compares} '{value}']"),
        pattern_type: "stix".to_owned(),
        valid_from: begin.into(),
        valid_until: valid_until.into(),
    }
}

/// The entry without its content.
pub fn record(feed: &str, value: &str, entry: &FeedEntry) -> TaxiiRecord {
    TaxiiRecord {
        id: indicator_id(feed, value, entry),
        date_added: entry.changed_at.into(),
        version: entry.changed_at.into(),
        media_type: STIX.to_owned(),
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    ids: Option<BTreeSet<String>>,
    /// Whether objects of this type and version of STIX are asked for at all.
    takes_none: bool,
    /// Times of versions, if only those are asked for; the last version is kept.
    versions: Option<BTreeSet<Timestamp>>,
}

/// What a request says of it; each is a list with commas between its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedFilter {
    /// Ids.
    pub ids: Option<String>,
    /// Types.
    pub types: Option<String>,
    /// Versions: `all`, `first`, `last`, or times.
    pub versions: Option<String>,
    /// Versions of STIX.
    pub spec_versions: Option<String>,
}

impl ObjectFilter {
    /// Reads what a request says.
    ///
    /// # Errors
    /// The name of the list that has more than [`MOST_PARTS`] parts.
    pub fn read(asked: &AskedFilter) -> Result<Self, &'static str> {
        let AskedFilter { ids, types, versions, spec_versions } = asked;
        let lists = [("id", ids), ("type", types), ("version", versions), ("spec_version", spec_versions)];
        let is_long = |list: &Option<String>| list.as_deref().is_some_and(|list| list.split(',').count() > MOST_PARTS);
        if let Some((name, _)) = lists.into_iter().find(|(_, list)| is_long(list)) {
            return Err(name);
        }
        let names =
            |list: &Option<String>, word: &str| list.as_deref().is_none_or(|list| parts(list).any(|it| it == word));
        let is_kept = |list: &str| parts(list).any(|word| ["all", "first", "last"].contains(&word));
        let times = |list: &String| parts(list).filter_map(|word| word.parse().ok()).collect();
        Ok(Self {
            ids: ids.as_deref().map(|list| parts(list).map(str::to_owned).collect()),
            takes_none: !names(types, INDICATOR) || !names(spec_versions, SPEC_VERSION),
            versions: versions.as_ref().filter(|list| !is_kept(list)).map(times),
        })
    }

    /// Whether it leaves out nothing.
    pub const fn takes_all(&self) -> bool {
        self.ids.is_none() && !self.takes_none && self.versions.is_none()
    }

    fn takes(&self, feed: &str, value: &str, entry: &FeedEntry) -> bool {
        !self.takes_none
            && self.versions.as_ref().is_none_or(|versions| versions.contains(&entry.changed_at))
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&indicator_id(feed, value, entry)))
    }
}

/// The parts of a list, without empty ones.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// What is read of a list, from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// What is in force.
    InForce,
    /// What has changed after this time, removals too.
    After(Timestamp),
}

/// A walk through a list, of one page or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListWalk {
    /// What it reads.
    pub from: ReadFrom,
    /// Revision of the list when it began.
    begun: i64,
    /// Revision and value of the last entry that was given.
    last: Option<(i64, String)>,
}

impl ListWalk {
    /// Begins at the first page.
    pub const fn begin(from: ReadFrom, list: &FeedList) -> Self {
        Self { from, begun: list.revision, last: None }
    }

    /// Goes on where an earlier answer says.
    pub fn go_on(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, '.');
        let from = match words.next()? {
            "f" => ReadFrom::InForce,
            millis => ReadFrom::After(Timestamp::from_millis(millis.parse().ok()?)),
        };
        let (begun, revision) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { from, begun, last: Some((revision, words.next()?.to_owned())) })
    }

    /// Whether it is of this list: not of one before the ledger was restored.
    pub fn is_of(&self, list: &FeedList) -> bool {
        self.begun <= list.revision && self.last.as_ref().is_none_or(|(revision, _)| *revision <= list.revision)
    }

    /// Where the page after this entry begins.
    fn after(&self, value: &str, entry: &FeedEntry) -> String {
        let from = match self.from {
            ReadFrom::InForce => "f".to_owned(),
            ReadFrom::After(at) => at.as_millis().to_string(),
        };
        format!("{from}.{}.{}.{value}", self.begun, entry.revision)
    }

    /// Whether it gives this entry. What was lifted since it began may be on an earlier page, so that is told too.
    fn gives(&self, value: &str, entry: &FeedEntry) -> bool {
        let is_later =
            self.last.as_ref().is_none_or(|(revision, last)| (entry.revision, value) > (*revision, last.as_str()));
        is_later
            && match self.from {
                ReadFrom::InForce => entry.is_listed || entry.revision > self.begun,
                ReadFrom::After(at) => entry.changed_at > at,
            }
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct ListPage<'a> {
    /// Its entries, in the order in which they came into the list.
    pub entries: Vec<(&'a str, &'a FeedEntry)>,
    /// Where the next one begins, if there is more.
    pub next: Option<String>,
    /// Time by which a client that does not go on by `next` misses nothing: that of the last revision that is whole.
    pub whole_until: Option<Timestamp>,
}

/// The next page of a walk, with at most `limit` entries.
pub fn page<'a>(feed: &str, list: &'a FeedList, walk: &ListWalk, filter: &ObjectFilter, limit: usize) -> ListPage<'a> {
    let limit = limit.clamp(1, MOST);
    let entries = list.entries.iter().map(|(value, entry)| (value.as_str(), entry));
    let mut entries: Vec<(&str, &FeedEntry)> =
        entries.filter(|(value, entry)| walk.gives(value, entry) && filter.takes(feed, value, entry)).collect();
    entries.sort_unstable_by_key(|(value, entry)| (entry.revision, *value));
    let cut = entries.get(limit).map(|(_, entry)| entry.revision);
    entries.truncate(limit);
    let last = entries.last().map(|(_, entry)| entry.changed_at);
    let Some(cut) = cut else { return ListPage { entries, next: None, whole_until: last } };
    let next = entries.last().map(|(value, entry)| walk.after(value, entry));
    let whole = entries.iter().rfind(|(_, entry)| entry.revision != cut).map(|(_, entry)| entry.changed_at);
    let before = entries.first().map(|(_, entry)| entry.changed_at.minus(Duration::from_millis(1)));
    ListPage { entries, next, whole_until: whole.or(before) }
}

/// The entry with the id of an indicator.
pub fn find<'a>(feed: &str, list: &'a FeedList, id: &str) -> Option<(&'a str, &'a FeedEntry)> {
    let mut entries = list.entries.iter().map(|(value, entry)| (value.as_str(), entry));
    entries.find(|(value, entry)| indicator_id(feed, value, entry) == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::effect::Until;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn list(entries: &[(&str, i64, bool)]) -> FeedList {
        let entry = |(value, revision, is_listed): &(&str, i64, bool)| {
            let (changed_at, first_at, until) = (at(*revision), at(1), Until::At(at(900)));
            let entry =
                FeedEntry { until, policy: None, revision: *revision, changed_at, first_at, is_listed: *is_listed };
            ((*value).to_owned(), entry)
        };
        FeedList { revision: 9, floor: 0, entries: entries.iter().map(entry).collect() }
    }

    const NOW: Timestamp = Timestamp::from_millis(100_000);

    fn names<'a>(page: &ListPage<'a>) -> Vec<&'a str> {
        page.entries.iter().map(|(value, _)| *value).collect()
    }

    fn read(list: &FeedList, from: ReadFrom, limit: usize) -> ListPage<'_> {
        page("edge", list, &ListWalk::begin(from, list), &ObjectFilter::default(), limit)
    }

    #[test]
    fn an_indicator_says_what_is_blocked_from_when_until_when() {
        let list = list(&[("198.51.100.0/24", 3, true), ("2001:db8::7", 4, false)]);
        let of = |value: &str, now: Timestamp| indicator("edge", value, &list.entries[value], now);
        let json = |value: &str| serde_json::to_value(of(value, NOW)).unwrap();
        insta::assert_json_snapshot!([json("198.51.100.0/24"), json("2001:db8::7")]);
        // Another list of the same name and address, at another time, has other indicators.
        let again = FeedEntry { first_at: at(2), ..list.entries["2001:db8::7"].clone() };
        assert_ne!(indicator("edge", "2001:db8::7", &again, NOW).id, of("2001:db8::7", NOW).id);
        assert_eq!(collection_id("edge").get_version_num(), 5);
        // The clock was ahead when these were written: what was lifted has ended now, and what is new is valid now.
        let early = Timestamp::from_millis(500);
        assert_eq!(Timestamp::from(of("2001:db8::7", early).valid_until), early.plus(Duration::from_millis(1)));
        assert_eq!(Timestamp::from(of("198.51.100.0/24", early).valid_from), early);
    }

    #[test]
    fn a_walk_gives_each_entry_once_and_pages_are_full() {
        let list = list(&[("a", 1, true), ("b", 2, true), ("c", 2, false), ("d", 2, true), ("e", 5, true)]);
        assert_eq!(names(&read(&list, ReadFrom::InForce, 9)), ["a", "b", "d", "e"]);
        assert_eq!(names(&read(&list, ReadFrom::After(at(1)), 9)), ["b", "c", "d", "e"]);
        assert_eq!(names(&read(&list, ReadFrom::After(at(5)), 9)), [""; 0]);
        // It ends within the second revision: a client that goes on by time reads that again.
        let first = read(&list, ReadFrom::InForce, 2);
        assert_eq!((names(&first), first.whole_until), (vec!["a", "b"], Some(at(1))));
        let alone = read(&list, ReadFrom::After(at(1)), 1);
        assert_eq!((names(&alone), alone.whole_until), (vec!["b"], Some(at(2).minus(Duration::from_millis(1)))));
        let next = ListWalk::go_on(&alone.next.unwrap()).unwrap();
        assert_eq!(next.from, ReadFrom::After(at(1)), "what a consumer left out is known on its last page too");
        let mut seen = names(&first);
        let mut next = first.next;
        while let Some(text) = next {
            let one = page("edge", &list, &ListWalk::go_on(&text).unwrap(), &ObjectFilter::default(), 1);
            seen.extend(names(&one));
            next = one.next;
        }
        assert_eq!(seen, ["a", "b", "d", "e"]);
        // Of a list that is not known any more.
        assert!(
            !ListWalk::go_on("f.1.10.a").unwrap().is_of(&list) && !ListWalk::go_on("f.10.1.a").unwrap().is_of(&list)
        );
        for wrong in ["", "f", "f.x.1.a", "some.1.1.a", "f.1.1"] {
            assert_eq!(ListWalk::go_on(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_lifted_while_a_client_reads_is_told_on_a_later_page() {
        let before = list(&[("a", 1, true), ("b", 2, true)]);
        let before = FeedList { revision: 2, ..before };
        let first = read(&before, ReadFrom::InForce, 1);
        assert_eq!(names(&first), ["a"]);
        let after = list(&[("a", 3, false), ("b", 2, true), ("c", 4, true)]);
        let rest = page("edge", &after, &ListWalk::go_on(&first.next.unwrap()).unwrap(), &ObjectFilter::default(), 9);
        assert_eq!(names(&rest), ["b", "a", "c"]);
    }

    #[test]
    fn a_filter_takes_what_it_names() {
        let list = list(&[("192.0.2.1", 1, true), ("192.0.2.2", 2, true)]);
        let of = |text: &str| Some(text.to_owned());
        let id = indicator_id("edge", "192.0.2.2", &list.entries["192.0.2.2"]);
        let none = AskedFilter::default;
        for (asked, expected, is_all) in [
            (AskedFilter { ids: of(&format!("x,{id}")), ..none() }, 1, false),
            (AskedFilter { types: of("malware, indicator"), ..none() }, 2, true),
            (AskedFilter { types: of("malware"), ..none() }, 0, false),
            (AskedFilter { spec_versions: of("2.0"), ..none() }, 0, false),
            (AskedFilter { versions: of("last"), ..none() }, 2, true),
            (AskedFilter { versions: of("1970-01-01T00:00:02.000Z"), ..none() }, 1, false),
        ] {
            let filter = ObjectFilter::read(&asked).unwrap();
            let walk = ListWalk::begin(ReadFrom::InForce, &list);
            let count = page("edge", &list, &walk, &filter, 9).entries.len();
            assert_eq!((count, filter.takes_all()), (expected, is_all), "{asked:?}");
        }
        let long = AskedFilter { versions: of(&",".repeat(MOST_PARTS)), ..none() };
        assert_eq!(ObjectFilter::read(&long), Err("version"));
        assert_eq!(find("edge", &list, &id).unwrap().0, "192.0.2.2");
        assert!(find("edge", &list, "indicator--x").is_none());
    }
}
