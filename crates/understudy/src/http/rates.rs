//! What was counted second by second: rates, the page's charts, and how long a snapshot still takes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::clock::unix_ms;
use crate::status::{Phase, Status};

/// Seconds that charts go back.
const CHART: usize = 300;
/// Seconds that latencies and the time left are told over: one alone is too restless.
const WINDOW: usize = 10;

/// Per second, over the last one.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// Keys of the snapshot and commands of the stream.
    pub(super) total: f64,
    pub(super) keys: f64,
    /// Keyspace events.
    pub(super) events: f64,
    pub(super) snapshot_bytes: f64,
    pub(super) stream_bytes: f64,
    /// Seconds until the snapshot is applied, where that can be told.
    pub(super) snapshot_left: Option<f64>,
    /// Median and 99th percentile of the time from source to target, in seconds.
    pub(super) latency: Option<(f64, f64)>,
    commands: HashMap<usize, f64>,
    nodes: BTreeMap<String, f64>,
}

impl Rates {
    pub(super) fn command(&self, index: usize) -> f64 {
        self.commands.get(&index).copied().unwrap_or(0.0)
    }

    /// Commands to a node of a cluster.
    pub(super) fn node(&self, address: &str) -> f64 {
        self.nodes.get(address).copied().unwrap_or(0.0)
    }
}

/// What was counted at some moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    phase: Phase,
    commands_total: u64,
    keys: u64,
    events: u64,
    snapshot_total: u64,
    snapshot_applied: u64,
    applied_offset: u64,
    latency: Vec<(f64, u64)>,
    commands: HashMap<usize, u64>,
    nodes: BTreeMap<String, u64>,
}

impl Sample {
    fn of(status: &Status) -> Self {
        let nodes = status.nodes.read().into_iter();
        Self {
            at: Instant::now(),
            phase: status.phase(),
            commands_total: status.commands.total(),
            keys: status.snapshot_keys_total.get(),
            events: status.scan.events.get(),
            snapshot_total: status.snapshot_bytes.get(),
            snapshot_applied: status.snapshot_applied.get(),
            applied_offset: status.applied_offset.get(),
            latency: status.apply_latency_seconds.read().0,
            commands: status.commands.read().into_iter().collect(),
            nodes: nodes
                .map(|(address, node)| (address, node.commands))
                .collect(),
        }
    }

