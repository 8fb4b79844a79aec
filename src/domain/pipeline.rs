//! Deduplication keys of alerts: the pipeline's id within the pipeline of the sender's key, plus
//! the event time if ids recur. Keys without a pipeline share one namespace per format, as before
//! keys could be bound.

use std::collections::BTreeMap;
use std::time::Duration;

use riposte_protocol::time::Timestamp;

use super::alert::Alert;
use super::formats::dedupe;

/// Pipelines whose ids name a finding instead of an occurrence: Alertmanager's fingerprint,
/// `GuardDuty`'s finding.
const RECURRING: [&str; 2] = ["alertmanager", "guardduty"];
/// Migration window after a pipeline's first key: alerts that were ingested with an unbound key are
/// recognised. A sender moves to its new key, and then repeats what was not confirmed.
const HANDOVER: Duration = Duration::from_hours(24);

/// Whether `name` is a valid pipeline name for a key.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The pipeline that a key is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<'a> {
    /// Name of the pipeline.
    pub name: &'a str,
    /// Creation time of its first key.
    pub since: Timestamp,
}

/// Configuration of pipelines with recurring ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recurring {
    said: BTreeMap<String, bool>,
}

impl Recurring {
    /// Creates the configuration from names and flags.
    pub fn new(said: BTreeMap<String, bool>) -> Self {
        Self { said }
    }

    /// Whether the id of `alert` recurs: by the key's pipeline, by the alert's pipeline, or else by
    /// its format.
    fn holds(&self, alert: &Alert, bound: Option<Bound>) -> bool {
        let mut names = bound.map(|bound| bound.name).into_iter().chain([alert.pipeline.as_str()]);
        let known = || alert.id_recurs || RECURRING.contains(&alert.pipeline.as_str());
        names.find_map(|name| self.said.get(name).copied()).unwrap_or_else(known)
    }
}

/// Deduplication keys of an alert, current and former.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupeKey {
    /// Unique among stored alerts.
    pub key: [u8; 16],
    /// Keys under which it may be stored already.
    pub former: Vec<Former>,
}

/// A key from before the API key was bound to a pipeline, or before its ids were known to recur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// The key.
    pub key: [u8; 16],
    /// Matches only alerts received before this time.
    pub received_before: Option<Timestamp>,
    /// Matches only alerts with this event time.
    pub time: Option<Timestamp>,
}

impl Former {
    /// Whether a stored alert matches.
    pub fn is_same(&self, received: Timestamp, time: Timestamp) -> bool {
        self.received_before.is_none_or(|before| received < before) && self.time.is_none_or(|same| same == time)
    }
}

/// The deduplication keys of `alert`, sent with a key that is bound to a pipeline or to none.
pub fn key(alert: &Alert, bound: Option<Bound>, recurring: &Recurring) -> DedupeKey {
    let base = alert.dedupe;
    // An alert without an event time has a new time on each retry.
    let time = (recurring.holds(alert, bound) && alert.is_timed).then_some(alert.time);
    let timed = time.map_or(base, |time| extended("time", base, &time.as_millis().to_string()));
    let Some(Bound { name, since }) = bound else {
        let former = time.map(|_| Former { key: base, received_before: None, time }).into_iter().collect();
        return DedupeKey { key: timed, former };
    };
    let handover = Some(since.plus(HANDOVER));
    let mut former = vec![Former { key: timed, received_before: handover, time: None }];
    if time.is_some() {
        former.push(Former { key: base, received_before: handover, time });
        former.push(Former { key: extended("pipeline", base, name), received_before: None, time });
    }
    DedupeKey { key: extended("pipeline", timed, name), former }
}

fn extended(what: &str, key: [u8; 16], by: &str) -> [u8; 16] {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    dedupe(&["riposte", what, by, &hex])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Timestamp = Timestamp::from_millis(1_000_000);

    fn alert(pipeline: &str, time: i64) -> Alert {
        Alert {
            pipeline: pipeline.into(),
            dedupe: dedupe(&[pipeline, "1"]),
            time: Timestamp::from_millis(time),
            is_timed: true,
            ..Alert::default()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what `key` takes")]
    fn bound(name: &str) -> Option<Bound<'_>> {
        Some(Bound { name, since: SINCE })
    }

    #[test]
    fn an_unbound_key_keeps_what_was_recorded_before_keys_could_be_bound() {
        let alert = alert("suricata", 5);
        assert_eq!(key(&alert, None, &Recurring::default()), DedupeKey { key: alert.dedupe, former: vec![] });
    }

    #[test]
    fn pipelines_do_not_share_ids() {
        let (alert, recurring) = (alert("wazuh", 5), Recurring::default());
        let of = |name| key(&alert, name, &recurring).key;
        assert_ne!(of(bound("a")), of(bound("b")));
        assert_ne!(of(bound("a")), of(None));
        assert_eq!(of(bound("a")), of(Some(Bound { name: "a", since: Timestamp::from_millis(7) })));
        let former = key(&alert, bound("a"), &recurring).former;
        let [one] = former.as_slice() else { panic!("{former:?}") };
        assert_eq!(one.key, alert.dedupe);
        let handover = SINCE.plus(HANDOVER);
        assert!(
            one.is_same(handover.minus(Duration::from_millis(1)), alert.time) && !one.is_same(handover, alert.time)
        );
    }

    #[test]
    fn a_recurring_id_is_a_duplicate_only_at_the_same_time() {
        let recurring = Recurring::new([("mine".to_owned(), true), ("guardduty".to_owned(), false)].into());
        let keys = |pipeline: &str, time| key(&alert(pipeline, time), None, &recurring);
        for recurs in ["alertmanager", "mine"] {
            assert_eq!(keys(recurs, 5), keys(recurs, 5));
            assert_ne!(keys(recurs, 5).key, keys(recurs, 6).key, "{recurs}");
            let [former] = keys(recurs, 5).former[..] else { panic!() };
            let at = Timestamp::from_millis;
            assert!(
                former.is_same(at(9), at(5)) && !former.is_same(at(9), at(6)),
                "stored before it was known to recur"
            );
        }
        for unique in ["guardduty", "other"] {
            assert_eq!(keys(unique, 5), keys(unique, 6), "{unique}");
        }
        let by_key = |time| key(&alert("other", time), bound("mine"), &recurring).key;
        assert_ne!(by_key(5), by_key(6), "the key's pipeline says so");
        let untimed = |time| key(&Alert { is_timed: false, ..alert("mine", time) }, None, &recurring);
        assert_eq!(untimed(5), untimed(6));
        let finding = |time| key(&Alert { id_recurs: true, ..alert("wazuh", time) }, None, &recurring).key;
        assert_ne!(finding(5), finding(6));
    }
}
