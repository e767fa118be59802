//! What the daemon is doing, as numbers: written by the link's thread, read by HTTP and progress.
//!
//! Every number has one writer, so plain relaxed loads and stores do; no lock is on the hot path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::unix_ms;
use crate::handover::Handover;

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
    /// The source is read by SCAN and keyspace events.
    Scan,
    /// Ended.
    Stopped,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 6] = [
        Self::Handshaking,
        Self::WaitingBgsave,
        Self::Snapshot,
        Self::Stream,
        Self::Scan,
        Self::Stopped,
    ];

    /// Its label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshaking => "handshaking",
            Self::WaitingBgsave => "waiting_bgsave",
            Self::Snapshot => "snapshot",
            Self::Stream => "stream",
            Self::Scan => "scan",
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

/// The numbers of a link whose source is read by SCAN.
#[derive(Debug, Default)]
pub struct ScanStatus {
    /// Keyspace events received.
    pub events: Number,
    /// Keys that wait for being read, or for the target's answer.
    pub dirty: Number,
    /// Keys that were not noted, the set being full.
    pub overflows: Number,
    /// Keys put at the target, removed ones too.
    pub keys: Number,
    /// Sweeps done.
    pub sweeps: Number,
    /// Keys that differed in the last one.
    pub differences: Number,
    /// How long it took, in milliseconds.
    pub sweep_ms: Number,
    /// Keys that no sweep could compare.
    pub unchecked: Number,
    /// 1 when the last sweep found nothing, and nothing has happened since that only a sweep finds.
    pub is_clean: Number,
    /// 1 when keyspace events are subscribed to, and the source is known to send them.
    pub hears_events: Number,
    /// Keys that the source had when the sweep under way began.
    pub sweep_keys: Number,
    /// Keys that it has looked at.
    pub swept_keys: Number,
    /// Where it is.
    pub db: Number,
    /// Cursor there.
    pub cursor: Number,
    /// How long the source takes to answer others, in microseconds.
    pub latency_us: Number,
    /// The share of the time in which it is read.
    pub pace_percent: Number,
}

/// One node of a target cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Slots that it has.
    pub slots: u64,
    /// Commands that it has answered.
    pub commands: u64,
    /// Bytes that it was sent and has not answered.
    pub inflight_bytes: u64,
    /// Unix milliseconds of its last answer; 0 before the first.
    pub answered_ms: u64,
    /// Commands that it has refused.
    pub errors: u64,
}

/// The primaries of a target cluster, by address; once for each window that is sent, not for each command.
#[derive(Debug, Default)]
pub struct Nodes(Mutex<BTreeMap<String, Node>>);

impl Nodes {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn read(&self) -> BTreeMap<String, Node> {
        self.all().clone()
    }

    /// Those with so many slots are the cluster; others are no longer told of, and nothing is on its way.
    pub fn set_slots(&self, slots: &BTreeMap<String, u64>) {
        let mut all = self.all();
        all.retain(|address, _| slots.contains_key(address));
        for (address, slots) in slots {
            let node = all.entry(address.clone()).or_default();
            (node.slots, node.inflight_bytes) = (*slots, 0);
        }
    }

    /// One slot has moved.
    pub fn moved(&self, from: &str, to: &str) {
        let mut all = self.all();
        if let Some(node) = all.get_mut(from) {
            node.slots = node.slots.saturating_sub(1);
        }
        all.entry(to.to_owned()).or_default().slots += 1;
    }

    /// So many bytes go to a node.
    pub fn sent(&self, address: &str, bytes: u64) {
        self.all()
            .entry(address.to_owned())
            .or_default()
            .inflight_bytes = bytes;
    }

    /// A node has answered all it was sent.
    pub fn answered(&self, address: &str, commands: u64, errors: u64) {
        let mut all = self.all();
        let node = all.entry(address.to_owned()).or_default();
        node.commands += commands;
        node.errors += errors;
        (node.inflight_bytes, node.answered_ms) = (0, unix_ms());
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
    pub rewritten: CommandCounters,
    /// Commands that the target lacks and that were left out, by name.
    pub lacking: Counters,
    /// Error replies of the target, by code.
    pub target_errors: Counters,
    /// Commands that failed inside a committed EXEC, by code.
    pub divergences: Counters,
    /// Keys repaired from the source.
    pub repairs: Number,
    /// Keys under repair.
    pub repairs_open: Number,
    /// Slots of a source cluster that the link holds.
    pub slots_held: Number,
    /// Slots that have moved to its shard, and are not taken over yet.
    pub slots_moving: Number,
    /// Slots that were taken over.
    pub slots_taken: Number,
    /// Keys that another link of this process had written before: see `pipeline::rivals`.
    pub key_conflicts: Number,
    /// Keys put under repair because the target may have ended them before their time.
    pub doubtful: Number,
    /// Such keys that are not repaired, being too many.
    pub unchecked: Number,
    /// What may have failed when nobody saw the answers, by what became of it.
    pub suspects: Counters,
    /// Commands and transactions of several slots of a cluster, by what became of them.
    pub cross_slot: Counters,
    /// Reconnects, by side.
    pub reconnects: Counters,
    /// Full syncs, by reason.
    pub full_resyncs: Counters,
    /// Partial syncs.
    pub partial_resyncs: Number,
    /// Keys compared with the source's, by result.
    pub compared: Counters,
    /// Times that all keys were compared.
    pub compare_passes: Number,
    /// Keys that differed in the last of them.
    pub compare_found: Number,
    /// When the source told its offset last, Unix milliseconds.
    pub source_heard_ms: Number,
    /// Names this run in the target's checkpoint.
    pub owner: Number,
    /// 1 while a switch-over might begin; as of the last scrape.
    pub cutover_ready: Number,
    /// The switch-over.
    pub handover: Handover,
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
    /// 1 while the target takes much less than it did.
    pub target_throttled: Number,
    /// Bytes sent to the target and not yet answered.
    pub inflight_bytes: Number,
    /// Commands sent to the target and not yet answered.
    pub inflight_commands: Number,
    /// What is told of a source that is read by SCAN.
    pub scan: ScanStatus,
    /// The nodes of a target that is a cluster.
    pub nodes: Arc<Nodes>,
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
        self.hits(index, 1);
    }

