//! What the daemon is doing, as numbers: written by the link's thread, read by HTTP and progress.
//!
//! Every number has one writer, so plain relaxed loads and stores do; no lock is on the hot path.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::clock::unix_ms;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds to it (one writer, so no atomic addition is needed).
    pub fn add(&self, value: u64) {
        self.set(self.get() + value);
    }
}

/// What a link is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Connecting and talking to both ends.
    Handshaking,
    /// The source prepares its snapshot.
    WaitingBgsave,
    /// The snapshot arrives and is applied.
    Snapshot,
    /// The command stream is applied.
    Stream,
    /// Ended.
    Stopped,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 5] = [
        Self::Handshaking,
        Self::WaitingBgsave,
        Self::Snapshot,
        Self::Stream,
        Self::Stopped,
    ];

    /// Its label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshaking => "handshaking",
            Self::WaitingBgsave => "waiting_bgsave",
            Self::Snapshot => "snapshot",
            Self::Stream => "stream",
            Self::Stopped => "stopped",
        }
    }
}

/// Bounds of a histogram, in seconds.
pub const LATENCY_BOUNDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// A histogram with one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Number; LATENCY_BOUNDS.len() + 1],
    sum_micros: Number,
}

impl Histogram {
    /// Counts `seconds`, `times` times.
    pub fn record(&self, seconds: f64, times: u64) {
        let at = LATENCY_BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = self.buckets.get(at.unwrap_or(LATENCY_BOUNDS.len())) {
            bucket.add(times);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a duration"
        )]
        self.sum_micros.add((seconds * 1e6) as u64 * times);
    }

    /// `(cumulative counts per bound, sum in seconds, count)`.
    pub fn read(&self) -> (Vec<(f64, u64)>, f64, u64) {
        let mut count = 0;
        let mut out = Vec::with_capacity(LATENCY_BOUNDS.len());
        for (bound, bucket) in LATENCY_BOUNDS.iter().zip(&self.buckets) {
            count += bucket.get();
            out.push((*bound, count));
        }
        count += self.buckets.last().map_or(0, Number::get);
        #[expect(clippy::cast_precision_loss, reason = "a sum for a graph")]
        let sum = self.sum_micros.get() as f64 / 1e6;
        (out, sum, count)
    }
}

/// Labelled counters that are off the hot path.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    /// Adds to the counter called `label`.
    pub fn add(&self, label: &str, value: u64) {
        let mut map = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match map.get_mut(label) {
            Some(count) => *count += value,
            None => {
                map.insert(label.to_owned(), value);
            }
        }
    }

    /// All of them.
    pub fn read(&self) -> BTreeMap<String, u64> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.read().values().sum()
    }
}

