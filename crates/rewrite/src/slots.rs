//! A set of slots that is changed while it is in use.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::slot::{SLOTS, Slot};

const WORDS: usize = SLOTS as usize / 64;

/// Some of a cluster's slots. One thread changes it; others may look.
pub struct SlotSet([AtomicU64; WORDS]);

impl SlotSet {
    /// No slot.
    pub fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn place(&self, slot: Slot) -> Option<(&AtomicU64, u64)> {
        let word = self.0.get(usize::from(slot.0 / 64))?;
        Some((word, 1 << (slot.0 % 64)))
    }

    /// Whether it holds the slot.
    #[inline]
    pub fn contains(&self, slot: Slot) -> bool {
        self.place(slot)
            .is_some_and(|(word, bit)| word.load(Relaxed) & bit != 0)
    }

    /// Adds a slot; false if it was there already.
    pub fn insert(&self, slot: Slot) -> bool {
        self.place(slot)
            .is_some_and(|(word, bit)| word.fetch_or(bit, Relaxed) & bit == 0)
    }

    /// Takes a slot out; false if it was not there.
    pub fn remove(&self, slot: Slot) -> bool {
        self.place(slot)
            .is_some_and(|(word, bit)| word.fetch_and(!bit, Relaxed) & bit != 0)
    }

    /// Takes all out.
    pub fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Relaxed));
    }

    /// All that it holds, in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..SLOTS).map(Slot).filter(|slot| self.contains(*slot))
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        let ones = self.0.iter().map(|word| word.load(Relaxed).count_ones());
        ones.map(|ones| ones as usize).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Relaxed) == 0)
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({} slots)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_and_go() {
        let set = SlotSet::new();
        assert!(set.is_empty());
        for slot in [0, 63, 64, 16383] {
            assert!(set.insert(Slot(slot)) && !set.insert(Slot(slot)));
        }
        assert!(set.remove(Slot(63)) && !set.remove(Slot(63)));
        let held: Vec<u16> = set.iter().map(|slot| slot.0).collect();
        assert_eq!((held, set.len()), (vec![0, 64, 16383], 3));
        assert!(!set.insert(Slot(SLOTS)) && !set.contains(Slot(SLOTS)));
        set.clear();
        assert!(set.is_empty());
    }
}