    /// Counts so many.
    pub fn hits(&self, index: usize, count: u64) {
        if let Some(slot) = self.slots.get(index) {
            slot.add(count);
        }
        self.total.add(count);
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
        let counters = || CommandCounters {
            slots: (0..commands).map(|_| Number::default()).collect(),
            total: Number::default(),
        };
        let status = Self {
            commands: counters(),
            rewritten: counters(),
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

    /// What stands between now and [`Self::is_ready`], in words.
    pub fn waits_for(&self, lag_max_ms: u64) -> Vec<String> {
        let phase = match self.phase() {
            Phase::Handshaking => Some("both ends are being connected"),
            Phase::WaitingBgsave => Some("the source prepares its snapshot"),
            Phase::Snapshot => Some("the snapshot is being applied"),
            Phase::Stopped => Some("the link has stopped"),
            Phase::Scan if self.scan.is_clean.get() == 0 => {
                Some("no sweep has found both ends equal yet")
            }
            Phase::Stream | Phase::Scan => None,
        };
        if let Some(phase) = phase {
            return vec![phase.to_owned()];
        }
        let mut waits = Vec::new();
        let (lag_ms, leases, repairs) = (
            self.lag_ms(),
            self.leases_far.get(),
            self.repairs_open.get(),
        );
        if lag_ms > lag_max_ms {
            #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
            let seconds = |ms: u64| ms as f64 / 1e3;
            waits.push(format!(
                "the lag, {:.1} s, is above advanced.ready_lag, {} s",
                seconds(lag_ms),
                seconds(lag_max_ms)
            ));
        }
        if repairs > 0 {
            waits.push(format!(
                "{repairs} keys are being copied again from the source"
            ));
        }
        if leases > 0 {
            waits.push(format!(
                "{leases} keys do not have their own expiry yet, which they get as the stream passes"
            ));
        }
        let moving = self.slots_moving.get();
        if moving > 0 {
            waits.push(format!(
                "{moving} slots have moved to this shard of the source and are being taken over"
            ));
        }
        waits
    }

    /// Whether the target is a faithful copy, up to `lag_max_ms`.
    pub fn is_ready(&self, lag_max_ms: u64) -> bool {
        let waits = self.leases_far.get() + self.repairs_open.get() + self.slots_moving.get();
        let is_copy = match self.phase() {
            Phase::Stream => true,
            Phase::Scan => self.scan.is_clean.get() == 1,
            _ => false,
        };
        is_copy && waits == 0 && self.lag_ms() <= lag_max_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_exactly_while_it_is_not_ready() {
        let status = Status::new(1);
        for phase in Phase::ALL {
            status.set_phase(phase);
            assert_eq!(status.waits_for(1000).is_empty(), status.is_ready(1000));
        }
        status.set_phase(Phase::Stream);
        status.repairs_open.set(2);
        status.leases_far.set(3);
        status.oldest_unapplied_ms.set(unix_ms() - 12_340);
        let waits = status.waits_for(1000).join("; ");
        assert!(
            waits.contains("12.3 s") && waits.contains("2 keys") && waits.contains("3 keys"),
            "{waits}"
        );
        assert!(!status.is_ready(1000));
        let status = Status::new(1);
        status.set_phase(Phase::Stream);
        status.slots_moving.set(5);
        assert_eq!(status.waits_for(1000).len(), 1);
        assert!(!status.is_ready(1000));
    }

    #[test]
    fn nodes_follow_the_slots() {
        let nodes = Nodes::default();
        let slots = [("a:1".to_owned(), 2), ("b:1".to_owned(), 1)];
        nodes.set_slots(&slots.into());
        nodes.sent("a:1", 70);
        nodes.answered("a:1", 5, 1);
        nodes.moved("a:1", "b:1");
        nodes.sent("b:1", 9);
        let read = nodes.read();
        assert_eq!(
            (read["a:1"].slots, read["a:1"].commands, read["a:1"].errors),
            (1, 5, 1)
        );
        assert_eq!((read["b:1"].slots, read["b:1"].inflight_bytes), (2, 9));
        nodes.set_slots(&[("b:1".to_owned(), 3)].into());
        assert_eq!(nodes.read().len(), 1);
        assert_eq!(nodes.read()["b:1"].inflight_bytes, 0);
    }

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
