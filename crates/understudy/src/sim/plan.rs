//! What a seed brings: the network's weather, the daemon's limits, the writes at the source, and what goes wrong when.

use testkit::rng::Rng;

use super::disk::Trouble as DiskTrouble;
use super::process::Death;
use super::target::Trouble;
use super::world::{Place, Weather};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of a machine's daemon after so many more effects.
    Kill { machine: usize, after: u64 },
    /// The machine loses its power.
    PowerLoss { machine: usize },
    /// A machine's daemon is killed, or stopped, and is not started again for a while.
    Away {
        machine: usize,
        in_good_order: bool,
        for_ms: u64,
    },
    /// All connections to a server break.
    Cut(Place),
    /// The target is down for a while, and comes back without its last changes.
    TargetFalls { lost: usize, down_ms: u64 },
    /// The target takes no writes for a while.
    TargetTrouble { trouble: Trouble, for_ms: u64 },
    /// The source is down for a while; its history is known afterwards.
    SourceRestarts { down_ms: u64 },
    /// A replica of the source takes over, without its last commands.
    SourceFails { lost: usize, down_ms: u64 },
    /// The source comes back with another history.
    SourceForgets { down_ms: u64 },
    /// Somebody else writes a counter and a list at the target.
    Spoil { db: u32, n: u64 },
    /// The source's backlog begins at its end.
    BacklogShrinks,
    /// A machine's disk is full, or broken, for a while.
    Disk {
        machine: usize,
        trouble: DiskTrouble,
        for_ms: u64,
    },
}

/// A seed's life.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) weather: Weather,
    /// Writes at the source, and the longest pause between two of them.
    pub(super) writes: u64,
    pub(super) gap_ms: u64,
    pub(super) keys: u64,
    pub(super) expiries: bool,
    pub(super) backlog_bytes: u64,
    pub(super) batch_commands: usize,
    pub(super) tail_bytes: usize,
    pub(super) retain_bytes: u64,
    pub(super) inflight_bytes: usize,
    /// How many keys under repair a checkpoint names, where it is not the usual number.
    pub(super) named_max: Option<usize>,
    /// How long the part may become that is kept for what is unseen.
    pub(super) unseen_bytes_max: u64,
    /// Values of a snapshot go as RESTORE.
    pub(super) restore: bool,
    /// When each machine's daemon is started.
    pub(super) machines: Vec<u64>,
    pub(super) faults: Vec<(u64, Fault)>,
    /// What happens at one effect of the first machine's first process.
    pub(super) death: Option<Death>,
}

