//! Clock skew of agents. A host whose clock is days off is still served, by the manager's clock,
//! and the skew is reported. Each agent causes at most one log line and one write per minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use riposte_protocol::identity::LEEWAY;
use riposte_protocol::time::{Timestamp, difference};
use uuid::Uuid;

use crate::domain::fleet::Fleet;
use crate::store::writer::Writer;

/// Minimum interval between recorded changes of one agent.
const NEWS_EVERY: Duration = Duration::from_mins(1);

/// Clock skew of each agent since the manager started.
#[derive(Debug, Default)]
pub struct Clocks {
    of: Mutex<HashMap<Uuid, Told>>,
}

#[derive(Debug)]
struct Told {
    /// Skew in seconds, positive if ahead; 0 within the tolerance.
    ahead: i64,
    /// Last recorded skew and its time.
    noted: Option<(i64, Timestamp)>,
}

/// A change to record.
#[derive(Debug, PartialEq, Eq)]
struct News {
    agent: Uuid,
    ahead: i64,
    was_off: bool,
}

impl Clocks {
    /// Records that an agent's host shows `host` at the manager's time `now`.
    pub fn told(&self, agent: Uuid, host: Timestamp, now: Timestamp) {
        let millis = host.as_millis() - now.as_millis();
        let is_off = Duration::from_millis(millis.unsigned_abs()) > LEEWAY;
        let ahead = if is_off { millis / 1000 } else { 0 };
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.entry(agent).and_modify(|told| told.ahead = ahead).or_insert(Told { ahead, noted: None });
    }

    /// Logs the changes of clock skew, and has them stored.
    pub(super) fn note(&self, fleet: &Fleet, writer: &Writer, now: Timestamp) {
        let news = self.news(now);
        if news.is_empty() {
            return;
        }
        self.keep(|agent| fleet.get(agent).is_some());
        for News { agent, ahead, was_off } in &news {
            let name = fleet.get(*agent).map_or("", |agent| agent.name.as_str());
            if *ahead != 0 {
                let told = difference(ahead * 1000);
                tracing::warn!(
                    %agent,
                    name,
                    clock_skew_seconds = ahead,
                    "the clock of agent {name}'s host is {told} this manager's; it is served by this manager's clock"
                );
            } else if *was_off {
                tracing::info!(%agent, name, "the clock of agent {name}'s host is right again");
            }
        }
        writer.skewed(news.into_iter().map(|news| (news.agent, news.ahead)).collect());
    }

    /// Returns the changes to record, and marks them as recorded.
    fn news(&self, now: Timestamp) -> Vec<News> {
        let leeway = LEEWAY.as_secs();
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = Vec::new();
        for (agent, told) in of.iter_mut() {
            let (ahead, was_off) = (told.ahead, told.noted.is_some_and(|(noted, _)| noted != 0));
            let is_news = told.noted.is_none_or(|(noted, at)| {
                let differs = noted.abs_diff(ahead) > leeway || (noted != 0) != (ahead != 0);
                differs && now.since(at) >= NEWS_EVERY
            });
            if is_news {
                told.noted = Some((ahead, now));
                news.push(News { agent: *agent, ahead, was_off });
            }
        }
        news
    }

    /// Forgets the agents for which `is_known` is false.
    fn keep(&self, is_known: impl Fn(Uuid) -> bool) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).retain(|agent, _| is_known(*agent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_skew_is_reported_once_and_at_most_once_a_minute() {
        let (clocks, agent) = (Clocks::default(), Uuid::from_u128(1));
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let ahead = |now| clocks.news(at(now)).into_iter().map(|news| (news.ahead, news.was_off)).collect::<Vec<_>>();
        clocks.told(agent, at(1060), at(1000));
        assert_eq!(ahead(1000), [(0, false)], "as far apart as clocks may be; what stood in the ledger is over");
        clocks.told(agent, at(1061), at(1000));
        assert_eq!(ahead(1059), []);
        assert_eq!(ahead(1060), [(61, false)]);
        for n in 0..1000 {
            clocks.told(agent, at(n * 100_000), at(1060));
            assert_eq!(ahead(1060 + n % 60), []);
        }
        clocks.told(agent, at(1061), at(1060));
        assert_eq!(ahead(1120), [(0, true)]);
        assert_eq!(ahead(9999), []);
        clocks.keep(|_| false);
        clocks.told(agent, at(0), at(200_000));
        assert_eq!(ahead(200_000), [(-200_000, false)]);
    }
}
