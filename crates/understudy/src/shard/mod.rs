//! A source that is a cluster: a link for each of its shards, and slots that move from one to another.
//!
//! Each link follows one shard's stream and applies the commands of the slots that it *holds*, no others. What it holds is part of
//! its checkpoint (`held`). No order exists between the streams of two shards; so a slot that moves is handed over:
//!
//! 1. The link that holds it lets go: from some place of its stream on it passes over the slot, and its checkpoint says so.
//! 2. When that is confirmed, its claim at the target (`claims`) goes.
//! 3. The link of the new owner claims the slot, reads all of it at one moment of its own stream (`copy`), puts that in the place
//!    of what the target has, and goes on from that moment.
//!
//! The links may be in several processes (`slices`): the claims and the checkpoints are at the target, and nothing else is handed over.
//! Nothing is lost however the streams lie to each other, and whoever is killed in between begins with what its checkpoint says.
//!
//! Where the target is a cluster, a slot's own checkpoint says which link holds it (`target::cluster::holders`): it is written with
//! the slot's data and falls back with it, so that a node that was lost never leaves a slot with two links, or with half of what it had.

pub(crate) mod claims;
pub(crate) mod copy;
mod group;
mod held;
mod nodes;
pub(crate) mod refused;
mod slices;
pub(crate) mod survey;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rewrite::{Slot, SlotSet};

pub use group::Follow;
pub(crate) use group::{Group, Plan};
pub(crate) use held::Held;
pub use slices::Slice;

/// One shard's link, and its slots.
#[derive(Debug)]
pub struct Shard {
    pub(crate) group: Arc<Group>,
    /// Its place in the group.
    pub(crate) index: usize,
    /// What the shard is called by, in checkpoints of slots too.
    pub(crate) id: String,
    /// The target may have older keys of its slots, which are removed behind a first snapshot.
    pub(crate) sweeps: bool,
    /// Slots whose commands are applied where the stream is.
    pub(crate) applied: Arc<SlotSet>,
    /// Slots that are this link's.
    held: SlotSet,
    /// Of those, where they begin, if the stream is not surely beyond that.
    copied: Mutex<BTreeMap<u16, u64>>,
    /// Under a hold: no slot is taken or let go any more.
    is_still: AtomicBool,
}

impl Shard {
    pub(crate) fn new(group: Arc<Group>, index: usize, id: &str, sweeps: bool) -> Self {
        Self {
            group,
            index,
            id: id.to_owned(),
            sweeps,
            applied: Arc::default(),
            held: SlotSet::new(),
            copied: Mutex::default(),
            is_still: AtomicBool::new(false),
        }
    }

    /// Nothing is under way with slots, and nothing begins before this is taken back.
    pub(crate) fn is_still(&self) -> bool {
        self.is_still.load(Ordering::Relaxed)
    }

    pub(crate) fn set_still(&self, is_still: bool) {
        self.is_still.store(is_still, Ordering::Relaxed);
    }

    fn copied(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with what a checkpoint says, at its offset. `in_doubt`: whether what was put there last is right is not known:
    /// slots that were copied are copied again.
    pub(crate) fn begin(&self, held: &Held, offset: u64, in_doubt: bool) {
        self.held.clear();
        self.applied.clear();
        let mut copied = self.copied();
        copied.clear();
        for slot in held.slots() {
            self.held.insert(Slot(slot));
            self.applied.insert(Slot(slot));
        }
        for (slot, from) in held.copied.iter().filter(|_| !in_doubt) {
            self.held.insert(Slot(*slot));
            copied.insert(*slot, *from);
        }
        drop(copied);
        self.go_to(offset);
    }

    /// What the checkpoint is to say.
    pub(crate) fn held(&self) -> Held {
        let copied = self.copied();
        let plain = self.held.iter().map(|slot| slot.0);
        let mut held = Held::of(plain.filter(|slot| !copied.contains_key(slot)));
        held.copied = copied.iter().map(|(slot, from)| (*slot, *from)).collect();
        held
    }

    /// Whether the slot is this link's.
    pub(crate) fn holds(&self, slot: Slot) -> bool {
        self.held.contains(slot)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// All slots that are.
    pub(crate) fn slots(&self) -> Vec<u16> {
        self.held.iter().map(|slot| slot.0).collect()
    }

    /// The next command begins at `offset`. Whether slots begin further on.
    pub(crate) fn go_to(&self, offset: u64) -> bool {
        let mut has_more = false;
        for (slot, from) in self.copied().iter() {
            match *from <= offset {
                true => self.applied.insert(Slot(*slot)),
                false => {
                    has_more = true;
                    self.applied.remove(Slot(*slot))
                }
            };
        }
        has_more
    }

    /// Everything up to `offset` is confirmed, and will not be gone back behind.
    pub(crate) fn confirmed(&self, offset: u64) {
        self.copied().retain(|_, from| *from > offset);
    }

    /// Takes a slot of which the target has what the source had at `from`.
    pub(crate) fn take(&self, slot: u16, from: u64) {
        self.copied().insert(slot, from);
        self.held.insert(Slot(slot));
    }

    /// Takes a slot whose own checkpoint at the target says from where on its commands are applied.
    pub(crate) fn hold(&self, slot: u16, from: u64) {
        self.take(slot, from);
        self.applied.insert(Slot(slot));
    }

    /// Whether a slot was copied not long ago: the link's position has not passed that.
    pub(crate) fn is_recent(&self, slot: Slot) -> bool {
        self.copied().contains_key(&slot.0)
    }

    /// Lets a slot go.
    pub(crate) fn leave(&self, slot: u16) {
        self.copied().remove(&slot);
        self.held.remove(Slot(slot));
        self.applied.remove(Slot(slot));
    }

    /// Whether this link brings libraries of functions, which every shard has.
    pub(crate) fn has_libraries(&self) -> bool {
        self.holds(Slot(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_slot_begins_at_its_offset() {
        let shard = Shard::new(Arc::new(Group::new("base".to_owned())), 0, "a", false);
        shard.begin(&Held::parse("0-1,5@100,6@10").unwrap(), 50, false);
        let applied = || -> Vec<u16> { shard.applied.iter().map(|slot| slot.0).collect() };
        assert_eq!(applied(), [0, 1, 6]);
        shard.go_to(100);
        assert_eq!(applied(), [0, 1, 5, 6]);
        // Back again: what was collected was thrown away.
        shard.go_to(60);
        assert_eq!(applied(), [0, 1, 6]);
        shard.take(9, 70);
        shard.leave(1);
        assert_eq!(shard.held().to_string(), "0,5@100,6@10,9@70");
        shard.confirmed(80);
        assert_eq!(shard.held().to_string(), "0,6,9,5@100");
        assert_eq!(shard.slots(), [0, 5, 6, 9]);
        shard.begin(&shard.held(), 80, true);
        assert_eq!(shard.slots(), [0, 6, 9]);
        assert!(shard.has_libraries() && !shard.holds(Slot(5)));
    }
}