impl Plan {
    /// The plan of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let writes = rng.within(20..150);
        let gap_ms = *rng.pick(&[1, 10, 60, 200]);
        let is_calm = rng.one_in(8);
        let mut machines = vec![0];
        let span_ms = writes * gap_ms / 2 + 2_000;
        if rng.one_in(6) {
            machines.push(rng.below(span_ms));
        }
        let faults = if is_calm { 0 } else { rng.below(7) };
        let mut faults: Vec<(u64, Fault)> = (0..faults)
            .map(|_| (rng.below(span_ms), Self::fault(rng, machines.len() as u64)))
            .collect();
        faults.sort_by_key(|(at_ms, _)| *at_ms);
        let mut plan = Self {
            seed,
            weather: Weather {
                delay_ms: *rng.pick(&[0, 1, 3, 20]),
                breaks_one_in: if is_calm {
                    0
                } else {
                    *rng.pick(&[0, 0, 10, 3])
                },
                late_ms: if is_calm {
                    0
                } else {
                    *rng.pick(&[0, 30, 3_000])
                },
                pieces: !is_calm && rng.one_in(2),
            },
            writes,
            gap_ms,
            keys: rng.within(1..6),
            expiries: rng.one_in(2),
            backlog_bytes: *rng.pick(&[300, 3_000, 1 << 20, 1 << 20]),
            batch_commands: *rng.pick(&[1, 3, 20, 1000]),
            tail_bytes: *rng.pick(&[1, 300, 1 << 20]),
            retain_bytes: *rng.pick(&[0, 2_000, 1 << 20]),
            inflight_bytes: *rng.pick(&[64, 1_000, 1 << 20]),
            restore: rng.one_in(2),
            named_max: None,
            unseen_bytes_max: u64::MAX,
            machines,
            faults,
            death: None,
        };
        // Drawn apart, so that the seeds that do not have this stay as they are.
        let other = &mut Rng::new(seed ^ 0x4a3e5);
        if other.one_in(3) {
            plan.named_max = Some(other.below(3) as usize);
            plan.unseen_bytes_max = *other.pick(&[0, 500, u64::MAX, u64::MAX]);
        }
        if rng.one_in(3) {
            plan.spoil(rng, span_ms);
            return plan;
        }
        plan.with_outage(&mut Rng::new(seed ^ 0x0a3a7))
    }

    /// Some seeds have an outage that outlasts expiries, and writes enough to save keys in it.
    fn with_outage(mut self, rng: &mut Rng) -> Self {
        if !rng.one_in(4) {
            return self;
        }
        (self.expiries, self.gap_ms) = (true, *rng.pick(&[200, 400, 800]));
        let at_ms = rng.within(1_000..12_000);
        let for_ms = rng.within(2_000..40_000);
        let fault = match rng.below(4) {
            0 => Fault::Away {
                machine: 0,
                in_good_order: true,
                for_ms,
            },
            1 => Fault::TargetFalls {
                lost: 0,
                down_ms: for_ms,
            },
            2 => Fault::TargetTrouble {
                trouble: Trouble::OutOfMemory,
                for_ms,
            },
            _ => Fault::Away {
                machine: 0,
                in_good_order: false,
                for_ms,
            },
        };
        self.faults.push((at_ms, fault));
        self.faults.sort_by_key(|(at_ms, _)| *at_ms);
        self
    }

    /// Others write at the target.
    fn spoil(&mut self, rng: &mut Rng, span_ms: u64) {
        for _ in 0..rng.within(1..4) {
            let db = *rng.pick(&[0, 0, 0, 3, 7]);
            let n = rng.below(self.keys);
            self.faults
                .push((rng.below(span_ms), Fault::Spoil { db, n }));
        }
        self.faults.sort_by_key(|(at_ms, _)| *at_ms);
    }

    fn fault(rng: &mut Rng, machines: u64) -> Fault {
        let machine = rng.below(machines) as usize;
        let for_ms = *rng.pick(&[50, 500, 3_000]);
        let lost = rng.below(8) as usize;
        match rng.below(16) {
            0..4 => Fault::Kill {
                machine,
                after: rng.within(1..60),
            },
            4 => Fault::PowerLoss { machine },
            5 | 6 => Fault::Cut(Place::Target),
            7 => Fault::Cut(Place::Source),
            8 | 9 => Fault::TargetFalls {
                lost,
                down_ms: for_ms,
            },
            10 | 11 => Fault::TargetTrouble {
                trouble: *rng.pick(&[
                    Trouble::OutOfMemory,
                    Trouble::ReadOnly,
                    Trouble::Misconf,
                    Trouble::NoReplicas,
                    Trouble::Loading,
                    Trouble::Busy { old: true },
                    Trouble::Busy { old: false },
                ]),
                for_ms,
            },
            12 => Fault::SourceRestarts { down_ms: for_ms },
            13 if rng.one_in(3) => Fault::SourceForgets { down_ms: for_ms },
            13 => Fault::SourceFails {
                lost: 0,
                down_ms: for_ms,
            },
            14 => Fault::SourceFails {
                lost,
                down_ms: for_ms,
            },
            _ if rng.one_in(2) => Fault::BacklogShrinks,
            _ => Fault::Disk {
                machine,
                trouble: *rng.pick(&[DiskTrouble::Full, DiskTrouble::Broken]),
                for_ms,
            },
        }
    }

    /// When the last of it is over.
    pub(super) fn end_ms(&self) -> u64 {
        let faults = self.faults.iter().map(|(at_ms, fault)| {
            at_ms
                + match fault {
                    Fault::TargetFalls { down_ms, .. }
                    | Fault::SourceRestarts { down_ms }
                    | Fault::SourceFails { down_ms, .. }
                    | Fault::SourceForgets { down_ms } => *down_ms,
                    Fault::TargetTrouble { for_ms, .. }
                    | Fault::Disk { for_ms, .. }
                    | Fault::Away { for_ms, .. } => *for_ms,
                    Fault::Kill { .. }
                    | Fault::PowerLoss { .. }
                    | Fault::Cut(_)
                    | Fault::Spoil { .. }
                    | Fault::BacklogShrinks => 0,
                }
        });
        faults
            .chain(self.machines.iter().copied())
            .max()
            .unwrap_or(0)
            + 1
    }

    /// Whether a disk fails.
    pub(super) fn has_disk_trouble(&self) -> bool {
        self.faults
            .iter()
            .any(|(_, fault)| matches!(fault, Fault::Disk { .. }))
    }
}