    /// How fast a number has grown since an earlier sample.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn rate(&self, earlier: &Self, now: u64, before: u64) -> f64 {
        let seconds = (self.at - earlier.at).as_secs_f64().max(1e-3);
        now.saturating_sub(before) as f64 / seconds
    }

    /// Rates since the sample before; `oldest` is the one that was a window ago.
    fn since(&self, before: &Self, oldest: &Self) -> Rates {
        let rate = |now: u64, before_that: u64| self.rate(before, now, before_that);
        let commands = self.commands.iter().map(|(index, count)| {
            let counted = before.commands.get(index).copied().unwrap_or(0);
            (*index, rate(*count, counted))
        });
        let nodes = self.nodes.iter().map(|(address, count)| {
            let counted = before.nodes.get(address).copied().unwrap_or(0);
            (address.clone(), rate(*count, counted))
        });
        let total = |sample: &Self| sample.commands_total + sample.keys;
        // Where a stream begins its offset leaps, and a snapshot that is taken anew begins at zero.
        let streams = self.phase == Phase::Stream && before.phase == Phase::Stream;
        Rates {
            total: rate(total(self), total(before)),
            keys: rate(self.keys, before.keys),
            events: rate(self.events, before.events),
            snapshot_bytes: rate(self.snapshot_applied, before.snapshot_applied),
            stream_bytes: match streams {
                true => rate(self.applied_offset, before.applied_offset),
                false => 0.0,
            },
            snapshot_left: self.snapshot_left(oldest),
            latency: self.latency(oldest),
            commands: commands.collect(),
            nodes: nodes.collect(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a guess for people")]
    fn snapshot_left(&self, oldest: &Self) -> Option<f64> {
        let is_known = self.phase == Phase::Snapshot && self.snapshot_total > 0;
        let rate = self.rate(oldest, self.snapshot_applied, oldest.snapshot_applied);
        let left = self.snapshot_total.saturating_sub(self.snapshot_applied);
        (is_known && rate > 0.0).then(|| left as f64 / rate)
    }

    fn latency(&self, oldest: &Self) -> Option<(f64, f64)> {
        let buckets = self.latency.iter().zip(&oldest.latency);
        let counts: Vec<(f64, u64)> = buckets
            .map(|((bound, now), (_, before))| (*bound, now.saturating_sub(*before)))
            .collect();
        Some((quantile(&counts, 0.5)?, quantile(&counts, 0.99)?))
    }
}

/// A quantile of cumulative counts per upper bound, in a straight line within a bucket; what is above all bounds counts as
/// the last.
#[expect(clippy::cast_precision_loss, reason = "a quantile for people")]
fn quantile(counts: &[(f64, u64)], share: f64) -> Option<f64> {
    let (_, all) = counts.last()?;
    if *all == 0 {
        return None;
    }
    let wanted = *all as f64 * share;
    let (mut from, mut below) = (0.0, 0);
    for (bound, count) in counts {
        if *count as f64 >= wanted {
            let within = (wanted - below as f64) / (count - below).max(1) as f64;
            return Some(from + (bound - from) * within);
        }
        (from, below) = (*bound, *count);
    }
    Some(from)
}

/// A link's last minutes.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    rates: Rates,
    /// The newest last.
    window: VecDeque<Sample>,
    chart: VecDeque<Point>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at_ms: u64,
    lag_ms: u64,
    per_second: f64,
}

impl History {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the numbers; to be called once a second.
    pub(super) fn look(&self, status: &Status) {
        let (now, mut kept) = (Sample::of(status), self.kept());
        let kept = &mut *kept;
        if let (Some(before), Some(oldest)) = (kept.window.back(), kept.window.front()) {
            kept.rates = now.since(before, oldest);
            let point = Point {
                at_ms: unix_ms(),
                lag_ms: status.lag_ms(),
                per_second: kept.rates.total,
            };
            push(&mut kept.chart, point, CHART);
        }
        push(&mut kept.window, now, WINDOW + 1);
    }

    /// Over the last second.
    pub(super) fn rates(&self) -> Rates {
        self.kept().rates.clone()
    }

    /// `[[unix ms, lag in seconds, commands per second], ..]`, the newest last.
    #[expect(clippy::cast_precision_loss, reason = "a number for a chart")]
    pub(super) fn chart_json(&self) -> Value {
        let kept = self.kept();
        let points = kept.chart.iter();
        points
            .map(|point| {
                let lag_seconds = point.lag_ms as f64 / 1e3;
                json!([point.at_ms, lag_seconds, point.per_second.round()])
            })
            .collect()
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, len_max: usize) {
    if queue.len() == len_max {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let counts = [(0.001, 50), (0.01, 100), (0.1, 100)];
        let near = |share, wanted: f64| (quantile(&counts, share).unwrap() - wanted).abs() < 1e-9;
        assert!(near(0.5, 0.001) && near(0.75, 0.0055) && near(1.0, 0.01));
        assert_eq!(quantile(&[(0.1, 0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_time_left_is_told_while_a_snapshot_of_known_size_goes_on() {
        let status = Status::new(1);
        status.set_phase(Phase::Snapshot);
        let history = History::default();
        history.look(&status);
        status.snapshot_applied.set(100);
        history.look(&status);
        assert_eq!(history.rates().snapshot_left, None, "its size is not known");
        status.snapshot_bytes.set(1000);
        status.applied_offset.set(1 << 40);
        history.look(&status);
        let rates = history.rates();
        assert!(rates.snapshot_left.is_some_and(|left| left > 0.0));
        assert!(
            rates.stream_bytes < 1.0,
            "no stream yet: {}",
            rates.stream_bytes
        );
        assert_eq!(history.chart_json().as_array().map(Vec::len), Some(2));
        for _ in 0..2 * CHART {
            history.look(&status);
        }
        assert_eq!(history.chart_json().as_array().map(Vec::len), Some(CHART));
    }
}
