//! A draft's guardrails over a series of decisions: the rules of `store/ledger/guard.rs`, counted
//! in memory along the alerts' own times.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use riposte_protocol::time::Timestamp;
use uuid::Uuid;

use crate::domain::guardrails::{self, LimitCounts, Ruling};
use crate::domain::policy::{Limits, Policy, Rate};
use crate::domain::response::{NewResponse, Spared, Verdict};
use crate::views::backtest::{BacktestReport, Sample};

/// Number of windows at which expired ones are first removed.
const MAX_WINDOWS: usize = 100_000;
/// Examples per reason for spared responses.
const SAMPLES_PER_REASON: usize = 3;

/// A decision of the draft.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) alert_id: Uuid,
    pub(super) time: Timestamp,
    pub(super) rule_id: String,
    pub(super) response: NewResponse,
}

enum Fate {
    Act,
    Ask(&'static str),
    Spare(Spared),
    /// Below the threshold: only counted.
    Nothing,
}

/// State of the guardrails.
pub(super) struct GuardrailReplay<'a> {
    policy: &'a Policy,
    wanted: usize,
    report: BacktestReport,
    sightings: Windows<VecDeque<Timestamp>>,
    responses: VecDeque<Timestamp>,
    recent: VecDeque<(Timestamp, u64)>,
    /// Number of entries per target in `recent`.
    distinct: HashMap<u64, u32>,
    last_on: Windows<Timestamp>,
    waiting: Windows<Timestamp>,
    targets: HashSet<u64>,
    agents: HashSet<Uuid>,
    minutes: HashMap<i64, u64>,
}