/// The numbers of a link.
#[derive(Debug, Default)]
pub struct Status {
    phase: AtomicU8,
    /// Unix milliseconds of the start.
    pub started_ms: Number,
    /// Offset received from the source.
    pub source_offset: Number,
    /// Offset in the spool.
    pub spooled_offset: Number,
    /// Offset confirmed by the target.
    pub applied_offset: Number,
    /// When the oldest unapplied byte was received; 0 when there is none.
    pub oldest_unapplied_ms: Number,
    /// Size of the snapshot, 0 when not known.
    pub snapshot_bytes: Number,
    /// Bytes of it received.
    pub snapshot_read: Number,
    /// Bytes of it applied.
    pub snapshot_applied: Number,
    /// Keys of it applied, `type|method`.
    pub snapshot_keys: Counters,
    /// Keys of it applied, all.
    pub snapshot_keys_total: Number,
    /// Commands applied, by name.
    pub commands: CommandCounters,
    /// Commands dropped, by reason.
    pub dropped: Counters,
    /// Commands changed on the way.
    pub rewritten: Number,
    /// Error replies of the target, by code.
    pub target_errors: Counters,
    /// Commands that failed inside a committed EXEC, by code.
    pub divergences: Counters,
    /// Keys repaired from the source.
    pub repairs: Number,
    /// Keys under repair.
    pub repairs_open: Number,
    /// Keys put under repair because the target may have ended them before their time.
    pub doubtful: Number,
    /// Such keys that are not repaired, being too many.
    pub unchecked: Number,
    /// What may have failed when nobody saw the answers, by what became of it.
    pub suspects: Counters,
    /// Reconnects, by side.
    pub reconnects: Counters,
    /// Full syncs, by reason.
    pub full_resyncs: Counters,
    /// Partial syncs.
    pub partial_resyncs: Number,
    /// Keys that have a lease instead of their own expiry.
    pub leases_open: Number,
    /// Those of them with more than some seconds left: they get their own expiry when nothing goes on.
    pub leases_waiting: Number,
    /// Those of them whose expiry is not near.
    pub leases_far: Number,
    /// How far the clocks of source and target are apart, in milliseconds.
    pub clock_skew_ms: Number,
    /// Bytes on disk.
    pub spool_bytes: Number,
    /// Most bytes on disk.
    pub spool_limit: Number,
    /// 1 while the disk under the spool takes nothing more.
    pub spool_disk_full: Number,
    /// Bytes sent to the target and not yet answered.
    pub inflight_bytes: Number,
    /// Commands sent to the target and not yet answered.
    pub inflight_commands: Number,
    /// Time of a unit from send to confirmation.
    pub batch_seconds: Histogram,
    /// Time from reception to confirmation.
    pub apply_latency_seconds: Histogram,
}

/// Counters per command, on the hot path: one slot per row of the command table.
#[derive(Debug, Default)]
pub struct CommandCounters {
    slots: Vec<Number>,
    total: Number,
}

impl CommandCounters {
    /// Counts one command.
    pub fn hit(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            slot.add(1);
        }
        self.total.add(1);
    }

    /// `(index, count)` of every command seen.
    pub fn read(&self) -> Vec<(usize, u64)> {
        let counts = self.slots.iter().map(Number::get).enumerate();
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// All commands.
    pub fn total(&self) -> u64 {
        self.total.get()
    }
}

impl Status {
    /// A status with room for `commands` kinds of command.
    pub fn new(commands: usize) -> Self {
        let slots = (0..commands).map(|_| Number::default()).collect();
        let status = Self {
            commands: CommandCounters {
                slots,
                total: Number::default(),
            },
            ..Self::default()
        };
        status.started_ms.set(unix_ms());
        status
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        let phase = self.phase.load(Relaxed);
        Phase::ALL
            .into_iter()
            .find(|known| *known as u8 == phase)
            .unwrap_or(Phase::Handshaking)
    }

    /// Enters a phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Bytes received and not yet confirmed.
    pub fn lag_bytes(&self) -> u64 {
        self.source_offset
            .get()
            .saturating_sub(self.applied_offset.get())
    }

    /// Age of the oldest byte received and not yet confirmed, in milliseconds.
    pub fn lag_ms(&self) -> u64 {
        match self.oldest_unapplied_ms.get() {
            0 => 0,
            at => unix_ms().saturating_sub(at),
        }
    }

    /// Whether the target is a faithful copy, up to `lag_max_ms`.
    pub fn is_ready(&self, lag_max_ms: u64) -> bool {
        let waits = self.leases_far.get() + self.repairs_open.get();
        self.phase() == Phase::Stream && waits == 0 && self.lag_ms() <= lag_max_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_is_cumulative() {
        let histogram = Histogram::default();
        histogram.record(0.0002, 3);
        histogram.record(99.0, 1);
        let (buckets, sum, count) = histogram.read();
        assert_eq!(
            (buckets[0].1, buckets[1].1, buckets[13].1, count),
            (0, 3, 3, 4)
        );
        assert!((sum - 99.0006).abs() < 1e-3);
    }
}