impl<'a> GuardrailReplay<'a> {
    pub(super) fn new(policy: &'a Policy, wanted: usize) -> Self {
        Self {
            policy,
            wanted,
            report: BacktestReport::default(),
            sightings: Windows::default(),
            responses: VecDeque::new(),
            recent: VecDeque::new(),
            distinct: HashMap::new(),
            last_on: Windows::default(),
            waiting: Windows::default(),
            targets: HashSet::new(),
            agents: HashSet::new(),
            minutes: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, judged: Vec<Judged>) {
        for one in judged {
            self.one(one);
        }
    }

    pub(super) fn report(mut self, scanned: u64) -> BacktestReport {
        self.report.alerts_scanned = scanned;
        self.report.targets = self.targets.len() as u64;
        self.report.agents = self.agents.len() as u64;
        self.report.peak_per_minute = self.minutes.into_values().max().unwrap_or(0);
        self.report
    }

    fn one(&mut self, judged: Judged) {
        let Judged { alert_id, time, rule_id, mut response } = judged;
        self.report.matched += 1;
        let target = hashed(&response.target);
        let fate = match std::mem::take(&mut response.verdict) {
            Verdict::Spare(spared) => Fate::Spare(spared),
            _ => self.guard(&response, target, time),
        };
        let (outcome, reason) = match fate {
            Fate::Nothing => return,
            Fate::Act => ("act", None),
            Fate::Ask(why) => ("ask", Some(why.to_owned())),
            Fate::Spare(spared) => {
                let count = self.report.spared.entry(spared.reason().to_owned()).or_insert(0);
                *count += 1;
                if *count > SAMPLES_PER_REASON as u64 {
                    return;
                }
                ("spare", Some(spared.detail()))
            }
        };
        if outcome != "spare" {
            self.report.responses += 1;
            self.report.awaiting_approval += u64::from(outcome == "ask");
            self.targets.insert(target);
            self.agents.extend(&response.agents);
            *self.minutes.entry(time.as_millis().div_euclid(60_000)).or_insert(0) += 1;
        }
        if self.report.samples.len() < self.wanted {
            let target = response.target.map(|target| target.value().to_owned());
            let (agents, outcome) = (response.agents.len(), outcome.to_owned());
            self.report.samples.push(Sample { alert_id, time, rule_id, outcome, reason, target, agents });
        }
    }

    fn guard(&mut self, response: &NewResponse, target: u64, time: Timestamp) -> Fate {
        if let Some(threshold) = &self.policy.guardrails.threshold {
            let within = threshold.within.duration();
            let seen = self.sightings.of.entry(hashed(&response.counted)).or_default();
            seen.push_back(time);
            drop_older(seen, time, within, |at| *at);
            if !threshold.is_reached(seen.len() as u64) {
                self.sightings.bound(|seen| seen.back().is_none_or(|last| last.plus(within) < time));
                return Fate::Nothing;
            }
            seen.clear();
        }
        let over = self.policy.guardrails.limits.as_ref().and_then(|limits| self.over(limits, response, target, time));
        match guardrails::rule(self.policy, over.clone(), false) {
            Ruling::Spare(spared) => Fate::Spare(spared),
            // It would not act; the limit is why.
            Ruling::Observe(_) => over.map_or(Fate::Nothing, Fate::Spare),
            Ruling::Ask if over.is_some() => self.ask(target, time, "over a limit"),
            Ruling::Ask => self.ask(target, time, "the policy requires approval"),
            Ruling::Act => {
                if let Some(limits) = &self.policy.guardrails.limits {
                    self.remember(limits, target, time);
                }
                Fate::Act
            }
        }
    }

    fn remember(&mut self, limits: &Limits, target: u64, time: Timestamp) {
        if limits.responses.is_some() {
            self.responses.push_back(time);
        }
        if limits.targets.is_some() {
            self.recent.push_back((time, target));
            *self.distinct.entry(target).or_insert(0) += 1;
        }
        if limits.cooldown.is_some() {
            self.last_on.of.insert(target, time);
        }
    }

    fn forget_targets(&mut self, now: Timestamp, within: Duration) {
        while let Some((at, target)) = self.recent.front().copied()
            && at.plus(within) <= now
        {
            self.recent.pop_front();
            if let Some(times) = self.distinct.get_mut(&target) {
                *times -= 1;
                if *times == 0 {
                    self.distinct.remove(&target);
                }
            }
        }
    }

    /// Approval is requested once per target until a decision arrives.
    fn ask(&mut self, target: u64, time: Timestamp, why: &'static str) -> Fate {
        let within = self.policy.guardrails.approval.clone().unwrap_or_default().within.duration();
        if self.waiting.of.get(&target).is_some_and(|asked| asked.plus(within) > time) {
            return Fate::Spare(Spared::Waiting);
        }
        self.waiting.of.insert(target, time);
        if self.policy.guardrails.limits.as_ref().is_some_and(|limits| limits.cooldown.is_some()) {
            self.last_on.of.insert(target, time);
        }
        self.waiting.bound(|asked| asked.plus(within) < time);
        Fate::Ask(why)
    }

    fn over(&mut self, limits: &Limits, response: &NewResponse, target: u64, time: Timestamp) -> Option<Spared> {
        let mut counts = LimitCounts { agents: response.agents.len(), fleet: response.fleet, ..LimitCounts::default() };
        if let Some(cooldown) = limits.cooldown {
            let cooldown = cooldown.duration();
            self.last_on.bound(|last| last.plus(cooldown) < time);
            counts.on_target = self.last_on.of.get(&target).is_some_and(|last| last.plus(cooldown) > time).into();
        }
        if let Some(Rate { within, .. }) = limits.responses {
            drop_older(&mut self.responses, time, within.duration(), |at| *at);
            counts.responses = self.responses.len() as u64;
        }
        if let Some(Rate { within, .. }) = limits.targets {
            self.forget_targets(time, within.duration());
            let others = self.distinct.len() - usize::from(self.distinct.contains_key(&target));
            counts.other_targets = others as u64;
        }
        limits.exceeded(&counts)
    }
}

/// Drops entries older than the window. Alerts are only roughly in order, so the newest time
/// counts.
fn drop_older<T>(window: &mut VecDeque<T>, now: Timestamp, within: Duration, at: impl Fn(&T) -> Timestamp) {
    while window.front().is_some_and(|first| at(first).plus(within) <= now) {
        window.pop_front();
    }
}

/// A value per key, removed when its window ends.
struct Windows<T> {
    of: HashMap<u64, T>,
    /// Number of entries at which expired ones are removed: twice the number left by the last
    /// removal, so the cost per entry stays small.
    most: usize,
}

impl<T> Default for Windows<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), most: MAX_WINDOWS }
    }
}

impl<T> Windows<T> {
    fn bound(&mut self, is_over: impl Fn(&T) -> bool) {
        if self.of.len() > self.most {
            self.of.retain(|_, window| !is_over(window));
            self.most = MAX_WINDOWS.max(self.of.len() * 2);
        }
    }
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
